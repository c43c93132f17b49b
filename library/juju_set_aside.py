#!/usr/bin/python
"""Ansible module: set a host's controller data aside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_set_aside
short_description: Move a host's present controller data aside, or put it back
description:
  - Renames under a stamp; nothing is deleted. What is moved is written down first, so that V(back) undoes exactly that.
options:
  state:
    description: Move aside, or put back.
    type: str
    choices: [aside, back]
    required: true
  stamp:
    description: Names the run.
    type: str
    required: true
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.service
author: juju-dr
"""

EXAMPLES = r"""
- name: Set aside
  juju_set_aside:
    state: aside
    stamp: 20261124-101500

- name: Put back
  juju_set_aside:
    state: back
    stamp: 20261124-101500
"""

RETURN = r"""
moved:
  description: What was moved, from where to where.
  returned: success
  type: list
  elements: dict
  sample: [{from: /var/lib/juju, to: /var/lib/juju.aside-20261124-101500}]
bytes:
  description: Size of it.
  returned: success
  type: int
  sample: 118224043
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, SERVICE
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.set_aside import Host, aside, back, moves


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["aside", "back"], "required": True},
            "stamp": {"type": "str", "required": True},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        stamp, data_dir, mongo_common = (arguments[name] for name in ("stamp", "data_dir", "mongo_common"))
        host = Host(Path(data_dir), Path(mongo_common), arguments["service"], module.run_command)
        if module.check_mode:
            planned = [{"from": a, "to": b} for a, b in moves(stamp, host)] if arguments["state"] == "aside" else []
            result = {"moved": planned, "bytes": 0}
        else:
            verb = aside if arguments["state"] == "aside" else back
            result = verb(stamp, host)
        result["changed"] = bool(result["moved"])
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
