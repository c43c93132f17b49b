#!/usr/bin/python
"""Ansible module: probe old controller addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: juju_probe
short_description: See whether an old controller machine still answers
description:
  - Connects to every address and port and looks whose certificate answers. Changes nothing.
options:
  endpoints:
    description: Where old controller machines were, C(host:port) or C([IPv6]:port); loopback ones are passed over.
    type: list
    elements: str
    required: true
  ca_cert:
    description: The controller's CA certificate, PEM.
    type: str
    required: true
  server_cert:
    description: The controller's server certificate, PEM, believed by itself.
    type: str
    default: ""
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 3
author: juju-dr
"""

EXAMPLES = r"""
- name: Probe
  juju_probe:
    endpoints: ["10.99.0.11:17070", "10.99.0.11:37017"]
    ca_cert: "{{ info.ca_cert }}"
"""

RETURN = r"""
answers:
  description: >-
    Each endpoint that answered, the address that did, whether it is this controller, whether the address is of the host that
    asked, and how that is known.
  returned: success
  type: list
  elements: dict
  sample:
    - {endpoint: "10.99.0.11:17070", address: 10.99.0.11, port: 17070, same_controller: true, own: false,
       detail: TLS certificate signed by this controller's CA}
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.probe import probe


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "endpoints": {"type": "list", "elements": "str", "required": True},
            "ca_cert": {"type": "str", "required": True},
            "server_cert": {"type": "str", "default": ""},
            "timeout": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    arguments = module.params
    try:
        answers = probe(arguments["endpoints"], arguments["ca_cert"], arguments["server_cert"], arguments["timeout"])
        result = {"changed": False, "answers": [asdict(answer) for answer in answers]}
    except JujuDrError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
