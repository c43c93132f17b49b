#!/usr/bin/python
"""Ansible module: can this host become the restored controller machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_target_check
short_description: Check that a host can become the restored Juju controller machine
description:
  - Compares what an archive needs with what the host has, and names every obstacle at once, each with its cure.
  - Changes nothing.
options:
  archive:
    description: Result of M(juju_archive_info).
    type: dict
    required: true
  host:
    description: Result of M(juju_controller_info) on this host.
    type: dict
    required: true
  address:
    description: Address that agents shall use.
    type: str
    required: true
  override:
    description: The controller's UUID, spelled out, to restore over a host that already is this controller.
    type: str
    default: ""
  resumed:
    description: An earlier run found the host ready and was interrupted; what it has changed since is no obstacle.
    type: bool
    default: false
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
author: juju-dr
"""

EXAMPLES = r"""
- name: Check the target
  juju_target_check:
    archive: "{{ archive_info }}"
    host: "{{ controller_info }}"
    address: 10.99.0.21

- name: Check it again although it already is this controller
  juju_target_check:
    archive: "{{ archive_info }}"
    host: "{{ controller_info }}"
    address: 10.99.0.21
    override: 7be169e9-f5de-42f7-858d-32d376886082
"""

RETURN = r"""
cidr:
  description: Subnet of O(address) on this host.
  returned: success
  type: str
  sample: 10.99.0.0/24
"""

import json
import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON
from ansible.module_utils.juju_dr.files import size_of
from ansible.module_utils.juju_dr.journal import FOLDER
from ansible.module_utils.juju_dr.target import Room, Target, obstacles, subnet_of


def interfaces(module: AnsibleModule) -> list[str]:
    _, printed, _ = module.run_command(["ip", "-json", "address"], check_rc=True)
    return [f"{a['local']}/{a['prefixlen']}" for link in json.loads(printed) for a in link.get("addr_info", [])]


def usable_tools(data_dir: Path) -> list[str]:
    return [p.parent.name for p in (data_dir / "tools").glob("*/jujud") if p.is_file() and p.stat().st_size]


def room(place: Path, copied: tuple[str, ...] = ()) -> Room:
    """The disk where the place is, or will be."""
    there = place
    while not there.exists():
        there = there.parent
    return Room(there.stat().st_dev, shutil.disk_usage(there).free, sum(size_of(place / name) for name in copied))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "dict", "required": True},
            "host": {"type": "dict", "required": True},
            "address": {"type": "str", "required": True},
            "override": {"type": "str", "default": ""},
            "resumed": {"type": "bool", "default": False},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    data, common = Path(arguments["data_dir"]), Path(arguments["mongo_common"])
    rooms = {"work": room(FOLDER), "data": room(data, ("dqlite", "tools")), "common": room(common)}
    mounts = [str(place) for place in (data, common / "db") if os.path.ismount(place)]
    target = Target(arguments["host"], interfaces(module), usable_tools(data), rooms, mounts)
    found = obstacles(arguments["archive"], target, arguments["address"], arguments["override"], arguments["resumed"])
    if found:
        module.fail_json(msg="This host cannot become the controller. " + " ".join(found), obstacles=found)
    module.exit_json(changed=False, cidr=subnet_of(arguments["address"], target.interfaces))


if __name__ == "__main__":
    main()
