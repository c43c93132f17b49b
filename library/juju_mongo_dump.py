#!/usr/bin/python
"""Ansible module: dump a Juju controller's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_mongo_dump
short_description: Dump a Juju controller's database, hot and consistent, or with juju-db stopped
description:
  - Writes mongodump's format into a new folder of mode 0700; documents pass through undecoded.
  - A hot dump holds the oplog of its window, so that a load arrives at the state of one instant.
options:
  dest:
    description: Folder to make; it must not exist.
    type: path
    required: true
  mode:
    description: V(offline) stops juju-db for the dump and starts it again whatever happens.
    type: str
    choices: [hot, offline]
    default: hot
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.service
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Dump hot
  juju_mongo_dump:
    dest: /var/lib/juju-dr/staging/20261124-101500

- name: Dump with juju-db stopped
  juju_mongo_dump:
    dest: /var/lib/juju-dr/staging/20261124-101500
    mode: offline
"""

RETURN = r"""
collections:
  description: Namespace, documents, bytes and SHA-256 of each collection.
  returned: changed
  type: list
  elements: dict
  sample: [{ns: juju.machines, documents: 3, bytes: 2586, sha256: 9f2c…}]
documents:
  description: Documents in all.
  returned: changed
  type: int
  sample: 1653
oplog:
  description: Start and end of the window as seconds and increment, and the number of entries kept.
  returned: changed
  type: dict
  sample: {start: [1795486500, 1], end: [1795486501, 4], entries: 12}
retry:
  description: Whether another try may succeed.
  returned: failed
  type: bool
  sample: true
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, PROGRESS, SERVICE
from ansible.module_utils.juju_dr.controller_host import controller_client
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.offline import dump_offline
from ansible.module_utils.juju_dr.oplog import DumpInterrupted
from ansible.module_utils.juju_dr.progress import attended


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "dest": {"type": "path", "required": True},
            "mode": {"type": "str", "choices": ["hot", "offline"], "default": "hot"},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": True, "mode": arguments["mode"]}
        if not module.check_mode:
            if arguments["mode"] == "offline":
                with attended(arguments["progress"]) as progress:
                    report = dump_offline(
                        Folder(Path(arguments["dest"])),
                        arguments["data_dir"],
                        arguments["mongo_common"],
                        arguments["service"],
                        module.run_command,
                        progress,
                    )
            else:
                with attended(arguments["progress"]) as progress:
                    with controller_client(arguments["data_dir"], arguments["mongo_common"]) as client:
                        report = dump(client, Folder(Path(arguments["dest"])), "hot", progress)
            result.update(report.to_json(), documents=report.documents, bytes=report.bytes)
    except DumpInterrupted as error:
        shutil.rmtree(arguments["dest"], ignore_errors=True)
        module.fail_json(msg=str(error), retry=True)
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
