"""Which files of a controller machine go into its backup, and how they are read while the machine works."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

from .errors import JujuDrError

DQLITE_ATTEMPTS = 20
# In Juju's data folder: databases have a way of their own, sockets and locks mean nothing elsewhere.
_DATA_LEFT_OUT = ("db", "dqlite", "locks", "metricspool")
_COMMON_LEFT_OUT = ("db", "logs", "juju-dr-socket", "juju-db.config.juju-dr-aside")


@dataclass
class Gathered:
    """Files found.

    :ivar files: what goes into root.tar, as path on this host and name without leading slash.
    :ivar left_out: sockets, devices and what could not be had quietly, with the reason.
    """

    files: list[tuple[Path, str]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def gather(data_dir: str, mongo_common: str, log_dir: str | None, staging: Path) -> Gathered:
    """Everything of this machine that a restore needs.

    :param log_dir: None leaves the logs out.
    :param staging: folder for the quiet copy of dqlite/.
    :raises JujuDrError: a file without which the archive would be worthless is missing.
    """
    data, common = Path(data_dir), Path(mongo_common)
    _require(data, common)
    found = Gathered()
    _walk(found, data, _DATA_LEFT_OUT)
    _walk(found, common, _COMMON_LEFT_OUT)
    units = Path("/etc/systemd/system")
    for pattern in ("jujud-machine-*.service", "jujud-machine-*-exec-start.sh", "juju-db.service"):
        for path in sorted(units.glob(pattern)):
            _add(found, path)
    for folder in sorted(units.glob("snap.juju-db.daemon.service.d")):
        _walk(found, folder, ())
    for path in (Path("/etc/juju-proxy.conf"), Path("/etc/juju-proxy-systemd.conf")):
        _add(found, path)
    for home in sorted({Path("/home/ubuntu"), Path.home()}):
        _walk(found, home / ".ssh", ())
    if log_dir is not None:
        _walk(found, Path(log_dir), ())
    if (data / "dqlite").is_dir():
        for path, name in copy_dqlite(data / "dqlite", staging / "dqlite"):
            found.files.append((path, str(data / "dqlite" / name).lstrip("/")))
    return found


def _require(data: Path, common: Path) -> None:
    agents = list(data.glob("agents/machine-*/agent.conf"))
    secrets = [p for p in (common / "shared-secret", data / "shared-secret") if p.exists()]
    missing = [
        name
        for name, there in (
            (f"{data}/agents/machine-N/agent.conf", agents),
            (f"{data}/server.pem", (data / "server.pem").exists()),
            (f"{common}/shared-secret", secrets),
        )
        if not there
    ]
    if missing:
        raise JujuDrError(
            f"A controller without {', '.join(missing)} cannot be restored from its backup",
            "Back a healthy controller machine up",
        )


def _walk(found: Gathered, root: Path, left_out: tuple[str, ...]) -> None:
    for path in _tree(root, left_out):
        _add(found, path)


def _tree(root: Path, left_out: tuple[str, ...]) -> Iterator[Path]:
    """The folder and all below it; ``left_out`` names entries of the folder itself."""
    if not root.exists():
        return
    yield root
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        if entry.name in left_out:
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _tree(Path(entry.path), ())
        else:
            yield Path(entry.path)


def _add(found: Gathered, path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode):
        found.files.append((path, str(path).lstrip("/")))
    else:
        found.left_out.append(f"{path}: neither file, link nor folder")


def copy_dqlite(source: Path, target: Path) -> list[tuple[Path, str]]:
    """Copies dqlite/ while Juju writes to it: a copy counts when nothing changed meanwhile.

    :returns: copied files, and their names below dqlite/.
    :raises JujuDrError: the folder never held still.
    """
    for attempt in range(DQLITE_ATTEMPTS):
        before = _signature(source)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True, mode=0o700)
        try:
            names = sorted(p.name for p in source.iterdir() if p.is_file() and not p.is_symlink())
            for name in names:
                _copy_one(source / name, target / name)
        except FileNotFoundError:
            # A segment was closed and renamed under us.
            continue
        if _signature(source) == before:
            return [(target / name, name) for name in names]
        time.sleep(min(0.05 * 2**attempt, 1.0))
    raise JujuDrError(
        f"{source} changed during each of {DQLITE_ATTEMPTS} copies",
        "Stop jujud for the backup, or back another member up",
    )


def _copy_one(source: Path, target: Path) -> None:
    with open(source, "rb") as head:
        plain = head.read(16) == b"SQLite format 3\x00"
    if not plain:
        shutil.copy2(source, target)
        return
    # SQLite's own backup sees one state even between the pages of a transaction.
    reader, writer = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    with reader, writer:
        reader.backup(writer)
    reader.close()
    writer.close()
    shutil.copystat(source, target)


def _signature(folder: Path) -> list[tuple[str, int, int, int]]:
    entries = ((e.name, e.stat()) for e in os.scandir(folder) if e.is_file(follow_symlinks=False))
    return sorted((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in entries)
