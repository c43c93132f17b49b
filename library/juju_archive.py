#!/usr/bin/python
"""Ansible module: write a backup archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_archive
short_description: Gather a controller machine's files and write the backup archive
description:
  - Adds the host's files to a dump in a staging folder and writes one tar.gz in Juju's layout, with a manifest and a digest.
  - The archive appears under its name only when it is whole and on disk; the staging folder is removed.
options:
  staging:
    description: Folder with the dump.
    type: path
    required: true
  dest_dir:
    description: Folder that receives the archive.
    type: path
    required: true
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
author: juju-dr
"""

EXAMPLES = r"""
- name: Write the archive
  juju_archive:
    staging: /var/lib/juju-dr/staging/20261124-101500
    dest_dir: /var/lib/juju-dr/backups
"""

RETURN = r"""
path:
  description: The archive.
  returned: changed
  type: str
  sample: /var/lib/juju-dr/backups/juju-backup-20261124-101500.tar.gz
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
skipped:
  description: What was left out, with the reason.
  returned: changed
  type: list
  elements: str
  sample: []
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, LOG_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.backup import archive_host
from ansible.module_utils.juju_dr.errors import JujuDrError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "staging": {"type": "path", "required": True},
            "dest_dir": {"type": "path", "required": True},
            "notes": {"type": "str", "default": ""},
            "logs": {"type": "bool", "default": True},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "log_dir": LOG_DIR,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": True}
        if not module.check_mode:
            result.update(
                archive_host(
                    arguments["staging"],
                    arguments["dest_dir"],
                    arguments["notes"],
                    arguments["data_dir"],
                    arguments["mongo_common"],
                    arguments["log_dir"] if arguments["logs"] else None,
                )
            )
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
