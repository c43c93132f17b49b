"""Callback: how long each play took, printed at the end and written as JSON for whoever asks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: juju_phases
type: aggregate
short_description: Prints how long each play of a runbook took
description:
  - Plays are the phases of a backup or restore; tasks are too small to be read at 3 a.m.
requirements:
  - enabled in C(callbacks_enabled)
options:
  timings_file:
    description: JSON file that receives the phases as a list of name and seconds.
    env:
      - name: JUJU_DR_TIMINGS
    ini: []
    type: path
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "juju_phases"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._phases: list[tuple[str, float]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._phases.append((play.get_name().strip(), time.monotonic()))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        ends = [start for _, start in self._phases[1:]] + [time.monotonic()]
        phases = [
            {"phase": name, "seconds": round(end - start, 1)} for (name, start), end in zip(self._phases, ends, strict=True)
        ]
        for phase in phases:
            self._display.display(f"{phase['seconds']:7.1f} s  {phase['phase']}")
        target = os.environ.get("JUJU_DR_TIMINGS")
        if target:
            Path(target).write_text(json.dumps(phases, indent=2) + "\n", encoding="utf-8")
