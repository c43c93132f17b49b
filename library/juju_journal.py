#!/usr/bin/python
"""Ansible module: the journal of a restore."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_journal
short_description: Read and write the journal of a restore on this host
description:
  - One small file that says which archive is restored, which step began and ended, and what ran before.
  - Refuses another archive, or another run, while a restore has neither ended nor been undone.
options:
  state:
    description:
      - V(looked) says what a restore of O(archive) would mean here, or without one only what the journal holds.
      - V(opened) begins or goes on. V(ended) writes down that O(step) ended. V(closed) writes down the O(outcome).
    type: str
    choices: [looked, opened, ended, closed]
    required: true
  archive:
    description: Result of M(juju_archive_info).
    type: dict
    default: {}
  address:
    description: Address that agents shall use; empty when it is not known yet.
    type: str
    default: ""
  run:
    description: Stamp of this run, used when a restore begins.
    type: str
    default: ""
  lock_run:
    description: Name of the run that holds the lock of this host; a run whose lock was taken over is refused.
    type: str
    default: ""
  step:
    description: The step that ended.
    type: str
    default: ""
  todo:
    description: The steps of this run.
    type: list
    elements: str
    default: []
  result:
    description: What the step found, for the report; no secrets.
    type: dict
    default: {}
  outcome:
    description: How the restore ended.
    type: str
    choices: [restored, rolled back]
    default: restored
  cause:
    description: Why it was rolled back.
    type: str
    default: ""
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.service
author: juju-dr
"""

EXAMPLES = r"""
- name: Look
  juju_journal:
    state: looked
    archive: "{{ archive_info }}"

- name: Write down that a step ended
  juju_journal:
    state: ended
    step: mongo-load
    todo: [mongo-load, rewrite-addresses]
    lock_run: root@control:4711
"""

RETURN = r"""
journal:
  description: The journal; empty when there is none.
  returned: success
  type: dict
  sample: {run: 20261124-101500, state: restoring}
running_before:
  description: Units that ran before the restore, in the order to start them again.
  returned: success
  type: list
  elements: str
  sample: [snap.juju-db.daemon, jujud-machine-0]
kept:
  description: What is kept for a way back, with its size.
  returned: success
  type: list
  elements: dict
  sample: [{path: /var/lib/juju.aside-20261124-101500, bytes: 118224043}]
verb:
  description: What a restore of the archive means, C(begin), C(resume), or C(restored) when nothing is to do.
  returned: with an archive
  type: str
  sample: begin
todo:
  description: Steps to do, in order.
  returned: with an archive
  type: list
  elements: str
  sample: [upload, stop-services]
why:
  description: One sentence for the operator.
  returned: with an archive
  type: str
  sample: nothing was begun here
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr import journal as journals
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, SERVICE
from ansible.module_utils.juju_dr.errors import JujuDrError, sentence
from ansible.module_utils.juju_dr.lock import sign_of_life
from ansible.module_utils.juju_dr.set_aside import Host, kept, services


def work(arguments: dict[str, Any], host: Host, apply: bool) -> dict[str, Any]:
    journal, told, decision = journals.read(host.work), arguments["archive"], None
    archive = (
        journals.Archive(**{key: str(told[key]) for key in ("path", "sha256", "controller_uuid", "machine_id")})
        if told
        else None
    )
    state = arguments["state"]
    if apply and arguments["lock_run"]:
        sign_of_life(arguments["lock_run"], host.work)
    if state == "opened" and archive:
        if journal and journal.state == journals.ROLLED_BACK and apply:
            journals.remember(journal, host.work)
        journal, decision = journals.begin(
            journal, archive, arguments["address"], arguments["run"], arguments["lock_run"], services(host)
        )
    elif archive:
        decision = journals.decide(journal, archive, arguments["address"])
    if state in ("ended", "closed") and journal is None:
        raise JujuDrError(
            f"The journal {host.work / journals.NAME} is gone", "Run the restore again; it looks at what is there"
        )
    if state == "ended" and journal:
        journals.end_step(journal, arguments["step"], arguments["result"], tuple(arguments["todo"]))
    if state == "closed" and journal:
        journal.state, journal.cause = arguments["outcome"], arguments["cause"]
    if state != "looked" and apply and journal:
        journals.write(journal, host.work)
    result: dict[str, Any] = {
        "changed": state != "looked",
        "journal": asdict(journal) if journal else {},
        "running_before": journal.running_before if journal else [],
        "kept": kept(journal, host) if journal else [],
    }
    return {**result, "verb": decision.verb, "todo": list(decision.todo), "why": decision.why} if decision else result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["looked", "opened", "ended", "closed"], "required": True},
            "archive": {"type": "dict", "default": {}},
            "address": {"type": "str", "default": ""},
            "run": {"type": "str", "default": ""},
            "lock_run": {"type": "str", "default": ""},
            "step": {"type": "str", "default": ""},
            "todo": {"type": "list", "elements": "str", "default": []},
            "result": {"type": "dict", "default": {}},
            "outcome": {"type": "str", "choices": ["restored", "rolled back"], "default": "restored"},
            "cause": {"type": "str", "default": ""},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    host = Host(Path(arguments["data_dir"]), Path(arguments["mongo_common"]), arguments["service"], module.run_command)
    try:
        result = work(arguments, host, apply=not module.check_mode)
    except (JujuDrError, OSError) as error:
        module.fail_json(msg=sentence(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
