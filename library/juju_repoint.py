#!/usr/bin/python
"""Ansible module: re-point the other machines' agents."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_repoint
short_description: Point the agents of all other machines at the restored controller
description:
  - Runs on the restored controller; reaches each machine over ssh with the system identity that all of them trust.
  - Edits each agent.conf in place and restarts only what changed. A machine that cannot be reached is listed.
options:
  addresses:
    description: New API addresses, host:port.
    type: list
    elements: str
    required: true
  lost_controllers:
    description: Machine ids of controllers that do not come back.
    type: list
    elements: str
    default: []
  user:
    description: Login user on the machines.
    type: str
    default: ubuntu
  parallel:
    description: Machines at the same time.
    type: int
    default: 20
  timeout:
    description: Seconds for one machine.
    type: int
    default: 30
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
author: juju-dr
"""

EXAMPLES = r"""
- name: Re-point
  juju_repoint:
    addresses: ["10.99.0.21:17070"]
"""

RETURN = r"""
ledger:
  description: Model, machine, address, outcome, reason and agents of each machine.
  returned: success
  type: list
  elements: dict
  sample: [{model: prod, machine: "0", address: 10.99.0.14, outcome: done, reason: "", agents: [machine-0@901f…]}]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.repoint import repoint_all, write_ledger


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "required": True},
            "lost_controllers": {"type": "list", "elements": "str", "default": []},
            "user": {"type": "str", "default": "ubuntu"},
            "parallel": {"type": "int", "default": 20},
            "timeout": {"type": "int", "default": 30},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        entries = repoint_all(
            arguments["data_dir"],
            arguments["mongo_common"],
            arguments["addresses"],
            arguments["lost_controllers"],
            arguments["user"],
            arguments["parallel"],
            arguments["timeout"],
            apply=not module.check_mode,
        )
        if not module.check_mode:
            write_ledger(entries)
        changed = any(entry.outcome == "done" for entry in entries)
        result = {"changed": changed, "ledger": [asdict(entry) for entry in entries]}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
