#!/usr/bin/python
"""Ansible module: make the member that the peergrouper keeps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_replica_set
short_description: Initiate juju-db's replica set so that Juju's peergrouper keeps the member
description:
  - Moves the only member of a set that was initiated elsewhere; refuses a set with several.
options:
  address:
    description: Address of the member.
    type: str
    required: true
  machine_id:
    description: The controller machine it belongs to.
    type: str
    required: true
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
author: juju-dr
"""

EXAMPLES = r"""
- name: Make the member
  juju_replica_set:
    address: 10.99.0.21
    machine_id: "0"
"""

RETURN = r"""
member:
  description: The member as it is now.
  returned: success
  type: dict
  sample: {_id: 1, host: "10.99.0.21:37017", tags: {juju-machine-id: "0"}}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.replica_set import make_member


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "machine_id": {"type": "str", "required": True},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        with step():
            changed, member = make_member(
                arguments["data_dir"],
                arguments["mongo_common"],
                arguments["machine_id"],
                arguments["address"],
                apply=not module.check_mode,
            )
        result = {"changed": changed, "member": member}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
