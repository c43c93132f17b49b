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
  data_dir:
    description: Juju's data folder.
    type: path
    default: /var/lib/juju
  mongo_common:
    description: The juju-db snap's common folder.
    type: path
    default: /var/snap/juju-db/common
  service:
    description: Systemd unit that runs juju-db.
    type: str
    default: snap.juju-db.daemon
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

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.set_aside import aside, back, moves


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["aside", "back"], "required": True},
            "stamp": {"type": "str", "required": True},
            "data_dir": {"type": "path", "default": "/var/lib/juju"},
            "mongo_common": {"type": "path", "default": "/var/snap/juju-db/common"},
            "service": {"type": "str", "default": "snap.juju-db.daemon"},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        places = (arguments["stamp"], arguments["data_dir"], arguments["mongo_common"])
        if module.check_mode:
            planned = [{"from": a, "to": b} for a, b in moves(*places)] if arguments["state"] == "aside" else []
            result = {"moved": planned, "bytes": 0}
        else:
            verb = aside if arguments["state"] == "aside" else back
            result = verb(*places, arguments["service"], module.run_command)
        result["changed"] = bool(result["moved"])
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
