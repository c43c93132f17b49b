#!/usr/bin/python
"""Ansible module: write a run's report."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_report
short_description: Write what a run found into one JSON file and a text beside it
description:
  - Works on the control machine. Both files appear whole, with mode 0600; those of the same name are replaced.
options:
  dest:
    description: Folder for both; made with mode 0700 when it is missing.
    type: path
    required: true
  name:
    description: Their name, without ending.
    type: str
    required: true
  data:
    description: What the run found.
    type: dict
    required: true
  text:
    description: The same for people.
    type: str
    required: true
author: juju-dr
"""

EXAMPLES = r"""
- name: Report
  juju_report:
    dest: backups
    name: restore-20261124-101500
    data: "{{ report_data }}"
    text: "{{ lookup('ansible.builtin.template', 'restore.txt.j2') }}"
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The JSON file.
  returned: success
  type: str
  sample: backups/restore-20261124-101500.json
"""

import json
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.files import write_whole


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "data": {"type": "dict", "required": True},
            "text": {"type": "str", "required": True},
        },
        supports_check_mode=True,
        # A report is long, and the system's log has no use for it.
        no_log=True,
    )
    folder, name = Path(module.params["dest"]), module.params["name"]
    wanted = {
        folder / f"{name}.json": json.dumps(module.params["data"], indent=4, sort_keys=True) + "\n",
        folder / f"{name}.txt": module.params["text"],
    }
    try:
        changed = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        if changed and not module.check_mode:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in changed:
                write_whole(path, wanted[path])
    except OSError as error:
        module.fail_json(msg=f"The report cannot be written: {error}. Name another folder: report_dest")
    module.exit_json(changed=bool(changed), path=str(folder / f"{name}.json"))


if __name__ == "__main__":
    main()
