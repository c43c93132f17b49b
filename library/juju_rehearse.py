#!/usr/bin/python
"""Ansible module: rehearse the restore of an archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_rehearse
short_description: Load an archive into a scratch mongod, rewrite it to an invented address, and look at the result
description:
  - Runs on the control machine. mongod listens on a unix socket only; all lies below a private folder that is removed,
    also when the run is ended by a signal.
  - Changes no host and no archive. Does nothing in check mode.
options:
  path:
    description: The archive.
    type: path
    required: true
  identity:
    description: File with the secret key for an encrypted archive; it stays where it is.
    type: path
    default: ""
  mongod:
    description: Name or path of a mongod of the controller's line.
    type: str
    default: mongod
  environment:
    description: Variables that mongod needs.
    type: dict
    default: {}
  folder:
    description: Where the private folder is made. The archive is unpacked there in plain text; a tmpfs keeps that off the disk.
    type: path
    default: /var/tmp
extends_documentation_fragment:
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Rehearse
  juju_rehearse:
    path: backups/juju-backup-20261124-101500.tar.gz
    mongod: /opt/mongodb-4.4/bin/mongod
    folder: /dev/shm
"""

RETURN = r"""
address:
  description: The invented address; C(member) is the replica set member that Juju would keep there.
  returned: success
  type: str
  sample: 192.0.2.10
documents:
  description: How many were loaded; C(collections), C(oplog_applied) and C(transactions_dropped) likewise.
  returned: success
  type: int
  sample: 1955
counted_against:
  description: What the counts were compared with.
  returned: success
  type: str
  sample: the backup's own count of each collection
by_rule:
  description: Number of places rewritten, by rule; C(edits) is their sum.
  returned: success
  type: dict
  sample: {api-host-ports: 1}
history:
  description: Number of places that only tell of an old address, by collection or file; C(lost) those of lost controllers.
  returned: success
  type: dict
  sample: {juju.txns: 14}
cannot_restore:
  description: Why no host can be made of the archive, though its database passed.
  returned: success
  type: str
  sample: ""
seconds:
  description: What each step took, and all of them.
  returned: success
  type: dict
  sample: {load: 1.2, all: 4.5}
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import PROGRESS
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.progress import attended
from ansible.module_utils.juju_dr.rehearse import Scratch, rehearse


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "identity": {"type": "path", "default": ""},
            "mongod": {"type": "str", "default": "mongod"},
            "environment": {"type": "dict", "default": {}},
            "folder": {"type": "path", "default": "/var/tmp"},  # noqa: S108 (a folder of mode 0700 is made in it)
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": False}
        if not module.check_mode:
            environment = {name: str(value) for name, value in arguments["environment"].items()}
            scratch = Scratch(arguments["mongod"], arguments["folder"], environment)
            with attended(arguments["progress"]) as progress:
                result.update(asdict(rehearse(arguments["path"], scratch, arguments["identity"], progress)))
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
