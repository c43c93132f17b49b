#!/usr/bin/python
"""Ansible module: rewrite a moved controller's files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_rewrite_files
short_description: Rewrite the API addresses in the agents' configuration of a moved controller
description:
  - Edits agent.conf by key; every other byte, owner and mode stay.
options:
  address:
    description: The new address.
    type: str
    required: true
  machine_id:
    description: The controller machine.
    type: str
    required: true
extends_documentation_fragment:
  - juju_host.data_dir
author: juju-dr
"""

EXAMPLES = r"""
- name: Rewrite
  juju_rewrite_files:
    address: 10.99.0.21
    machine_id: "0"
"""

RETURN = r"""
edits:
  description: Each edit with rule, place, field, and the value before and after.
  returned: success
  type: list
  elements: dict
  sample: [{rule: agent-conf-addresses, where: …/machine-0/agent.conf, field: apiaddresses, before: [], after: []}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.rewriting import as_diff, rewrite_files


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "machine_id": {"type": "str", "required": True},
            "data_dir": DATA_DIR,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        edits = rewrite_files(
            arguments["data_dir"], arguments["machine_id"], arguments["address"], apply_edits=not module.check_mode
        )
        result = {"changed": bool(edits), "edits": edits, "diff": as_diff(edits)}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
