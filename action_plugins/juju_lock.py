"""Action: says which run asks for a host's lock, and whether the run that holds it is still alive on this control machine."""

from __future__ import annotations

import getpass
import os
import socket
from typing import Any

import ansible.module_utils
from ansible.constants import DEFAULT_MODULE_UTILS_PATH
from ansible.plugins.action import ActionBase

# Ansible finds a project's shared code for modules only.
ansible.module_utils.__path__.extend(path for path in DEFAULT_MODULE_UTILS_PATH if path not in ansible.module_utils.__path__)
from ansible.module_utils.juju_dr.lock import is_gone, this_run


class ActionModule(ActionBase):
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        host = socket.gethostname()
        # Tasks run in children of the process that is the run.
        arguments = {**self._task.args, **this_run(getpass.getuser(), host, os.getppid())}
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        holder = result.get("holder") or {}
        if result.get("failed") and is_gone(holder.get("control", {}), host):
            arguments["instead_of"] = holder["name"]
            result = self._execute_module(module_args=arguments, task_vars=task_vars)
        return result
