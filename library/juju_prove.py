#!/usr/bin/python
"""Ansible module: prove a restored controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_prove
short_description: Prove what must be true of a restored controller, each with its evidence
description:
  - Waits for each proof until it holds or the deadline ends. Changes nothing.
  - That agents are back is proved by the controller's log since its agent started, by what they wrote through the API, or by
    connections that last, whichever is seen first; a quiet log hides no agent.
options:
  address:
    description: Address of the controller.
    type: str
    required: true
  machine_id:
    description: Its machine id.
    type: str
    required: true
  proofs:
    description: What to prove.
    type: list
    elements: str
    choices: [mongo-primary, jujud-active, api-answers, peergrouper-keeps-member, agents-logged-in]
    required: true
  require:
    description: Proofs that must hold.
    type: list
    elements: str
    default: ['mongo-primary', 'jujud-active', 'api-answers', 'peergrouper-keeps-member']
  without:
    description: Agents not waited for, as TAG@MODEL-UUID.
    type: list
    elements: str
    default: []
  deadline:
    description: Seconds until a proof counts as failed.
    type: int
    default: 180
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.log_dir
author: juju-dr
"""

EXAMPLES = r"""
- name: Prove
  juju_prove:
    address: 10.99.0.21
    machine_id: "0"
    proofs: [mongo-primary, api-answers]
"""

RETURN = r"""
proofs:
  description: Name, whether it holds, and what was seen.
  returned: always
  type: list
  elements: dict
  sample: [{name: mongo-primary, ok: true, evidence: "primary is 10.99.0.21:37017"}]
agents:
  description: With proof V(agents-logged-in), by agent (TAG@MODEL-UUID) the evidence that it is back.
  returned: success
  type: dict
  sample: {"machine-0@901f082c-b330-49e3-8f56-5fffb4a9c190": "log: its login"}
"""

from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, LOG_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.controller_host import machine_agent
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.prove import AGENTS, Restored, prove, prove_agents


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "machine_id": {"type": "str", "required": True},
            "proofs": {
                "type": "list",
                "elements": "str",
                "choices": [
                    "mongo-primary",
                    "jujud-active",
                    "api-answers",
                    "peergrouper-keeps-member",
                    "agents-logged-in",
                ],
                "required": True,
            },
            "require": {
                "type": "list",
                "elements": "str",
                "default": ["mongo-primary", "jujud-active", "api-answers", "peergrouper-keeps-member"],
            },
            "without": {"type": "list", "elements": "str", "default": []},
            "deadline": {"type": "int", "default": 180},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "log_dir": LOG_DIR,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        conf = machine_agent(arguments["data_dir"]).conf
        restored = Restored(
            arguments["address"],
            arguments["machine_id"],
            int(conf.require("apiport")),
            int(conf.require("stateport")),
            conf.require("cacert"),
            arguments["data_dir"],
            arguments["mongo_common"],
            Path(arguments["log_dir"]) / f"machine-{arguments['machine_id']}.log",
            frozenset(arguments["without"]),
        )
        names = arguments["proofs"]
        proofs = prove(restored, [name for name in names if name != AGENTS], arguments["deadline"], module.run_command)
        seen: dict[str, str] = {}
        if AGENTS in names:
            proof, seen = prove_agents(restored, arguments["deadline"], module.run_command)
            proofs.append(proof)
        result = {"changed": False, "proofs": [asdict(proof) for proof in proofs], "agents": seen}
        failed = [proof for proof in proofs if not proof.ok and proof.name in arguments["require"]]
        if failed:
            module.fail_json(
                msg="Not proved: " + "; ".join(f"{proof.name}: {proof.evidence}" for proof in failed) + ".", **result
            )
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
