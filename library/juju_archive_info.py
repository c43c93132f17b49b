#!/usr/bin/python
"""Ansible module: verify a backup archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_archive_info
short_description: Read a backup archive to its last byte and say what it is of
description:
  - Takes archives of juju-dr, of C(juju create-backup) (formats 0 to 2), and of Juju 1.18 to 1.25 (the C(juju-backup) plugin
    and C(juju backups create)); the format is known from the content.
  - Changes nothing, writes nothing.
options:
  path:
    description: The archive.
    type: path
    required: true
  identity:
    description: Path of the secret key (age or ssh) for an encrypted archive; never copied, mode 0600 or 0400.
    type: path
    default: ""
  expected_controller_uuid:
    description: Refuse an archive of any other controller.
    type: str
    default: ""
  max_bytes:
    description: Refuse an archive that unpacks to more.
    type: int
    default: 4398046511104
  max_ratio:
    description: Refuse an archive without a manifest that unpacks to so many times its size.
    type: int
    default: 250
  max_files:
    description: Refuse an archive with more files, folders and links, in itself or in root.tar.
    type: int
    default: 2000000
extends_documentation_fragment:
  - juju_host.progress
author: juju-dr
"""

EXAMPLES = r"""
- name: Verify
  juju_archive_info:
    path: backups/juju-backup-20261124-101500.tar.gz
  register: info
"""

RETURN = r"""
format:
  description: V(juju-dr), C(create-backup N), V(juju-backup plugin) or V(juju backups create).
  returned: success
  type: str
  sample: juju-dr
controller_uuid:
  description: Whose archive it is; C(model_uuid), C(machine_id), C(version), C(generation), ports and C(ca_cert) likewise.
  returned: success
  type: str
  sample: 7be169e9-f5de-42f7-858d-32d376886082
addresses:
  description: Where any controller machine of the archive was reached.
  returned: success
  type: list
  elements: str
  sample: [10.99.0.15]
endpoints:
  description: Every host and port at which a controller machine may still answer, from all that names one.
  returned: success
  type: list
  elements: str
  sample: ["10.99.0.15:17070", "10.99.0.15:37017"]
controllers:
  description: Machine id and addresses of each controller machine.
  returned: success
  type: list
  elements: dict
  sample: [{machine_id: "0", addresses: [10.99.0.15]}]
sha256:
  description: Digest of the file.
  returned: success
  type: str
  sample: 128ac0c7850172a9eeb374c5edb2106ee8a3777b71fb18b691a312aed12d6987
cannot_restore:
  description: Why it cannot be restored onto a host, with the cure; empty when it can.
  returned: success
  type: str
  sample: ""
code:
  description: Why it is refused, one of the causes in C(verdict.py), such as V(cut), V(damaged), V(manifest), V(unsafe-link).
  returned: failure
  type: str
  sample: cut
unproven:
  description: What the format could not prove.
  returned: success
  type: list
  elements: str
  sample: [no .sha256 file lies beside it]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.archive_tar import LIMITS, Limits
from ansible.module_utils.juju_dr.arguments import PROGRESS
from ansible.module_utils.juju_dr.progress import attended
from ansible.module_utils.juju_dr.verdict import judge


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "identity": {"type": "path", "default": ""},
            "expected_controller_uuid": {"type": "str", "default": ""},
            "max_bytes": {"type": "int", "default": LIMITS.total_bytes},
            "max_ratio": {"type": "int", "default": LIMITS.ratio},
            "max_files": {"type": "int", "default": LIMITS.files},
            "progress": PROGRESS,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    limits = Limits(arguments["max_bytes"], arguments["max_ratio"], arguments["max_files"])
    with attended(arguments["progress"]) as progress:
        verdict = judge(arguments["path"], arguments["identity"], arguments["expected_controller_uuid"], limits, progress)
    if not verdict.ok:
        module.fail_json(msg=verdict.cause, code=verdict.code)
    module.exit_json(changed=False, **verdict.info)


if __name__ == "__main__":
    main()
