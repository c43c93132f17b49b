"""One run at a time on a host: who holds it, since when, and whether that run is still alive.

Two things are locked. A *run* (a playbook, which spans many tasks) leaves a small file. A *step* that changes the host holds a
kernel lock while its process lives, since it goes on there when the control machine's side was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Iterator, Mapping

from .errors import JujuDrError
from .files import write_whole

FOLDER = Path("/var/lib/juju-dr")
NAME = "lock.json"
STEP = "step.lock"
# How long a step that was killed may take to go.
STEP_SECONDS = 30
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Run:
    """A playbook run on a control machine.

    :param name: spelled out by whoever takes the lock over, for example ``root@control:4711``.
    :param control: what tells the process there from any other: host, boot, pid namespace, pid, start.
    """

    name: str
    purpose: str
    control: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Holder:
    """What the lock's file says.

    :param since: seconds since the epoch by this host's clock, for people.
    :param seen: the host's uptime in seconds at the last sign of life; clocks may be set, uptime is not.
    """

    run: Run
    since: float
    boot: str
    seen: float

    def age(self) -> float:
        """Seconds without a sign of life; without end when the host was started anew since."""
        return max(0.0, _uptime() - self.seen) if self.boot == _boot() else float("inf")


@dataclass(frozen=True)
class Taken:
    """How the lock was taken.

    :param notes: a sentence for everything an operator should know: whose lock was taken over, which step was ended.
    """

    changed: bool
    notes: tuple[str, ...] = ()


def take(run: Run, stale_after: float, instead_of: str = "", folder: Path = FOLDER, apply: bool = True) -> Taken:
    """Takes the lock for a run, or takes it over.

    :param stale_after: seconds without a sign of life after which a run counts as dead.
    :param instead_of: name of a run that is known to be dead, or that the operator spelled out.
    :raises JujuDrError: another run holds it; run, purpose and age are named.
    """
    with _guarded(folder, apply):
        holder, notes = read(folder), []
        if holder and holder.run.control == run.control and holder.run.name == run.name:
            return Taken(False)
        worker = step_process(folder)
        if holder and not (instead_of == holder.run.name or (holder.age() > stale_after and not worker)):
            raise JujuDrError(
                f"{holder.run.name} does a {holder.run.purpose} on this host, {_ago(holder)}"
                + (f", and process {worker} works here for it" if worker else ""),
                f"Wait for it; if you are sure that it is dead, set lock_override={holder.run.name}",
            )
        if worker and not holder:
            raise JujuDrError(
                f"Process {worker} of an earlier run still works on this host", f"Wait for it, or end it: kill {worker}"
            )
        if holder:
            notes.append(
                f"The lock of {holder.run.name} ({holder.run.purpose}, {_ago(holder)}) was taken over: that run is dead"
            )
        if worker and apply:
            _end(worker, folder)
            notes.append(f"Its step, process {worker}, still worked here and was ended")
        if apply:
            _write(Holder(run, time.time(), _boot(), _uptime()), folder)
        return Taken(True, tuple(notes))


def release(run: Run, folder: Path = FOLDER, apply: bool = True) -> bool:
    """Gives the lock back when this run has it; says whether it had."""
    with _guarded(folder, apply):
        holder = read(folder)
        mine = holder is not None and holder.run.control == run.control and holder.run.name == run.name
        if mine and apply:
            (folder / NAME).unlink()
        return mine


def sign_of_life(name: str, folder: Path = FOLDER) -> None:
    """Says that the run still lives; a run whose lock was taken over must not go on.

    :raises JujuDrError: the lock is gone or another run's.
    """
    with _guarded(folder, True):
        holder = read(folder)
        if holder is None or holder.run.name != name:
            raise JujuDrError(
                f"The lock of this run was taken over by {holder.run.name if holder else 'nobody'}",
                "Let the other run end, then look at the host and run this again",
            )
        _write(Holder(holder.run, holder.since, _boot(), _uptime()), folder)


def read(folder: Path = FOLDER) -> Holder | None:
    """Who holds the lock; None when nobody does, or the file says nothing (it is written whole or not at all)."""
    try:
        told = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return Holder(Run(**told["run"]), float(told["since"]), str(told["boot"]), float(told["seen"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise JujuDrError(f"{folder / NAME} cannot be read: {error}", "Remove it when no run works on this host") from error


@contextlib.contextmanager
def step(folder: Path | None = None) -> Iterator[None]:
    """Held by a process while it changes the host; a second one is refused. Ends with the process, however that ends.

    :raises JujuDrError: another process changes the host.
    """
    folder = folder or FOLDER
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    with open(folder / STEP, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JujuDrError(
                f"Process {step_process(folder)} changes this host already",
                "Wait for it, or start the run again: it ends what a dead run left working",
            ) from error
        yield


def step_process(folder: Path = FOLDER) -> int | None:
    """The process that changes the host at this moment, as the kernel knows it."""
    try:
        status = (folder / STEP).stat()
    except FileNotFoundError:
        return None
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
    for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
        found = re.match(r"\d+: FLOCK +ADVISORY +WRITE +(\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ", line)
        if found and int(found.group(2)) == status.st_ino and int(found.group(1)) > 0:
            return int(found.group(1))
    return None


def _end(pid: int, folder: Path) -> None:
    """Ends a step whose run is dead: what it left half done is what the journal is for."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + STEP_SECONDS
    while step_process(folder) == pid:
        if time.monotonic() > deadline:
            raise JujuDrError(f"Process {pid} does not end", f"Look at it: ps {pid}; the host's disk may hang")
        time.sleep(0.05)


@contextlib.contextmanager
def _guarded(folder: Path, apply: bool) -> Iterator[None]:
    """One look and write at a time; only looking makes nothing."""
    if not apply:
        yield
        return
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(holder: Holder, folder: Path) -> None:
    write_whole(folder / NAME, json.dumps(asdict(holder), indent=1) + "\n")


def _ago(holder: Holder) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC by this host's clock", time.gmtime(holder.since))
    seconds = holder.age()
    if seconds == float("inf"):
        return f"begun {started}, before this host was started anew"
    return f"begun {started}, last sign of life {seconds:.0f} s ago"


def _boot() -> str:
    return _BOOT.read_text(encoding="utf-8").strip()


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_run(user: str, host: str, pid: int) -> dict[str, Any]:
    """The run whose main process is ``pid`` on this machine, as arguments of the module ``juju_lock``."""
    return {"run": f"{user}@{host}:{pid}", "control": {"host": host, "pid": str(pid), **_process(pid)}}


def is_gone(control: Mapping[str, str], host: str) -> bool:
    """Whether a run's process is known to have ended; only its own control machine can know."""
    if not control.get("start") or control.get("host") != host:
        return False
    here = _process(os.getpid())
    if control.get("boot") != here["boot"]:
        return True
    return control.get("space") == here["space"] and _process(int(control["pid"]))["start"] != control["start"]


def _process(pid: int) -> dict[str, str]:
    """Boot, pid namespace and start of a process; empty where this system does not tell."""
    try:
        boot, space = _boot(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return {"boot": "", "space": "", "start": ""}
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return {"boot": boot, "space": space, "start": ""}
    # After the command's name, which may hold anything: field 3 is the state, 22 the start.
    fields = status.rpartition(")")[2].split()
    return {"boot": boot, "space": space, "start": "" if fields[0] == "Z" else fields[19]}
