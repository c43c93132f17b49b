"""Plays of single tasks on the lab's hosts, with the project's own configuration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent.parent
HERE = Path(__file__).resolve().parent


class Run:
    """One run of ansible-playbook with the project's own configuration.

    :ivar results: what each task returned on the first host, by the task's name.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, printed: Path) -> None:
        self._process, self._log, self._printed = process, log, printed
        self.results: dict[str, dict[str, Any]] = {}

    def wait(self, seconds: float = 120) -> Run:
        self._process.wait(seconds)
        if self._log.exists():
            self.results = json.loads(self._log.read_text(encoding="utf-8"))
        return self

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def code(self) -> int:
        return self._process.returncode

    @property
    def output(self) -> str:
        return self._printed.read_text(encoding="utf-8")


class Ansible:
    """Runs tasks on a host of the lab, with connections of its own that notice a cut within three seconds."""

    def __init__(self, folder: Path, sockets: str) -> None:
        self._folder, self._sockets, self._runs = folder, sockets, 0

    def start(self, host: str, tasks: list[dict[str, Any]], **variables: Any) -> Run:
        """Starts a play of tasks."""
        self._runs += 1
        play = self._folder / f"play-{self._runs}.yml"
        log = self._folder / f"results-{self._runs}.json"
        text = yaml.safe_dump([{"hosts": host, "gather_facts": False, "become": True, "tasks": tasks}])
        play.write_text(text, encoding="utf-8")
        options = (
            "-o ControlMaster=auto -o ControlPersist=60s -o ConnectTimeout=2 -o ServerAliveInterval=1 -o ServerAliveCountMax=2"
        )
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LIBRARY": f"{ROOT / 'library'}:{HERE / 'library'}",
            "ANSIBLE_ACTION_PLUGINS": f"{ROOT / 'action_plugins'}:{HERE / 'action_plugins'}",
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT / 'callback_plugins'}:{HERE / 'callback_plugins'}",
            "ANSIBLE_CALLBACKS_ENABLED": "task_results",
            "ANSIBLE_SSH_ARGS": options,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": self._sockets,
            "TASK_RESULTS": str(log),
        }
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, str(play), "--extra-vars", json.dumps(variables)]
        printed = self._folder / f"printed-{self._runs}"
        with printed.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return Run(process, log, printed)

    def run(self, host: str, tasks: list[dict[str, Any]], **variables: Any) -> Run:
        """Runs a play of tasks to its end."""
        return self.start(host, tasks, **variables).wait()
