#!/usr/bin/python
"""Ansible module: judge archives."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_judge
short_description: Say of one archive, or of each archive of a folder, whether it may be used
description:
  - Reads each archive to its last byte as M(juju_archive_info) does, but goes on with the next one when one is refused.
  - Changes nothing, writes nothing.
options:
  path:
    description: The archive, or a folder of archives.
    type: path
    required: true
  identity:
    description: File with the secret key for encrypted archives; it stays where it is.
    type: path
    default: ""
  expected_controller_uuid:
    description: Refuse archives of any other controller.
    type: str
    default: ""
author: juju-dr
"""

EXAMPLES = r"""
- name: Judge all backups
  juju_judge:
    path: backups
    identity: /root/backup.key
  register: judged
"""

RETURN = r"""
verdicts:
  description: For each archive its path, whether it may be used, the cause with its cure, what stays unproven, and seconds.
  returned: success
  type: list
  elements: dict
  sample: [{path: backups/juju-backup-20261124-101500.tar.gz, ok: false, code: cut, cause: "It ends early. Fetch it again.",
            unproven: [], info: {}, seconds: 0.1}]
"""

import time
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.verdict import archives_at, judge


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "identity": {"type": "path", "default": ""},
            "expected_controller_uuid": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    verdicts = []
    try:
        for path in archives_at(arguments["path"]):
            began = time.monotonic()
            verdict = judge(path, arguments["identity"], arguments["expected_controller_uuid"])
            verdicts.append({**asdict(verdict), "seconds": round(time.monotonic() - began, 2)})
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, verdicts=verdicts)


if __name__ == "__main__":
    main()
