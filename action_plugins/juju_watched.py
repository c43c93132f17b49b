"""Action: runs the module of its own name as a job on the host, shows how far it is, and returns the module's own result.

A module cannot speak while it runs, so it tells in a small file (module_utils/juju_dr/progress.py), which is asked for here
each second. The job outlives a dropped ssh connection; asking goes on when the host can be reached again. What is watched so
has a link to this file under the module's name.

Variables, all optional: ``juju_dr_progress`` (auto: shown on a terminal; always; never; JUJU_DR_PROGRESS in the environment
says the same), ``juju_dr_job_seconds`` (the longest a job may take), ``juju_dr_reconnect_seconds`` (how long a lost host is
tried again).
"""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from typing import Any

import ansible.module_utils
from ansible.constants import DEFAULT_MODULE_UTILS_PATH
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Ansible finds a project's shared code for modules only.
ansible.module_utils.__path__.extend(path for path in DEFAULT_MODULE_UTILS_PATH if path not in ansible.module_utils.__path__)
from ansible.module_utils.juju_dr.progress import FOLDER, Lines, duration, parse, reconnect_seconds, screen_for

# Asked in the main process, which loads this file: the workers have no terminal.
TERMINAL = sys.stdout.isatty()
JOB_SECONDS = 24 * 3600
LONGEST_PAUSE_SECONDS = 1.0
# What async_wrapper writes before the module has ended.
RUNNING = r'^{"started": *\(true\|1\), "finished": *\(false\|0\), "ansible_job_id"'


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        if self._task.check_mode:
            return self._execute_module(task_vars=task_vars)
        self._host = str(self._vars["inventory_hostname"])
        file = f"{self._folder()}/{secrets.token_hex(8)}.json"
        limit = int(self._setting("juju_dr_job_seconds", JOB_SECONDS))
        self._task.async_val = limit
        try:
            started = self._execute_module(
                module_args={**self._task.args, "progress": file}, task_vars=task_vars, wrap_async=True
            )
        finally:
            # The task itself is not async: its result is awaited here.
            self._task.async_val = 0
        if started.get("failed") or "ansible_job_id" not in started:
            return started
        return self._watch(file, str(started["ansible_job_id"]), str(started["results_file"]), limit)

    def _folder(self) -> str:
        root = self._low_level_execute_command("id -u")["stdout"].strip() == "0"
        return str(FOLDER) if root else self._remote_expand_user("~/.ansible_async")

    def _setting(self, name: str, default: Any) -> Any:
        return self._templar.template(self._vars.get(name, default))

    def _watch(self, file: str, job: str, results: str, limit: int) -> dict[str, Any]:
        label = f"[{self._host}] {self._task.action}"
        hosts = 1 if self._task.delegate_to else len(self._vars.get("ansible_play_batch", []))
        lines, screen = Lines(label), screen_for(Display(), TERMINAL, str(self._setting("juju_dr_progress", "")), hosts)
        asked = file[: -len("json")] + "asked"
        running = f"grep -qs {shlex.quote(RUNNING)} {shlex.quote(results)} && echo on"
        command = f"cat {file} 2>/dev/null; echo; touch -c {asked}; {running}"
        reconnect = reconnect_seconds(self._setting)
        began = answered = time.monotonic()
        pause = 0.1
        while True:
            time.sleep(pause)
            pause = min(pause * 1.25, LONGEST_PAUSE_SECONDS)
            now = time.monotonic()
            if now - began > limit + 60:
                return self._failed(f"does not end on {self._host} within {duration(limit)} (juju_dr_job_seconds)")
            try:
                told = self._low_level_execute_command(command)["stdout"].rstrip("\n").rsplit("\n", 1)
                if told[-1] != "on":
                    arguments = {"jid": job, "_async_dir": os.path.dirname(results)}
                    result = self._execute_module("ansible.legacy.async_status", arguments, task_vars=self._vars)
                    if result.get("started") is not True or result.get("finished"):
                        break
                answered = now
            except AnsibleConnectionFailure as error:
                if now - answered > reconnect:
                    return self._failed(
                        f"runs on {self._host}, which cannot be reached for {duration(now - answered)}: {error}. "
                        "The job ends itself when nobody asks for it; run the playbook again when the host can be reached"
                    )
                if screen:
                    screen.show(f"{label}: the host cannot be reached; the job goes on there, asking again", always=True)
                continue
            state = parse(told[0])
            if state and screen:
                screen.show(lines.line(state))
        if screen and screen.used:
            screen.show(lines.last(time.monotonic() - began), always=True)
        self._low_level_execute_command(f"rm -f {file} {asked} {shlex.quote(results)}")
        return self._own(result)

    def _own(self, result: dict[str, Any]) -> dict[str, Any]:
        """The module's result, without what the job added to it."""
        if result.get("failed") and {"cmd", "stderr", "ansible_job_id"} <= set(result):
            last = (str(result["stderr"]).strip().splitlines() or ["it was killed"])[-1]
            return self._failed(f"ended on {self._host} without a result: {last}")
        result.pop("ansible_job_id", None)
        if result.get("finished") is True:
            result.pop("finished")
        return result

    def _failed(self, what: str) -> dict[str, Any]:
        return {"failed": True, "msg": f"{self._task.action} {what}."}
