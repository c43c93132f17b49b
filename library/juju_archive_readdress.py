#!/usr/bin/python
"""Ansible module: make of an archive of Juju 1.x another one that names a new address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_archive_readdress
short_description: Make of an archive of Juju 1.18 to 1.25 another one that names a new address
description:
  - Documents and agent.conf are rewritten by the rules of a restore and judged as there; every other byte passes through.
  - Takes the place of a restore onto a host, which is not done for Juju 1.x; RV(steps) are left to do by hand.
options:
  path:
    description: The archive; it stays as it is.
    type: path
    required: true
  dest:
    description: Archive to make; it must not exist. A digest is written beside it.
    type: path
    required: true
  address:
    description: Address of the new state server.
    type: str
    required: true
  instance_id:
    description: The provider's id of the new instance; without it only C(manual:) ids are rewritten.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Plans and judges; writes nothing.
  diff_mode:
    support: full
    description: Each edit of documents, before and after.
author: juju-dr
"""

EXAMPLES = r"""
- name: Name the new address
  juju_archive_readdress:
    path: juju-backup-20160301-1000.tgz
    dest: moved.tgz
    address: 10.0.0.21
    instance_id: i-0abc
"""

RETURN = r"""
path:
  description: The new archive; C(sha256) is its digest.
  returned: success
  type: str
  sample: moved.tgz
edits:
  description: Each place that was rewritten, C(harvest_before) what harvesting was set to.
  returned: success
  type: list
  elements: dict
  sample: [{rule: state-server-ids, where: stateServers e, field: machineids, before: ["0", "1", "2"], after: ["0"]}]
mentions:
  description: Files of root.tar that still name an old address; Juju writes these anew, or they are logs.
  returned: success
  type: list
  elements: str
  sample: [/etc/rsyslog.d/25-juju.conf]
left_out:
  description: Files that the new archive does not have, each with the reason.
  returned: success
  type: list
  elements: str
  sample: ["dump/oplog.bson: replayed, it could bring old addresses back"]
steps:
  description: What is left to do by hand, in order.
  returned: success
  type: list
  elements: str
  sample: ["Start jujud-machine-0; its log is /var/log/juju/machine-0.log."]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.archive import inspect
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.readdress import readdress
from ansible.module_utils.juju_dr.rewriting import Wanted, as_diff


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "dest": {"type": "path", "required": True},
            "address": {"type": "str", "required": True},
            "instance_id": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    asked = module.params
    try:
        machine_id = inspect(asked["path"]).machine_id
        wanted = Wanted(machine_id, asked["address"], instance_id=asked["instance_id"])
        done = readdress(asked["path"], asked["dest"], wanted, write=not module.check_mode)
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, diff=as_diff(done.edits), **asdict(done))


if __name__ == "__main__":
    main()
