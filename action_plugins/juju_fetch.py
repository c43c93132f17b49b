"""Action: fetches an archive over the play's connection, goes on after a cut, takes from an older archive what that has.

The first try takes the whole file at the connection's full speed. What is missing after a cut, or differs from an older
archive, comes in windows: the host copies the stretches end to end into a small file, which is fetched and put at the end of
the part.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.constants import DEFAULT_MODULE_UTILS_PATH
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

# Ansible finds a project's shared code for modules only.
ansible.module_utils.__path__.extend(path for path in DEFAULT_MODULE_UTILS_PATH if path not in ansible.module_utils.__path__)
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.progress import Lines, State, reconnect_seconds, screen_for, size_of_of
from ansible.module_utils.juju_dr.transfer import (
    LARGEST_WINDOW,
    MARGIN,
    UNSURE,
    Pace,
    Part,
    Patience,
    Segment,
    Step,
    check_space,
    cuts_of,
    digest_of,
    disk_full,
    free_beside,
    newest_archive,
    next_window,
    plan,
    segments,
)

# Asked in the main process, which loads this file: the workers have no terminal.
TERMINAL = sys.stdout.isatty()


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        if self._task.check_mode or not {"src", "dest"} <= set(self._task.args):
            return self._execute_module(task_vars=task_vars)
        self._host = str(self._vars["inventory_hostname"])
        self._src = str(self._task.args["src"])
        self._part = Part(Path(self._task.args["dest"]))
        folder = str(self._task.args.get("reuse") or "")
        self._older = newest_archive(Path(folder), Path(self._src).name) if folder else None
        self._patience = Patience(reconnect_seconds(self._setting))
        self._reused = self._fetched = 0
        try:
            return self._fetch()
        except JujuDrError as error:
            return {"failed": True, "msg": str(error), "kept": self._part.size}

    def _setting(self, name: str, default: Any) -> Any:
        return self._templar.template(self._vars.get(name, default))

    def _fetch(self) -> dict[str, Any]:
        began = time.monotonic()
        # A host that does not answer at all is unreachable, as for any other task.
        about = self._execute_module(
            module_args=self._asking({"prefix": self._part.size, "segments": self._older is not None}), task_vars=self._vars
        )
        if about.get("failed"):
            return about
        size, resumed_at = int(about["size"]), self._begin(about)
        hosts = len(self._vars.get("ansible_play_batch", []))
        self._screen = screen_for(Display(), TERMINAL, str(self._setting("juju_dr_progress", "")), hosts)
        self._lines = Lines(f"[{self._host}] fetch {self._part.path.name}")
        self._began, self._size = time.monotonic(), size
        self._lines.line(State(bytes=resumed_at))
        check_space(
            free_beside(self._part.path),
            size - resumed_at + min(LARGEST_WINDOW, size),
            f"{self._part.path.parent} on this machine",
        )
        wanted = [Segment(*one) for one in about["segments"]] or [Segment(0, size, "")]
        kept = segments(self._older, cuts_of(self._older)) if self._older else []
        with self._readable() as login:
            if not kept and not resumed_at:
                self._whole()
            stalled = 0
            while self._part.size < size and stalled < 3:
                before = self._part.size
                try:
                    self._windows(plan(wanted, kept, before), login)
                except AnsibleConnectionFailure as error:
                    self._wait(error)
                stalled = 0 if self._part.size > before else stalled + 1
        if self._part.size != size:
            raise JujuDrError(f"{self._src} cannot be fetched: {self._part.size} bytes came of {size}", "Run it again")
        if self._screen and self._screen.used:
            self._screen.show(self._lines.last(time.monotonic() - self._began), always=True)
        return {
            "changed": True,
            "size": size,
            "sha256": about["sha256"],
            "fetched": self._fetched,
            "reused": self._reused,
            "resumed_at": resumed_at,
            "elapsed": round(time.monotonic() - began, 2),
        }

    def _asking(self, what: dict[str, Any]) -> dict[str, Any]:
        return {**self._task.args, "ask": what}

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                return self._execute_module(module_args=self._asking(what), task_vars=self._vars)
            except AnsibleConnectionFailure as error:
                self._wait(error)

    def _begin(self, about: dict[str, Any]) -> int:
        """How much of the part is the beginning of the archive; the rest of it is taken away."""
        size, begin = self._part.size, 0
        if 0 < size <= about["size"]:
            with self._part.path.open("rb") as stream:
                begin = size if digest_of(stream, size) == about["prefix_sha256"] else 0
        self._part.cut(begin)
        return begin

    @contextlib.contextmanager
    def _readable(self) -> Iterator[str]:
        """The archive, readable to the user who logs in; the connection's own file transfer knows no become."""
        source, window = shlex.quote(self._src), shlex.quote(self._src + ".window")
        login = self._low_level_execute_command("id -un", sudoable=False)["stdout"].strip()
        self._low_level_execute_command(f"chown {shlex.quote(login)} {source}")
        try:
            yield login
        finally:
            self._part.path.with_name(self._part.path.name + ".window").unlink(missing_ok=True)
            # The host may be out of reach; the next fetch puts it right.
            with contextlib.suppress(AnsibleConnectionFailure):
                self._low_level_execute_command(f"rm -f {window}; chown --reference=$(dirname {source}) {source}")

    def _whole(self) -> None:
        """The whole file in one go. What a cut leaves behind is kept as far as it is sure."""
        try:
            with self._one_method(), self._growth_shown():
                self._connection.fetch_file(self._src, str(self._part.path))
        except AnsibleError as error:
            self._check_disk()
            begin = max(0, self._part.size - UNSURE)
            self._part.cut(begin)
            if isinstance(error, AnsibleConnectionFailure):
                self._wait(error)
            self._begin(self._ask({"prefix": begin}))
        self._part.cut(self._part.size)
        self._fetched = self._part.size
        self._patience.answered()

    @contextlib.contextmanager
    def _one_method(self) -> Iterator[None]:
        """Without ssh's other ways of transfer: one begins anew, another holds the whole file in memory."""
        if self._connection.transport != "ssh" or self._connection.get_option("ssh_transfer_method") != "smart":
            yield
            return
        self._connection.set_option("ssh_transfer_method", "sftp")
        try:
            yield
        finally:
            self._connection.set_option("ssh_transfer_method", "smart")

    @contextlib.contextmanager
    def _growth_shown(self) -> Iterator[None]:
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(0.5):
                self._show()

        watcher = threading.Thread(target=show)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _windows(self, steps: Sequence[Step], login: str) -> None:
        here, there = self._part.path.with_name(self._part.path.name + ".window"), self._src + ".window"
        pace, rest = Pace(), list(steps)
        while rest:
            began = time.monotonic()
            now, rest = next_window(rest, pace.size)
            ranges = [(step.offset, step.length) for step in now if not step.here]
            if ranges:
                written = self._ask({"window": there, "ranges": ranges, "owner": login})
                if written.get("failed"):
                    raise JujuDrError(str(written["msg"]), "Look at the host")
                try:
                    self._connection.fetch_file(there, str(here))
                except AnsibleConnectionFailure:
                    raise
                except AnsibleError as error:
                    self._check_disk()
                    raise JujuDrError(f"A window of {self._src} cannot be fetched: {error}", "Run it again") from error
            self._part.append(now, here, self._older)
            self._fetched += sum(length for _, length in ranges)
            self._reused += sum(step.length for step in now if step.here)
            self._patience.answered()
            pace.took(time.monotonic() - began)
            self._show()

    def _show(self) -> None:
        if self._screen:
            state = State(bytes=self._part.size, of_bytes=self._size, seconds=time.monotonic() - self._began)
            self._screen.show(self._lines.line(state))

    def _check_disk(self) -> None:
        if free_beside(self._part.path) < MARGIN // 16:
            self._part.path.unlink(missing_ok=True)
            raise disk_full(self._part.path)

    def _wait(self, error: AnsibleConnectionFailure) -> None:
        if self._screen:
            self._screen.show(f"{self._lines.label}: {self._host} cannot be reached, trying again", always=True)
        self._patience.until_back(
            self._host,
            error,
            lambda: self._low_level_execute_command("true", sudoable=False),
            f"{size_of_of(self._part.size, self._size)} are kept in {self._part.path}",
            f"When it can be reached, go on: ansible-playbook playbooks/fetch.yml --limit {self._host}",
        )
