#!/usr/bin/python
"""Ansible module: begin a backup archive with a Juju controller's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_mongo_dump
short_description: Begin a backup archive with a Juju controller's database, hot and exact, or with juju-db stopped
description:
  - Streams mongodump's format straight into an unfinished archive; documents pass through undecoded, nothing else is written.
  - A hot dump holds the oplog of its window, so that a load arrives at the state of one instant.
  - What killed runs left in the staging folder is removed first. A failed dump leaves nothing.
options:
  staging:
    description: Folder for what is unfinished, on the file system of the finished archives, and of this alone.
    type: path
    required: true
  mode:
    description:
      - V(offline) stops juju-db for the dump and starts it again whatever happens. When this process is killed, a unit of
        systemd that watches it does that.
    type: str
    choices: [hot, offline]
    default: hot
  codec:
    description: How the archive is packed.
    type: str
    choices: [gzip, zstd]
    default: gzip
  recipients:
    description: Public keys that the archive will be encrypted to; tried now, used by M(juju_archive).
    type: list
    elements: str
    default: []
  logs:
    description: Whether the logs will be taken along, which need room.
    type: bool
    default: true
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.log_dir
  - juju_host.service
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Dump hot
  juju_mongo_dump:
    staging: /var/lib/juju-dr/backups/.unfinished

- name: Dump with juju-db stopped
  juju_mongo_dump:
    staging: /var/lib/juju-dr/backups/.unfinished
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
  description: Start and end of the window as seconds and increment of the database's time, and the number of entries kept.
  returned: changed
  type: dict
  sample: {start: [1795486500, 1], end: [1795486501, 4], entries: 12}
healed:
  description: What killed runs had left and was removed.
  returned: changed
  type: list
  elements: str
  sample: []
waiting:
  description: Whole archives that lie there already, which a fetch that failed has not brought; they stay.
  returned: changed
  type: list
  elements: str
  sample: []
retry:
  description: Whether another try, perhaps on another member, may succeed.
  returned: failed
  type: bool
  sample: true
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, LOG_DIR, MONGO_COMMON, PROGRESS, SERVICE
from ansible.module_utils.juju_dr.backup import Host, dump_host
from ansible.module_utils.juju_dr.ends import Ended, tidily
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.oplog import DumpInterrupted
from ansible.module_utils.juju_dr.progress import attended


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "staging": {"type": "path", "required": True},
            "mode": {"type": "str", "choices": ["hot", "offline"], "default": "hot"},
            "codec": {"type": "str", "choices": ["gzip", "zstd"], "default": "gzip"},
            "recipients": {"type": "list", "elements": "str", "default": []},
            "logs": {"type": "bool", "default": True},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "log_dir": LOG_DIR,
            "service": SERVICE,
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    told = module.params
    result: dict[str, Any] = {"changed": True, "mode": told["mode"]}
    try:
        if not module.check_mode:
            host = Host(told["data_dir"], told["mongo_common"], told["log_dir"] if told["logs"] else None, told["service"])
            with tidily(), step(), attended(told["progress"]) as progress:
                begun = dump_host(
                    Path(told["staging"]),
                    told["mode"],
                    told["codec"],
                    told["recipients"],
                    host,
                    module.run_command,
                    progress,
                )
            report = begun.report
            result.update(report.to_json(), documents=report.documents, bytes=report.bytes)
            result.update(healed=begun.healed, waiting=begun.waiting)
    except DumpInterrupted as error:
        module.fail_json(msg=str(error), retry=True)
    except (JujuDrError, Ended) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
