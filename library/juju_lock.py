#!/usr/bin/python
"""Ansible module: one run at a time on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_lock
short_description: Let one run at a time work on a host
description:
  - Takes a lock that names the run, its purpose and its last sign of life, or gives it back.
  - The lock of a run whose process has ended is taken over at once by a run of the same control machine; the action plugin
    of this name finds that out, and says which run asks.
options:
  state:
    description: Take the lock or give it back.
    type: str
    choices: [taken, released]
    required: true
  purpose:
    description: What the run does, for whoever is refused meanwhile.
    type: str
    default: run
  stale_after:
    description: Seconds without a sign of life after which a run counts as dead.
    type: int
    default: 7200
  instead_of:
    description: Name of a run, spelled out, that is known to be dead.
    type: str
    default: ""
  run:
    description: Name of this run; filled in by the action plugin.
    type: str
    default: ""
  control:
    description: This run's process; filled in by the action plugin.
    type: dict
    default: {}
author: juju-dr
"""

EXAMPLES = r"""
- name: Take the lock
  juju_lock:
    state: taken
    purpose: restore

- name: Give it back
  juju_lock:
    state: released
"""

RETURN = r"""
run:
  description: Name of this run.
  returned: success
  type: str
  sample: root@control:4711
notes:
  description: Whose lock was taken over, and which of its steps was ended.
  returned: success
  type: list
  elements: str
  sample: []
holder:
  description: The run that holds the lock.
  returned: failure
  type: dict
  sample: {name: "root@control:4711", purpose: restore, control: {host: control, pid: "4711", start: "884211"}}
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import Run, Taken, read, release, take


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "released"], "required": True},
            "purpose": {"type": "str", "default": "run"},
            "stale_after": {"type": "int", "default": 7200},
            "instead_of": {"type": "str", "default": ""},
            "run": {"type": "str", "default": ""},
            "control": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    run = Run(arguments["run"], arguments["purpose"], arguments["control"])
    try:
        if arguments["state"] == "taken":
            done = take(run, arguments["stale_after"], arguments["instead_of"], apply=not module.check_mode)
        else:
            done = Taken(release(run, apply=not module.check_mode))
    except JujuDrError as error:
        holder = read()
        module.fail_json(msg=str(error), holder=asdict(holder.run) if holder else {})
    for note in done.notes:
        module.warn(note)
    module.exit_json(changed=done.changed, run=run.name, notes=list(done.notes))


if __name__ == "__main__":
    main()
