#!/usr/bin/python
"""Ansible module: upload an archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_upload
short_description: Upload an archive to a host, going on where an earlier run was cut off
description:
  - Works over the connection of the play, with its options; memory does not grow with the archive.
  - What is there of O(dest) is kept when it is the beginning of O(src) by digest; only the rest is sent.
  - When the host cannot be reached it is tried again for C(juju_dr_reconnect_seconds) (240) from its last answer.
  - Whether the whole is right is not said here; M(juju_archive_unpack) compares its digest on the host.
options:
  src:
    description: The archive on the control machine.
    type: path
    required: true
  dest:
    description: Where it goes on the host, with mode 0600; its folder is made with mode 0700 when it is missing.
    type: path
    required: true
  identity:
    description: Age identity file of an encrypted archive. What is sent is decrypted on its way and lies nowhere in between.
    type: path
    default: ""
  space:
    description: Bytes the host needs beside the archive itself, for what is unpacked from it.
    type: int
    default: 0
  ask:
    description: What the action of this name asks the module on the host.
    type: dict
    default: {}
author: juju-dr
"""

EXAMPLES = r"""
- name: Upload
  juju_upload:
    src: backups/juju-backup-20261124-101500.tar.gz
    dest: /var/lib/juju-dr/incoming/juju-backup-20261124-101500.tar.gz
"""

RETURN = r"""
size:
  description: Bytes that lie on the host now.
  returned: changed
  type: int
  sample: 104857600
sent:
  description: Bytes that went over the network.
  returned: changed
  type: int
  sample: 104857600
resumed_at:
  description: Bytes that an earlier run had brought.
  returned: changed
  type: int
  sample: 0
elapsed:
  description: Seconds.
  returned: changed
  type: float
  sample: 2.4
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.transfer import describe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "identity": {"type": "path", "default": ""},
            "space": {"type": "int", "default": 0},
            "ask": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    dest, ask = Path(module.params["dest"]), module.params["ask"]
    if ask.get("prefix"):
        dest.parent.mkdir(mode=0o700, exist_ok=True)
    there = dest.stat().st_size if ask.get("prefix") and dest.exists() else 0
    module.exit_json(changed=True, **describe(dest, there))


if __name__ == "__main__":
    main()
