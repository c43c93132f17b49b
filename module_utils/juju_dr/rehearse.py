"""A restore rehearsed: an archive loaded into a scratch mongod, rewritten to an invented address, looked at, and thrown away.

Loading, rules, leftovers and the peergrouper's arithmetic are the restore's own. Nothing listens on a network, and all of it
lies below one private folder that goes in the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from .archive import ArchiveInfo, inspect, unpack
from .errors import JujuDrError
from .files import write_whole
from .leftovers import in_database, in_files, pattern
from .load import LoadReport, load
from .loading_server import SOCKET_PATH_LIMIT, loading_config, wait_for
from .mongo import MongoAccess
from .progress import SILENT, Progress
from .rewriting import Wanted, rewrite_checked, rewrite_files

if TYPE_CHECKING:
    from pymongo import MongoClient

# Networks that documentation is written with (RFC 5737): no controller is there.
INVENTED = (("192.0.2.10", "192.0.2.0/24"), ("198.51.100.10", "198.51.100.0/24"), ("203.0.113.10", "203.0.113.0/24"))
FOLDER_PREFIX = "juju-dr-rehearsal-"
# The unpacked archive, and the database made of it.
SPACE_FACTOR = 2


@dataclass(frozen=True)
class Scratch:
    """What a rehearsal runs in.

    :param mongod: name or path of the program; of the line that the controller runs.
    :param folder: where the private folder is made; a tmpfs keeps plain text off the disk.
    :param environment: what mongod needs besides our own environment.
    """

    mongod: str = "mongod"
    folder: str = "/var/tmp"  # noqa: S108 (a folder of mode 0700 is made in it)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Rehearsed:
    """What a rehearsal found; it ended well.

    :ivar address: the invented one; ``member`` is what the peergrouper keeps there.
    :ivar cannot_restore: why no host can be made of the archive, though its database passed; empty when one can.
    :ivar edits: number of places rewritten, ``by_rule`` likewise by rule.
    :ivar history: number of places that tell of an old address without acting on it, by collection or file.
    :ivar lost: places that belong to controllers which would not come back.
    :ivar seconds: by step, and ``all``.
    """

    address: str
    member: str = ""
    cannot_restore: str = ""
    collections: int = 0
    documents: int = 0
    oplog_applied: int = 0
    transactions_dropped: int = 0
    edits: int = 0
    by_rule: dict[str, int] = field(default_factory=dict)
    history: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    counted_against: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def rehearse(path: str, scratch: Scratch, identity: str = "", progress: Progress = SILENT) -> Rehearsed:
    """Restores an archive as far as that goes without a host.

    :param identity: secret key's file of an encrypted archive.
    :raises JujuDrError: the archive is refused, mongod is missing, no room, or what a restore would fail with. Nothing is left.
    """
    began = time.monotonic()
    mongod = shutil.which(scratch.mongod)
    if mongod is None:
        raise JujuDrError(
            f"There is no program {scratch.mongod} on this machine to rehearse with",
            "Name a mongod of the controller's line (4.4): -e rehearse_mongod=PATH",
        )
    progress.doing("reading the archive")
    info = inspect(path, identity=identity)
    with _private_folder(Path(scratch.folder)) as folder:
        _refuse_full(folder, info)
        clock = _Clock(began)
        clock.lap("inspect")
        progress.doing("unpacking")
        unpack(path, str(folder / "unpacked"), info.sha256, identity=identity)
        clock.lap("unpack")
        with scratch_server(folder, mongod, scratch.environment) as client:
            clock.lap("start")
            done = _restore(client, folder / "unpacked", info, progress, clock)
    clock.lap("remove")
    done.seconds = clock.seconds()
    return done


def _restore(client: Any, unpacked: Path, info: ArchiveInfo, progress: Progress, clock: _Clock) -> Rehearsed:
    """The steps of the restore that need a database, in its order."""
    address, cidr = next(one for one in INVENTED if one[0] not in info.addresses)
    report = load(client, str(unpacked), [], progress)
    done = Rehearsed(address, f"{address}:{info.state_port}", info.cannot_restore, len(report.collections), report.documents)
    done.oplog_applied, done.transactions_dropped = report.oplog_applied, report.transactions_dropped
    done.counted_against = compare_counts(report, unpacked)
    clock.lap("load")
    progress.doing("rewriting")
    wanted = Wanted(info.machine_id, address, cidr)
    data_dir = unpacked / "root" / "var" / "lib" / "juju"
    files = rewrite_files(str(data_dir), info.machine_id, address, apply_edits=True) if info.has_files else []
    rewritten = rewrite_checked(client, wanted, info.state_port)
    for edit in [*rewritten.to_json()["edits"], *files]:
        done.edits += 1
        done.by_rule[edit["rule"]] = done.by_rule.get(edit["rule"], 0) + 1
    clock.lap("rewrite")
    progress.doing("looking for leftovers")
    _leftovers(client, data_dir, info, done)
    clock.lap("leftovers")
    return done


def compare_counts(report: LoadReport, unpacked: Path) -> str:
    """Compares what was loaded with what the dump says of itself; returns which statement that was.

    :raises JujuDrError: a collection that differs, or is missing.
    """
    statement = unpacked / "juju-dr" / "dump-report.json"
    if not statement.exists():
        return "nothing: the archive does not say how many documents it holds"
    promised = {
        one["ns"]: (one["documents"], one["bytes"]) for one in json.loads(statement.read_text(encoding="utf-8"))["collections"]
    }
    loaded = {one["ns"]: (one["documents"], one["bytes"]) for one in report.collections}
    for ns in sorted(promised):
        # Users stand beside the dump and are made, not loaded.
        if not ns.startswith("admin.") and loaded.get(ns) != promised[ns]:
            raise JujuDrError(
                f"{ns} holds {(loaded.get(ns) or (0,))[0]} documents after loading, the backup counted {promised[ns][0]}",
                "Take another archive",
            )
    return "the backup's own count of each collection"


def _leftovers(client: Any, data_dir: Path, info: ArchiveInfo, done: Rehearsed) -> None:
    """Counts what still names an old address.

    :raises JujuDrError: a place that Juju acts on.
    """
    old = [address for address in info.addresses if address != done.address]
    if not old:
        return
    sought = pattern(old)
    theirs = [address for one in info.controllers if one["machine_id"] != info.machine_id for address in one["addresses"]]
    for finding in (*in_database(client, sought, theirs), *in_files([data_dir / "agents"], sought)):
        if finding.kind == "live":
            raise JujuDrError(
                f"{finding} still names an old controller address after the rewrite", "Report this as a missing rule of juju-dr"
            )
        if finding.kind == "history":
            name = Path(finding.where).name if finding.where.startswith("/") else finding.where.partition(" ")[0]
            done.history[name] = done.history.get(name, 0) + 1
        else:
            done.lost += 1


@contextlib.contextmanager
def scratch_server(folder: Path, mongod: str, environment: Mapping[str, str]) -> Iterator[MongoClient[dict[str, Any]]]:
    """A mongod of our own on a unix socket below a private folder; it dies with us.

    :raises JujuDrError: it does not come up; the cause is the end of its own log.
    """
    socket = folder / "load.sock"
    if len(str(socket)) > SOCKET_PATH_LIMIT:
        raise JujuDrError(f"The path {socket} is too long for a unix socket", "Name a shorter folder: -e rehearse_folder=PATH")
    (folder / "db").mkdir(mode=0o700)
    config = folder / "mongod.config"
    text = loading_config(f"dbpath = {folder / 'db'}\nlogpath = {folder / 'mongod.log'}\n", socket, journal=False)
    write_whole(config, text)
    # Whatever ends us ends mongod: it must not hold secrets on after a SIGKILL.
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with open(folder / "mongod.output", "wb") as output:
        process = subprocess.Popen(
            [*dies_with_us, mongod, "--config", str(config)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        with wait_for(
            MongoAccess(socket_path=str(socket)), text, "Look at what it says", lambda: process.poll() is None
        ) as client:
            yield client
    finally:
        # Its data is thrown away: no reason to let it write that first.
        process.kill()
        process.wait()


@contextlib.contextmanager
def _private_folder(parent: Path) -> Iterator[Path]:
    """A new folder that only we can enter; gone afterwards, also when a signal ends us. Those of killed runs go too."""
    if not parent.is_dir():
        raise JujuDrError(f"There is no folder {parent} to rehearse in", "Name one: -e rehearse_folder=PATH")
    for old in parent.glob(FOLDER_PREFIX + "*"):
        _remove_if_left(old)
    with _signals_as_exit():
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
        try:
            with _held(folder):
                yield folder
        finally:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Marks a folder as one that is in use, for as long as we live."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove_if_left(folder: Path) -> None:
    """Removes the folder of a rehearsal that was killed; leaves one that is in use, or not ours."""
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and status.st_uid == os.geteuid():
            with _held(folder):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end us as an exception does, so that what is open is closed."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before: dict[signal.Signals, Callable[..., Any] | int | None] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_full(folder: Path, info: ArchiveInfo) -> None:
    needed, free = SPACE_FACTOR * info.unpacked_bytes, shutil.disk_usage(folder).free
    if free < needed:
        raise JujuDrError(
            f"A rehearsal needs about {needed} bytes below {folder.parent}, {free} are free",
            "Free some, or name another folder: -e rehearse_folder=PATH",
        )


class _Clock:
    """Seconds by step."""

    def __init__(self, began: float) -> None:
        self._began = self._last = began
        self._laps: dict[str, float] = {}

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self._laps[step], self._last = round(now - self._last, 2), now

    def seconds(self) -> dict[str, float]:
        return {**self._laps, "all": round(self._last - self._began, 2)}
