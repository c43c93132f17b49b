#!/usr/bin/python
"""Ansible module: unpack a verified archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_archive_unpack
short_description: Unpack a backup archive into a private folder
description:
  - Reads the archive whole first and compares its digest; nothing is written outside the new folder.
options:
  path:
    description: The archive on this host.
    type: path
    required: true
  dest:
    description: Folder to make; that above it is made, too, when it is missing. Only their owner enters them.
    type: path
    required: true
  replace:
    description: Remove what a killed run left at O(dest) first; otherwise it must not exist.
    type: bool
    default: false
  remove:
    description: Removed with all that is in it once everything is unpacked, as the folder that the archive came in.
    type: path
    default: ""
  sha256:
    description: Digest of the archive that was verified.
    type: str
    required: true
extends_documentation_fragment:
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Unpack
  juju_archive_unpack:
    path: /var/lib/juju-dr/restore-20261124-101500/archive.tar.gz
    dest: /var/lib/juju-dr/restore-20261124-101500/unpacked
    sha256: "{{ info.sha256 }}"
"""

RETURN = r"""
dump:
  description: The unpacked dump; C(root) and C(admin) are given likewise.
  returned: changed
  type: str
  sample: /var/lib/juju-dr/restore-20261124-101500/unpacked/dump
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.archive import unpack
from ansible.module_utils.juju_dr.arguments import PROGRESS
from ansible.module_utils.juju_dr.errors import JujuDrError, sentence
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.progress import attended
from ansible.module_utils.juju_dr.verdict import Refused


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "sha256": {"type": "str", "required": True},
            "replace": {"type": "bool", "default": False},
            "remove": {"type": "path", "default": ""},
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        result: dict[str, Any] = {"changed": True}
        if not module.check_mode:
            with step(), attended(arguments["progress"]) as progress:
                dest = Path(arguments["dest"])
                dest.parent.mkdir(mode=0o700, exist_ok=True)
                if arguments["replace"] and dest.is_dir():
                    shutil.rmtree(dest)
                result.update(unpack(arguments["path"], str(dest), arguments["sha256"], progress=progress))
                if arguments["remove"]:
                    shutil.rmtree(arguments["remove"])
    except Refused as error:
        module.fail_json(msg=str(error), code=error.code)
    except (JujuDrError, OSError) as error:
        module.fail_json(msg=sentence(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
