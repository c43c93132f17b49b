#!/usr/bin/python
"""Ansible module: re-point the other machines' agents."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_repoint
short_description: Point the agents of many machines at the restored controller
description:
  - Reaches each machine over ssh, many at once. Edits each agent.conf in place and restarts only what changed.
  - A machine that cannot be reached is listed. A container whose addresses only its host knows is reached through that host.
options:
  machines:
    description: The machines, as M(juju_machines) lists them.
    type: list
    elements: dict
    required: true
  order:
    description: What they are told, from M(juju_machines).
    type: dict
    required: true
  user:
    description: Login user on the machines.
    type: str
    default: ubuntu
  port:
    description: Where their sshd listens.
    type: int
    default: 22
  identity:
    description: File with the ssh identity to use, and nothing else of the host's ssh configuration; empty uses that.
    type: path
  ssh_args:
    description: Further arguments of ssh.
    type: list
    elements: str
    default: []
  parallel:
    description: Machines at the same time.
    type: int
    default: 32
  timeout:
    description: Seconds for one machine.
    type: int
    default: 30
  journal:
    description: Note each outcome in the ledger's folder at once; only on the controller.
    type: bool
    default: true
extends_documentation_fragment:
  - juju_host.ledger_folder
author: juju-dr
"""

EXAMPLES = r"""
- name: Re-point
  juju_repoint:
    machines: "{{ left.machines }}"
    order: "{{ left.order }}"
    identity: /var/lib/juju/system-identity
"""

RETURN = r"""
entries:
  description: Model, machine, address, outcome, reason, warning and agents of each machine.
  returned: success
  type: list
  elements: dict
  sample: [{model: prod, machine: "0", address: 10.99.0.14, outcome: done, reason: "", agents: [machine-0@901f…]}]
"""

import contextlib
import json
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import LEDGER_FOLDER
from ansible.module_utils.juju_dr.repoint import KNOCK_SECONDS, Entry, Machine, Order, Ways, repoint, with_identity
from ansible.module_utils.juju_dr.repoint_ledger import journal


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "machines": {"type": "list", "elements": "dict", "required": True},
            "order": {"type": "dict", "required": True},
            "user": {"type": "str", "default": "ubuntu"},
            "port": {"type": "int", "default": 22},
            "identity": {"type": "path"},
            "ssh_args": {"type": "list", "elements": "str", "default": []},
            "parallel": {"type": "int", "default": 32},
            "timeout": {"type": "int", "default": 30},
            "journal": {"type": "bool", "default": True},
            "ledger_folder": LEDGER_FOLDER,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    told = arguments["order"]
    order = Order(tuple(told["addresses"]), told["controller_uuid"], told["ca_cert"], stamp, not module.check_mode)
    identity = with_identity(arguments["identity"]) if arguments["identity"] else ()
    ways = Ways(
        arguments["user"],
        arguments["port"],
        (*identity, *arguments["ssh_args"]),
        arguments["parallel"],
        arguments["timeout"],
        knock=KNOCK_SECONDS if arguments["identity"] else 0,
    )
    machines = [
        Machine(**{**one, "addresses": tuple(one["addresses"]), "agents": tuple(one["agents"])})
        for one in arguments["machines"]
    ]
    with contextlib.ExitStack() as stack:
        noted = None
        if arguments["journal"] and not module.check_mode:
            noted = stack.enter_context(journal(Path(arguments["ledger_folder"])))

        def note(entry: Entry) -> None:
            if noted:
                noted.write(json.dumps(asdict(entry)) + "\n")

        entries = repoint(machines, order, ways, note=note)
    changed = any(entry.outcome == "done" for entry in entries)
    module.exit_json(changed=changed, entries=[asdict(entry) for entry in entries])


if __name__ == "__main__":
    main()
