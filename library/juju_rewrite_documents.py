#!/usr/bin/python
"""Ansible module: rewrite a moved controller's documents."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_rewrite_documents
short_description: Rewrite addresses and instance ids of a moved Juju controller, by field
description:
  - Applies the rule table of the controller's generation to the database while juju-db is stopped.
  - With O(archive) it plans from an archive and changes nothing, whatever the mode.
options:
  address:
    description: The new address.
    type: str
    required: true
  cidr:
    description: Its subnet.
    type: str
    default: ""
  machine_id:
    description: The controller machine that moves.
    type: str
    required: true
  instance_id:
    description: The provider's id of the new instance; empty rewrites only C(manual:) ids.
    type: str
    default: ""
  archive:
    description: Plan from this archive.
    type: path
    default: ""
  identity:
    description: File with the secret key for an encrypted O(archive); it stays where it is.
    type: path
    default: ""
  skip_rules:
    description: Rules not to apply; for experts and tests.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - juju_host.data_dir
  - juju_host.mongo_common
  - juju_host.service
author: juju-dr
"""

EXAMPLES = r"""
- name: Rewrite
  juju_rewrite_documents:
    address: 10.99.0.21
    cidr: 10.99.0.0/24
    machine_id: "0"

- name: Show what would be rewritten
  juju_rewrite_documents:
    address: 10.99.0.21
    machine_id: "0"
    archive: backups/juju-backup-20261124-101500.tar.gz
  check_mode: true
  diff: true
"""

RETURN = r"""
edits:
  description: Each edit with rule, place, field, and the value before and after.
  returned: success
  type: list
  elements: dict
  sample: [{rule: instance-id, where: "instanceData m:1", field: instanceid, before: "manual:a", after: "manual:b"}]
by_rule:
  description: Number of edits by rule.
  returned: success
  type: dict
  sample: {instance-id: 1}
harvest_before:
  description: What harvesting was set to, by model.
  returned: success
  type: list
  elements: dict
  sample: [{model: admin/prod, before: destroyed}]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.arguments import DATA_DIR, MONGO_COMMON, SERVICE
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import step
from ansible.module_utils.juju_dr.rewriting import Wanted, plan_from_archive, rewrite_live


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "cidr": {"type": "str", "default": ""},
            "machine_id": {"type": "str", "required": True},
            "instance_id": {"type": "str", "default": ""},
            "archive": {"type": "path", "default": ""},
            "identity": {"type": "path", "default": ""},
            "skip_rules": {"type": "list", "elements": "str", "default": []},
            "data_dir": DATA_DIR,
            "mongo_common": MONGO_COMMON,
            "service": SERVICE,
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        wanted = Wanted(
            arguments["machine_id"],
            arguments["address"],
            arguments["cidr"],
            arguments["instance_id"],
            tuple(arguments["skip_rules"]),
        )
        if arguments["archive"]:
            done = plan_from_archive(arguments["archive"], wanted, arguments["identity"])
        else:
            with step():
                done = rewrite_live(
                    wanted,
                    arguments["data_dir"],
                    arguments["mongo_common"],
                    arguments["service"],
                    module.run_command,
                    apply_edits=not module.check_mode,
                )
        result = {"changed": bool(done.edits), **done.to_json(), "diff": done.diff()}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
