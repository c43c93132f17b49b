#!/usr/bin/python
"""Ansible module: load a dump in place of juju-db's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_mongo_load
short_description: Load a dump in place of a juju-db database
description:
  - Runs juju-db without replication on a private socket, loads data and indexes, replays the oplog, makes the Mongo users.
  - Expects juju-db stopped and its database set aside; refuses otherwise.
options:
  source:
    description: Unpacked archive, the folder that holds C(dump/).
    type: path
    required: true
  agent_conf:
    description: The agent.conf of the controller machine, whose passwords the users get.
    type: path
    required: true
  machine_id:
    description: The controller machine's id.
    type: str
    required: true
extends_documentation_fragment:
  - juju_host.mongo_common
  - juju_host.service
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Load
  juju_mongo_load:
    source: /var/lib/juju-dr/restore-20261124-101500/unpacked
    agent_conf: /var/lib/juju/agents/machine-0/agent.conf
    machine_id: "0"
"""

RETURN = r"""
collections:
  description: Namespace, documents and bytes of each collection.
  returned: changed
  type: list
  elements: dict
  sample: [{ns: juju.machines, documents: 3, bytes: 2586}]
oplog_applied:
  description: Operations of the dump window that were replayed.
  returned: changed
  type: int
  sample: 12
elapsed:
  description: Seconds the load took.
  returned: changed
  type: float
  sample: 3.1
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import MONGO_COMMON, PROGRESS, SERVICE
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.load import load_into_juju_db
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.progress import attended


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "agent_conf": {"type": "path", "required": True},
            "machine_id": {"type": "str", "required": True},
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": True}
        if not module.check_mode:
            with step(), attended(arguments["progress"]) as progress:
                report = load_into_juju_db(
                    arguments["source"],
                    arguments["agent_conf"],
                    arguments["machine_id"],
                    arguments["mongo_common"],
                    arguments["service"],
                    module.run_command,
                    progress,
                )
            result.update(report.__dict__, documents=report.documents, bytes=report.bytes)
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
