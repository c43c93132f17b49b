#!/usr/bin/python
"""Ansible module: set a host's controller data aside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_set_aside
short_description: Move a host's present controller data aside, put it back, or delete it
description:
  - Renames under the stamp of the restore that the journal names. What is moved is written into the journal first, so that
    V(back) undoes exactly that, whenever a run was killed.
options:
  state:
    description:
      - V(aside) moves away what is there, or removes what an earlier attempt placed since.
      - V(back) puts it back; V(deleted) deletes what is kept for a way back, and closes the journal.
    type: str
    choices: [aside, back, deleted]
    required: true
  root:
    description: For V(aside), the unpacked root of the archive; the keys in it will be added to the host's.
    type: path
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
    root: /var/lib/juju-dr/restore-20261124-101500/unpacked/root

- name: Put back
  juju_set_aside:
    state: back
"""

RETURN = r"""
moved:
  description: What was moved, from where to where.
  returned: for aside and back
  type: list
  elements: dict
  sample: [{from: /var/lib/juju, to: /var/lib/juju.aside-20261124-101500}]
beside:
  description: What the undone restore had placed and is kept beside.
  returned: for back
  type: list
  elements: str
  sample: []
deleted:
  description: What was deleted, with its size.
  returned: for deleted
  type: list
  elements: dict
  sample: [{path: /var/lib/juju.aside-20261124-101500, bytes: 118224043}]
bytes:
  description: Size of what was moved or deleted.
  returned: success
  type: int
  sample: 118224043
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr import journal as journals
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, SERVICE
from ansible.module_utils.juju_dr.errors import JujuDrError, sentence
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.set_aside import Host, aside, back, delete, kept, moves


def planned(state: str, journal: journals.Journal | None, host: Host) -> dict[str, Any]:
    """What would be done."""
    if state == "aside":
        moved = moves(journal.run if journal else "STAMP", host)
        return {"moved": moved, "bytes": 0}
    if state == "back":
        moved = [{"from": one["to"], "to": one["from"]} for one in journal.aside.moved] if journal and journal.aside else []
        return {"moved": moved, "bytes": journal.aside.bytes if journal and journal.aside else 0, "beside": []}
    found = kept(journal, host) if journal else []
    return {"deleted": found, "bytes": sum(one["bytes"] for one in found)}


def _done(state: str, journal: journals.Journal, host: Host, root: str | None) -> dict[str, Any]:
    if state == "aside":
        return aside(journal, host, Path(root) if root else None)
    return back(journal, host) if state == "back" else delete(journal, host)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["aside", "back", "deleted"], "required": True},
            "root": {"type": "path"},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    state, data_dir, mongo_common = (arguments[name] for name in ("state", "data_dir", "mongo_common"))
    host = Host(Path(data_dir), Path(mongo_common), arguments["service"], module.run_command)
    try:
        journal = journals.read(host.work)
        if module.check_mode:
            result = planned(state, journal, host)
        elif journal is None:
            raise JujuDrError(
                f"There is no journal at {host.work / journals.NAME}", "Nothing was begun here, so nothing is to undo"
            )
        else:
            with step(host.work):
                result = _done(state, journal, host, arguments["root"])
        result["changed"] = bool(result.get("moved") or result.get("deleted"))
    except (JujuDrError, OSError) as error:
        module.fail_json(msg=sentence(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
