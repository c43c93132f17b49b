"""Callback for tests only: kills the whole run, as a person or a power cut would, at a task or some time into one."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: kill_at
type: aggregate
short_description: Kills the process group of the run
description:
  - Looks only at the environment. The process group must be the run's own.
options:
  number:
    description: Kill when the task of this number would start; tasks are counted from 1.
    env:
      - name: KILL_AT_TASK
  name:
    description: Kill some time after the first task with this in its name has started.
    env:
      - name: KILL_IN_TASK
  after:
    description: How many seconds after.
    env:
      - name: KILL_AFTER
  seen:
    description: File that receives the name of each task, one a line.
    env:
      - name: KILL_SEEN
"""


def kill() -> None:
    os.killpg(os.getpgrp(), signal.SIGKILL)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_at"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._waiting = bool(os.environ.get("KILL_IN_TASK"))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._count += 1
        if "KILL_SEEN" in os.environ:
            with open(os.environ["KILL_SEEN"], "a", encoding="utf-8") as seen:
                seen.write(f"{task.get_name()}\n")
        if self._count == int(os.environ.get("KILL_AT_TASK", "0")):
            kill()
        if self._waiting and os.environ["KILL_IN_TASK"] in task.get_name():
            self._waiting = False
            timer = threading.Timer(float(os.environ["KILL_AFTER"]), kill)
            timer.daemon = True
            timer.start()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.v2_playbook_on_task_start(task, False)
