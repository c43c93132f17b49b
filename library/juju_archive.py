#!/usr/bin/python
"""Ansible module: write a backup archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_archive
short_description: Add a controller machine's files to an archive and finish it
description:
  - Adds the host's files to the archive that M(juju_mongo_dump) began, then manifest and digest, in Juju's layout.
  - The archive appears under its name only when it is whole and on disk. The staging folder is removed in any case.
options:
  staging:
    description: Folder with the unfinished archive.
    type: path
    required: true
  dest_dir:
    description: Folder that receives the archive; on the file system of the staging folder.
    type: path
    required: true
  recipients:
    description: Public keys that the archive is encrypted to, before it gets its name; none leaves it plain.
    type: list
    elements: str
    default: []
  notes:
    description: Free text for metadata.json.
    type: str
    default: ""
  logs:
    description: Take the logs along.
    type: bool
    default: true
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.log_dir
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Write the archive
  juju_archive:
    staging: /var/lib/juju-dr/backups/.unfinished
    dest_dir: /var/lib/juju-dr/backups
"""

RETURN = r"""
path:
  description: The archive.
  returned: changed
  type: str
  sample: /var/lib/juju-dr/backups/juju-backup-20261124-101500-7be169e9.tar.gz
size:
  description: Its size in bytes.
  returned: changed
  type: int
  sample: 118224043
sha256:
  description: Its digest.
  returned: changed
  type: str
  sample: 128ac0c7850172a9eeb374c5edb2106ee8a3777b71fb18b691a312aed12d6987
left_out:
  description: What was left out, with the reason.
  returned: changed
  type: list
  elements: str
  sample: []
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, LOG_DIR, MONGO_COMMON, PROGRESS
from ansible.module_utils.juju_dr.backup import Host, archive_host
from ansible.module_utils.juju_dr.ends import Ended, tidily
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.progress import attended


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "staging": {"type": "path", "required": True},
            "dest_dir": {"type": "path", "required": True},
            "notes": {"type": "str", "default": ""},
            "logs": {"type": "bool", "default": True},
            "recipients": {"type": "list", "elements": "str", "default": []},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "log_dir": LOG_DIR,
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    told = module.params
    try:
        result: dict[str, Any] = {"changed": True}
        if not module.check_mode:
            host = Host(told["data_dir"], told["mongo_common"], told["log_dir"] if told["logs"] else None)
            with tidily(), step(), attended(told["progress"]) as progress:
                staging, dest = Path(told["staging"]), Path(told["dest_dir"])
                result.update(archive_host(staging, dest, told["notes"], told["recipients"], host, progress))
    except (JujuDrError, Ended) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
