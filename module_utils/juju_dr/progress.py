"""How far a long step is: told by the module in a small file, asked for and shown by the control process.

Two files tell of a run: NAME.json (how far it is, replaced at most once a second) and NAME.asked (touched by the control
process each second). A run that nobody asks about any more fails by itself, in the ordinary way, with everything put back; a
later run that takes the host's lock over need not wait for that (lock.py).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Iterator

from .errors import JujuDrError

FOLDER = Path("/run/juju-dr")
TOLD_SECONDS = 1.0
# How long a control process tries to reach a host again: longer than ssh needs to see that its connection is dead.
RECONNECT_SECONDS = 240.0
# Longer than that.
UNATTENDED_SECONDS = 300.0
RATE_WINDOW_SECONDS = 10.0
MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30


class Unattended(JujuDrError):
    """The run was given up: its control process is gone."""


def reconnect_seconds(setting: Callable[[str, Any], Any]) -> float:
    """How long a host whose connection was lost is tried again; not long where another one can do its work.

    :param setting: the value of a variable of the run, or what is given beside its name.
    """
    wanted, most = setting("juju_dr_reconnect_seconds", RECONNECT_SECONDS), setting("juju_dr_reconnect_at_most", math.inf)
    return min(float(wanted), float(most))


@dataclass(frozen=True)
class State:
    """How far a run is.

    :ivar of_bytes: what is expected in all; 0 when not known. Likewise ``of_documents``.
    :ivar doing: what it does now, in few words; may be empty.
    :ivar seconds: how long it runs.
    """

    bytes: int = 0
    documents: int = 0
    of_bytes: int = 0
    of_documents: int = 0
    doing: str = ""
    seconds: float = 0.0


class Progress:
    """Counts what is done; any thread may call it.

    :param told: receives the state, at most once a second; it may raise to end the work, in the thread that happened to call.
    :param clock: seconds that never go back.
    """

    def __init__(self, told: Callable[[State], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._told, self._clock, self._lock = told, clock, threading.Lock()
        self._bytes = self._documents = self._of_bytes = self._of_documents = 0
        self._doing = ""
        self._began = self._last = clock()

    def expect(self, bytes: int = 0, documents: int = 0) -> None:  # noqa: A002
        """More is to come than was known: both are added to what is expected in all."""
        self._count(0, 0, bytes, documents)

    def add(self, bytes: int = 0, documents: int = 0) -> None:  # noqa: A002
        """So much more is done.

        :raises Unattended: nobody asks for this run any more: it shall end, and leave what a failed run leaves.
        """
        self._count(bytes, documents, 0, 0)

    def doing(self, what: str) -> None:
        """What happens now, for steps that count nothing; told at once. Raises as ``add``."""
        with self._lock:
            self._doing = what
        self._count(0, 0, 0, 0, at_once=True)

    def _count(self, done: int, documents: int, of_bytes: int, of_documents: int, at_once: bool = False) -> None:
        if self._told is None:
            return
        with self._lock:
            self._bytes += done
            self._documents += documents
            self._of_bytes += of_bytes
            self._of_documents += of_documents
            now = self._clock()
            if now - self._last < TOLD_SECONDS and not at_once:
                return
            self._last = now
            state = State(
                self._bytes, self._documents, self._of_bytes, self._of_documents, self._doing, round(now - self._began, 1)
            )
        self._told(state)


SILENT = Progress()


# --- in the module -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attended(path: str, patience: float = UNATTENDED_SECONDS) -> Iterator[Progress]:
    """The progress of a run that a control process watches; both files are gone afterwards.

    :param path: the file to tell in, ending in .json; empty for a run that nobody watches.
    :param patience: seconds after which a run that nobody asks about ends.
    """
    if not path:
        yield SILENT
        return
    file = Path(path)
    asked = file.with_suffix(".asked")
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield Progress(_Watched(file, asked, patience))
    finally:
        for one in (file, asked):
            with contextlib.suppress(FileNotFoundError):
                one.unlink()


class _Watched:
    """Tells the state in a file, and looks whether anybody still asks for it."""

    def __init__(
        self, file: Path, asked: Path, patience: float = UNATTENDED_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file, self._asked, self._patience, self._clock = file, asked, patience, clock
        # Only changes count: the host's clock may be set while we run.
        self._seen, self._since = -1, clock()

    def __call__(self, state: State) -> None:
        try:
            seen = self._asked.stat().st_mtime_ns
        except FileNotFoundError:
            raise Unattended(f"{self._asked} is gone: this run was ended from outside", "Run the playbook again") from None
        now = self._clock()
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since > self._patience:
            raise Unattended(
                f"Nobody has asked for this run for {self._patience:.0f} s: its control process is gone",
                "Run the playbook again",
            )
        fresh = self._file.with_suffix(".new")
        # What is shown must never be the cause of a failure: a full disk, say.
        with contextlib.suppress(OSError):
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:
                json.dump(asdict(state), target)
            fresh.replace(self._file)


# --- on the control machine --------------------------------------------------------------------------------------------


def parse(text: str) -> State | None:
    """The state a progress file tells; None for a text that is none (not yet written, or cut)."""
    try:
        return State(**json.loads(text))
    except (ValueError, TypeError):
        return None


class Lines:
    """Turns states into lines that a person reads, with the rate of the last seconds and what remains at that rate.

    :param label: what is going on, first in each line.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._window: deque[State] = deque()

    def line(self, state: State) -> str:
        """One line, such as ``label: 1.20 of 4.00 GiB, 120,000 documents, 81.3 MiB/s, 0:36 left``."""
        self._window.append(state)
        while state.seconds - self._window[0].seconds > RATE_WINDOW_SECONDS:
            self._window.popleft()
        # The first line has nothing to compare with but the start.
        first = self._window[0] if len(self._window) > 1 else State()
        passed = state.seconds - first.seconds
        rate = (state.bytes - first.bytes) / passed if passed > 0 else 0.0
        per_second = (state.documents - first.documents) / passed if passed > 0 else 0.0
        parts = [_amount(state)]
        if state.bytes:
            parts.append(f"{rate / MEBIBYTE:.1f} MiB/s")
        elif state.documents:
            parts.append(f"{per_second:,.0f} documents/s")
        left = _left(state.bytes, state.of_bytes, rate)
        left = _left(state.documents, state.of_documents, per_second) if left is None else left
        if left is not None:
            parts.append(f"{duration(left)} left")
        if state.doing:
            parts.append(state.doing)
        return f"{self.label}: " + ", ".join(part for part in parts if part)

    def last(self, seconds: float) -> str:
        """The line that stays: what was seen last, and how long it took."""
        amount = _amount(self._window[-1]) if self._window else ""
        return f"{self.label}: done in {duration(seconds)}" + (f" (seen last: {amount})" if amount else "")


def _amount(state: State) -> str:
    parts = []
    if state.bytes:
        parts.append(size_of_of(state.bytes, state.of_bytes))
    if state.documents:
        of = f" of {state.of_documents:,}" if state.of_documents else ""
        parts.append(f"{state.documents:,}{of} documents")
    return ", ".join(parts)


def size_of_of(done: int, of: int) -> str:
    """Bytes as a person reads them, ``1.20 of 4.00 GiB``; without the second when that is 0."""
    big = max(done, of) >= GIBIBYTE
    unit, name, digits = (GIBIBYTE, "GiB", 2) if big else (MEBIBYTE, "MiB", 1)
    told = f"{done / unit:.{digits}f}"
    return f"{told} of {of / unit:.{digits}f} {name}" if of else f"{told} {name}"


def _left(done: int, of: int, rate: float) -> float | None:
    return (of - done) / rate if of and rate > 0 and of >= done else None


def duration(seconds: float) -> str:
    """``0:36``, ``12:05``, ``3:00:10``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Screen:
    """Where lines appear: in place on a terminal that shows one host, else one below the other.

    :param write: receives whole lines.
    :param hosts: how many hosts share the screen; each waits so many seconds between two lines.
    :param columns: width of the terminal for lines in place; 0 for lines one below the other.
    """

    def __init__(
        self, write: Callable[[str], None], hosts: int = 1, columns: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._every, self._clock = write, float(max(hosts, 1)), clock
        self._columns = columns if hosts <= 1 else 0
        self._last: float | None = None

    def show(self, line: str, always: bool = False) -> None:
        """Shows a line, unless the last one is too fresh.

        :param always: show it however fresh the last one is.
        """
        now = self._clock()
        if self._last is not None and not always and now - self._last < self._every * 0.9:
            return
        if self._columns:
            # Up, over the line before; a line that wraps could not be overwritten.
            line = ("\033[1A\033[2K" if self._last is not None else "") + line[: self._columns - 1]
        self._last = now
        self._write(line)

    @property
    def used(self) -> bool:
        """Whether anything was shown."""
        return self._last is not None


def screen_for(display: Any, terminal: bool, wanted: str, hosts: int) -> Screen | None:
    """The screen for one task; None for no screen.

    :param display: Ansible's: ``display(text)``, ``columns``, ``verbosity``.
    :param terminal: whether there is one; without it only ``always`` shows anything.
    :param wanted: ``always``, ``never``, ``auto``; empty: as JUJU_DR_PROGRESS in the environment says, else ``auto``.
    """
    wanted = wanted or os.environ.get("JUJU_DR_PROGRESS", "auto")
    if wanted == "never" or (wanted != "always" and not terminal):
        return None
    in_place = terminal and os.environ.get("TERM", "dumb") != "dumb" and not display.verbosity
    return Screen(display.display, hosts, display.columns if in_place else 0)
