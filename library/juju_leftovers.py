#!/usr/bin/python
"""Ansible module: find old addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_leftovers
short_description: Find what still names an old controller address
description:
  - Scans all documents and the host's Juju files. Changes nothing.
options:
  addresses:
    description: Old addresses.
    type: list
    elements: str
    required: true
  lost_addresses:
    description: Those of O(addresses) that belong to controllers which do not come back.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
author: juju-dr
"""

EXAMPLES = r"""
- name: Scan
  juju_leftovers:
    addresses: [10.99.0.11]
"""

RETURN = r"""
live:
  description: Places that are still in use, which is a fault.
  returned: success
  type: list
  elements: str
  sample: []
history:
  description: Number of places that only tell what was, by collection or file.
  returned: success
  type: dict
  sample: {juju.txns: 14}
lost:
  description: Places that belong to lost controllers and go with them.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.leftovers import scan


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "required": True},
            "lost_addresses": {"type": "list", "elements": "str", "default": []},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result = {
            "changed": False,
            **scan(*(arguments[name] for name in ("addresses", "lost_addresses", "data_dir", "mongo_common"))),
        }
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
