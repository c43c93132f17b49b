#!/usr/bin/python
"""Ansible module: pick the member of each controller that is backed up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_choose_member
short_description: Pick the member of each Juju controller that is backed up
description:
  - Groups hosts by controller UUID and picks one member of each, and the others in the order in which they stand in for it.
  - Reads only what it is given and changes nothing.
options:
  candidates:
    description: Results of M(juju_controller_info), each with C(inventory_hostname) and C(address) added.
    type: list
    elements: dict
    required: true
  policy:
    description:
      - V(secondary) takes a healthy secondary when there is one, else the primary.
      - V(primary) takes the primary, V(machine) the machine named by O(machine_id).
    type: str
    choices: [secondary, primary, machine]
    default: secondary
  machine_id:
    description: The machine's id with O(policy=machine).
    type: str
    default: ""
  max_lag_seconds:
    description: A secondary further behind the primary is not healthy.
    type: int
    default: 30
author: juju-dr
"""

EXAMPLES = r"""
- name: Pick one member of each controller
  juju_choose_member:
    candidates: "{{ infos }}"

- name: Always machine 0
  juju_choose_member:
    candidates: "{{ infos }}"
    policy: machine
    machine_id: "0"
"""

RETURN = r"""
chosen:
  description: One entry a controller.
  returned: success
  type: list
  elements: dict
  sample:
    - controller_uuid: 7be169e9-f5de-42f7-858d-32d376886082
      host: c1
      machine_id: "1"
      state: SECONDARY
      why: a healthy secondary, so that the primary is left alone
      rank: 0
      last: false
others:
  description: Members that stand in, with their rank, when those before them fail.
  returned: success
  type: list
  elements: dict
  sample: []
unaccounted:
  description: Hosts that cannot be reached and are no member of a controller that can.
  returned: success
  type: list
  elements: str
  sample: []
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.members import POLICIES, candidate, choose, unaccounted


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "candidates": {"type": "list", "elements": "dict", "required": True},
            "policy": {"type": "str", "choices": list(POLICIES), "default": "secondary"},
            "machine_id": {"type": "str", "default": ""},
            "max_lag_seconds": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    candidates = [candidate(info) for info in arguments["candidates"]]
    try:
        chosen = choose(
            candidates,
            arguments["policy"],
            arguments["machine_id"],
            arguments["max_lag_seconds"],
        )
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        chosen=[asdict(one) for one in chosen if one.rank == 0],
        others=[asdict(one) for one in chosen if one.rank > 0],
        unaccounted=unaccounted(candidates),
    )


if __name__ == "__main__":
    main()
