"""Callback: every task's result, by the task's name, as one JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: task_results
type: aggregate
short_description: Every task's result as JSON
description: For tests, which judge results and not what is printed.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_results"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[str, Any] = {}

    def _keep(self, result: Any, **_: Any) -> None:
        self._results[result.task_name] = json.loads(self._dump_results(result.result))

    v2_runner_on_ok = v2_runner_on_failed = v2_runner_on_unreachable = _keep

    def v2_playbook_on_stats(self, stats: Any) -> None:
        del stats
        Path(os.environ["TASK_RESULTS"]).write_text(json.dumps(self._results), encoding="utf-8")
