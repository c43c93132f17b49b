"""Action: uploads an archive over the play's connection and goes on after a cut; an encrypted one is decrypted on its way."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import ansible.module_utils
from ansible.constants import DEFAULT_MODULE_UTILS_PATH
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Ansible finds a project's shared code for modules only.
ansible.module_utils.__path__.extend(path for path in DEFAULT_MODULE_UTILS_PATH if path not in ansible.module_utils.__path__)
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.progress import Lines, State, reconnect_seconds, screen_for, size_of_of
from ansible.module_utils.juju_dr.transfer import Pace, Patience, check_space, digest_of, source

# Asked in the main process, which loads this file: the workers have no terminal.
TERMINAL = sys.stdout.isatty()
# One window is held in memory.
LARGEST = 16 << 20
FULL = "No space left"


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        if self._task.check_mode or not {"src", "dest"} <= set(self._task.args):
            return self._execute_module(task_vars=task_vars)
        self._host = str(self._vars["inventory_hostname"])
        self._dest = str(self._task.args["dest"])
        self._patience = Patience(reconnect_seconds(self._setting))
        # A host that does not answer at all is unreachable, as for any other task.
        about = self._execute_module(module_args={**self._task.args, "ask": {"prefix": True}}, task_vars=self._vars)
        if about.get("failed"):
            return about
        self._confirmed = 0
        try:
            return self._upload(Path(self._task.args["src"]), about)
        except JujuDrError as error:
            return {"failed": True, "msg": str(error), "kept": self._confirmed}

    def _setting(self, name: str, default: Any) -> Any:
        return self._templar.template(self._vars.get(name, default))

    def _upload(self, src: Path, about: dict[str, Any]) -> dict[str, Any]:
        began, identity = time.monotonic(), str(self._task.args.get("identity") or "")
        # Of an encrypted archive this is a little too much.
        size = src.stat().st_size
        resumed_at = 0
        if about["size"] > 0:
            with source(src, identity) as stream:
                resumed_at = about["size"] if digest_of(stream, about["size"]) == about["prefix_sha256"] else 0
        there = max(int(about["size"]), 0)
        space = int(self._task.args.get("space") or 0)
        # What is there already is written over.
        check_space(int(about["free"]) + there, size + space, f"{Path(self._dest).parent} on {self._host}")
        hosts = len(self._vars.get("ansible_play_batch", []))
        self._screen = screen_for(Display(), TERMINAL, str(self._setting("juju_dr_progress", "")), hosts)
        self._lines, self._began = Lines(f"[{self._host}] upload {src.name}"), time.monotonic()
        self._lines.line(State(bytes=resumed_at))
        self._confirmed = resumed_at
        with source(src, identity) as stream:
            if digest_of(stream, resumed_at) is None:
                raise JujuDrError(f"{src} became shorter while it was sent", "Run it again")
            self._send(stream, size)
        if self._screen and self._screen.used:
            self._screen.show(self._lines.last(time.monotonic() - self._began), always=True)
        return {
            "changed": True,
            "size": self._confirmed,
            "sent": self._confirmed - resumed_at,
            "resumed_at": resumed_at,
            "elapsed": round(time.monotonic() - began, 2),
        }

    def _send(self, stream: BinaryIO, size: int) -> None:
        pace = Pace(LARGEST)
        while data := stream.read(pace.size):
            began = time.monotonic()
            self._send_window(data)
            self._confirmed += len(data)
            self._patience.answered()
            pace.took(time.monotonic() - began)
            if self._screen:
                state = State(bytes=self._confirmed, of_bytes=size, seconds=time.monotonic() - self._began)
                self._screen.show(self._lines.line(state))

    def _send_window(self, data: bytes) -> None:
        """Puts one window at its place; what a cut left behind it is overwritten by the same bytes."""
        dest = shlex.quote(self._dest)
        # Without conv=notrunc the file ends where the window begins before it is written.
        command = f"umask 077; dd of={dest} oflag=seek_bytes seek={self._confirmed} bs=256K status=none"
        while True:
            try:
                done = self._low_level_execute_command(command, in_data=data)
            except AnsibleConnectionFailure as error:
                self._wait(error)
                continue
            if done["rc"] == 0:
                return
            if FULL in done["stderr"]:
                self._low_level_execute_command(f"rm -f {dest}")
                self._confirmed = 0
                raise JujuDrError(
                    f"The disk that holds {Path(self._dest).parent} on {self._host} became full; what had come was removed",
                    "Free space there and run the restore again",
                )
            raise JujuDrError(f"{self._dest} cannot be written on {self._host}: {done['stderr'].strip()}", "Look at the host")

    def _wait(self, error: AnsibleConnectionFailure) -> None:
        if self._screen:
            self._screen.show(f"{self._lines.label}: {self._host} cannot be reached, trying again", always=True)
        self._patience.until_back(
            self._host,
            error,
            lambda: self._low_level_execute_command("true", sudoable=False),
            f"{size_of_of(self._confirmed, 0)} of the archive are kept there in {self._dest}",
            "When it can be reached, run the restore again: it goes on there",
        )
