#!/usr/bin/python
"""Ansible module: which machines must be pointed at this controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_machines
short_description: List the machines whose agents are not known to be pointed at this controller
description:
  - Runs on the restored controller. Reads all machines of all models from its database and leaves out controllers, lost ones
    included, and machines of which the ledger says that they were pointed here and whose agents are seen to be back.
  - Begins a ledger in which the next steps note what they do.
options:
  addresses:
    description: New API addresses, host:port; empty means those of the controller's own agent.
    type: list
    elements: str
    default: []
  lost_controllers:
    description: Machine ids of controllers that do not come back, besides those the ledger knows.
    type: list
    elements: str
    default: []
  force:
    description: Leave nothing out because of the ledger.
    type: bool
    default: false
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.log_dir
  - juju_host.ledger_folder
author: juju-dr
"""

EXAMPLES = r"""
- name: List
  juju_machines:
  register: left
"""

RETURN = r"""
machines:
  description: Model, machine, addresses, agents and, for a container, its host.
  returned: success
  type: list
  elements: dict
  sample: [{model: prod, model_uuid: 901f…, machine: "0", addresses: [10.99.0.14], agents: [machine-0@901f…], parent: ""}]
whole:
  description: How many machines need nothing.
  returned: success
  type: int
  sample: 0
lost_agents:
  description: The agents, TAG@MODEL-UUID, of controllers that do not come back.
  returned: success
  type: list
  elements: str
  sample: [machine-1@36c3711f…, machine-2@36c3711f…]
order:
  description: What each machine is told, C(addresses), C(controller_uuid), C(ca_cert).
  returned: success
  type: dict
  sample: {addresses: ["10.99.0.21:17070"], controller_uuid: 7be169e9…, ca_cert: "-----BEGIN CERTIFICATE-----…"}
machine_id:
  description: The controller's own machine id.
  returned: success
  type: str
  sample: "0"
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, LEDGER_FOLDER, LOG_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.controller_host import controller_client, machine_agent
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.presence import Watch, started_at
from ansible.module_utils.juju_dr.repoint import machines_from
from ansible.module_utils.juju_dr.repoint_ledger import Ledger, read, rest, write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "default": []},
            "lost_controllers": {"type": "list", "elements": "str", "default": []},
            "force": {"type": "bool", "default": False},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "log_dir": LOG_DIR,
            "ledger_folder": LEDGER_FOLDER,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    folder = Path(arguments["ledger_folder"])
    try:
        agent = machine_agent(arguments["data_dir"])
        uuid = agent.conf.require("controller")[len("controller-") :]
        addresses = arguments["addresses"] or agent.conf.sequence("apiaddresses")
        ledger = read(folder)
        if not (ledger and ledger.fits(uuid, addresses)):
            ledger = None
        lost = sorted({*arguments["lost_controllers"], *(ledger.lost_controllers if ledger else ())})
        if arguments["force"]:
            ledger = None
        with controller_client(arguments["data_dir"], arguments["mongo_common"]) as client:
            model = agent.conf.require("model")[len("model-") :]
            machines = machines_from(client.juju, model, [agent.machine_id, *lost])
            log = Path(arguments["log_dir"]) / f"machine-{agent.machine_id}.log"
            since = started_at(f"jujud-machine-{agent.machine_id}", module.run_command)
            # One look: who came back since a run that was ended need not be told again.
            seen = Watch(client.juju, log, int(agent.conf.require("apiport")), since).look() if ledger else {}
        left, kept = rest(machines, ledger, seen)
        if not module.check_mode:
            write(folder, Ledger(uuid, tuple(addresses), tuple(lost), tuple(kept)))
        result = {
            "changed": False,
            "machines": [asdict(machine) for machine in left],
            "whole": len(kept),
            "lost_agents": [f"machine-{one}@{model}" for one in lost],
            "machine_id": agent.machine_id,
            "order": {"addresses": addresses, "controller_uuid": uuid, "ca_cert": agent.conf.require("cacert")},
        }
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
