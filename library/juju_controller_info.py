#!/usr/bin/python
"""Ansible module: what a host of a Juju controller is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_controller_info
short_description: Read what a host of a Juju controller is
description:
  - Reads agent.conf, the replica set, sizes and free space.
  - Never fails because something is down; the reason is in the result.
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.service
author: juju-dr
"""

EXAMPLES = r"""
- name: Read what this host is
  juju_controller_info:
  register: info
"""

RETURN = r"""
is_controller:
  description: Whether a controller's machine agent is installed here.
  returned: success
  type: bool
  sample: true
reason:
  description: Why this is no controller machine, empty when it is.
  returned: success
  type: str
  sample: ""
controller_uuid:
  description: The controller's UUID; other parts of its identity are given likewise.
  returned: success
  type: str
  sample: 7be169e9-f5de-42f7-858d-32d376886082
replica_set:
  description: Whether the database answers (C(available), C(reason)) and its members with state and lag.
  returned: success
  type: dict
  sample: {available: true, name: juju, self: 1, members: []}
free:
  description: Free bytes by folder.
  returned: success
  type: dict
  sample: {/var/lib/juju: 53687091200}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, SERVICE
from ansible.module_utils.juju_dr.controller_host import describe
from ansible.module_utils.juju_dr.errors import JujuDrError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        found = describe(arguments["data_dir"], arguments["mongo_common"], arguments["service"], module.run_command)
        result = {"changed": False, **found}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
