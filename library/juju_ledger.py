#!/usr/bin/python
"""Ansible module: keep the ledger of re-pointing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_ledger
short_description: Keep on the controller which machines were pointed at it, and whose logins were seen
description:
  - Writes C(repoint-ledger.json) and, to read, C(repoint-ledger.txt); what was noted before and is not told again stays.
options:
  entries:
    description: What M(juju_repoint) returned.
    type: list
    elements: dict
    default: []
  seen:
    description: By agent, TAG@MODEL-UUID, the evidence that it is back, from M(juju_prove).
    type: dict
    default: {}
extends_documentation_fragment:
  - juju_host.ledger_folder
author: juju-dr
"""

EXAMPLES = r"""
- name: Keep
  juju_ledger:
    entries: "{{ told.entries }}"
"""

RETURN = r"""
ledger:
  description: Model, machine, address, outcome, reason, warning, agents, and who was seen by which evidence, of each machine.
  returned: success
  type: list
  elements: dict
  sample: [{model: prod, machine: "0", address: 10.99.0.14, outcome: done, reason: "", agents: [machine-0@901f…],
            seen: {"machine-0@901f…": "log: its login"}}]
table:
  description: The same as lines to read, what needs a hand first.
  returned: success
  type: list
  elements: str
  sample: ["MODEL  MACHINE  ADDRESS     OUTCOME  SEEN  REMARK", "prod   0        10.99.0.14  done     1/1"]
not_pointed:
  description: Agents on machines that were not reached or that refused.
  returned: success
  type: list
  elements: str
  sample: []
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import LEDGER_FOLDER
from ansible.module_utils.juju_dr.repoint import Entry
from ansible.module_utils.juju_dr.repoint_ledger import Ledger, merged, read, table, write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "entries": {"type": "list", "elements": "dict", "default": []},
            "seen": {"type": "dict", "default": {}},
            "ledger_folder": LEDGER_FOLDER,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    folder = Path(arguments["ledger_folder"])
    before = read(folder) or Ledger("", ())
    ledger = merged(before, [Entry(**one) for one in arguments["entries"]], arguments["seen"])
    changed = ledger != before
    if not module.check_mode:
        write(folder, ledger)
    away = [agent for one in ledger.machines if one.outcome in ("refused", "unreachable") for agent in one.agents]
    module.exit_json(
        changed=changed, ledger=[asdict(one) for one in ledger.machines], table=table(ledger.machines), not_pointed=away
    )


if __name__ == "__main__":
    main()
