#!/usr/bin/python
"""Ansible module: fetch an archive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_fetch
short_description: Fetch an archive to the control machine, going on where an earlier run was cut off
description:
  - Works over the connection of the play, with its options; memory and scratch space do not grow with the archive.
  - What is there of O(dest) is kept when it is the beginning of O(src) by digest; only the rest is fetched.
  - When the host cannot be reached it is tried again for C(juju_dr_reconnect_seconds) (240) from its last answer.
  - Whether the whole is right is not said here; M(juju_archive_info) reads it to the last byte.
options:
  src:
    description: The archive on the host.
    type: path
    required: true
  dest:
    description: Where it goes on the control machine; its folder must be there.
    type: path
    required: true
  reuse:
    description: Folder on the control machine; what the newest archive there holds as well is taken from it.
    type: path
    default: ""
  ask:
    description: What the action of this name asks the module on the host.
    type: dict
    default: {}
author: juju-dr
"""

EXAMPLES = r"""
- name: Fetch
  juju_fetch:
    src: /var/lib/juju-dr/backups/juju-backup-20261124-101500.tar.gz
    dest: backups/.incoming/juju-backup-20261124-101500.tar.gz
    reuse: backups
"""

RETURN = r"""
size:
  description: Bytes of the archive.
  returned: success
  type: int
  sample: 104857600
sha256:
  description: Its digest as the file beside it states it; empty when there is none.
  returned: success
  type: str
  sample: 128ac0c7850172a9eeb374c5edb2106ee8a3777b71fb18b691a312aed12d6987
fetched:
  description: Bytes that came over the network.
  returned: changed
  type: int
  sample: 1048576
reused:
  description: Bytes that were taken from the older archive.
  returned: changed
  type: int
  sample: 103809024
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
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.transfer import cuts_of, describe, write_window


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "reuse": {"type": "path", "default": ""},
            "ask": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    source, ask = Path(module.params["src"]), module.params["ask"]
    try:
        if "window" in ask:
            written = write_window(source, Path(ask["window"]), ask["ranges"], ask["owner"])
            module.exit_json(changed=True, written=written)
        about = describe(source, int(ask.get("prefix", 0)), cuts_of if ask.get("segments") else None)
        if about["size"] < 0:
            raise JujuDrError(f"There is no archive at {source}", "Run the backup again")
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **about)


if __name__ == "__main__":
    main()
