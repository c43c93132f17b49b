#!/usr/bin/python
"""Ansible module: place an archive's files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_place_files
short_description: Put an archive's files where they belong on a host
description:
  - The host's own dqlite/ and its own tools of the same version stay; authorized_keys are merged, never replaced.
options:
  root:
    description: The unpacked root of the archive.
    type: path
    required: true
  machine_id:
    description: Controller machine in the archive.
    type: str
    required: true
  version:
    description: Juju version in the archive.
    type: str
    required: true
  same_address:
    description: The host has the old machine's address.
    type: bool
    default: false
author: juju-dr
"""

EXAMPLES = r"""
- name: Place
  juju_place_files:
    root: /var/lib/juju-dr/restore-20261124-101500/unpacked/root
    machine_id: "0"
    version: 3.6.26.1
"""

RETURN = r"""
placed:
  description: What was placed.
  returned: changed
  type: list
  elements: str
  sample: [/var/lib/juju/agents]
kept:
  description: What the host keeps of its own, with the reason.
  returned: changed
  type: list
  elements: str
  sample: ["/var/lib/juju/dqlite: this host's own"]
merged:
  description: What holds both the host's and the archive's.
  returned: changed
  type: list
  elements: str
  sample: []
left_out:
  description: What was not placed, with the reason.
  returned: changed
  type: list
  elements: str
  sample: []
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError, sentence
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.place_files import place


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "machine_id": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "same_address": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": True}
        if not module.check_mode:
            with step():
                placed = place(
                    Path(arguments["root"]),
                    arguments["machine_id"],
                    arguments["version"],
                    arguments["same_address"],
                    module.run_command,
                )
            result.update(placed.__dict__)
    except (JujuDrError, OSError) as error:
        module.fail_json(msg=sentence(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
