#!/usr/bin/python
"""Ansible module: probe old controller addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_probe
short_description: See whether an old controller machine still answers
description:
  - Connects to every address and port and looks whose certificate answers. Changes nothing.
options:
  addresses:
    description: Old controller addresses; loopback ones are passed over.
    type: list
    elements: str
    required: true
  ports:
    description: API and Mongo port.
    type: list
    elements: int
    required: true
  ca_cert:
    description: The controller's CA certificate, PEM.
    type: str
    required: true
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 3
author: juju-dr
"""

EXAMPLES = r"""
- name: Probe
  juju_probe:
    addresses: [10.99.0.11]
    ports: [17070, 37017]
    ca_cert: "{{ info.ca_cert }}"
"""

RETURN = r"""
answers:
  description: Each address and port that answered, whether it is this controller, and how that is known.
  returned: success
  type: list
  elements: dict
  sample: [{address: 10.99.0.11, port: 17070, same_controller: true, detail: TLS certificate signed by this controller's CA}]
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.probe import probe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "addresses": {"type": "list", "elements": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "ca_cert": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        answers = probe(arguments["addresses"], arguments["ports"], arguments["ca_cert"], arguments["timeout"])
        result = {"changed": False, "answers": [asdict(answer) for answer in answers]}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
