"""Moves a host's present controller data aside under a stamp, and puts it back. Nothing is deleted.

What is moved is written down before it is moved, so that an interrupted run can be undone too.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .controller_host import Run
from .errors import JujuDrError
from .files import own_like, size_of, write_whole

# Identity files of the snap's common folder; the folder itself belongs to the snap and stays.
_COMMON_FILES = ("server.pem", "ca.crt", "shared-secret", "juju-db.config")


@dataclass(frozen=True)
class Host:
    """Where things are on the host, and how commands are run there."""

    data: Path
    common: Path
    service: str
    run: Run
    journals: Path = Path("/var/lib/juju-dr")
    units: Path = Path("/etc/systemd/system")
    homes: Path = Path("/home")


def moves(stamp: str, host: Host) -> list[tuple[str, str]]:
    """What is moved, from where to where, for what is there now."""
    data, common = host.data, host.common
    wanted = [(data, data.with_name(f"{data.name}.aside-{stamp}"))]
    wanted += [(common / name, common / f"{name}.aside-{stamp}") for name in ("db", *_COMMON_FILES)]
    wanted += [(unit, unit.with_name(f"{unit.name}.aside-{stamp}")) for unit in sorted(host.units.glob("jujud-machine-*"))]
    return [(str(a), str(b)) for a, b in wanted if os.path.lexists(a) and ".aside-" not in a.name and ".failed-" not in a.name]


def aside(stamp: str, host: Host) -> dict[str, Any]:
    """Moves everything aside; the host's own dqlite/ and tools/ are copied back, since they are what fits this host.

    :returns: ``moved`` (list of from and to) and ``bytes`` set aside.
    :raises JujuDrError: a service still runs.
    """
    _refuse_running(host)
    planned = moves(stamp, host)
    _write_journal(host.journals / f"aside-{stamp}.json", planned)
    for keys, kept in _authorized_keys(host, stamp):
        # A copy: whoever works on this host logs in by these all the while.
        shutil.copy2(keys, kept)
        own_like(keys, kept)
    for source, target in planned:
        os.rename(source, target)
    data = host.data
    data.mkdir(mode=0o755, parents=True)
    old = data.with_name(f"{data.name}.aside-{stamp}")
    for name in ("dqlite", "tools"):
        if (old / name).is_dir():
            _copy_tree(old / name, data / name)
    host.run(["systemctl", "daemon-reload"])
    return {"moved": _listed(planned), "bytes": sum(size_of(Path(target)) for _, target in planned)}


def back(stamp: str, host: Host) -> dict[str, Any]:
    """Puts back what :func:`aside` moved; what stands in its place now is kept beside as ``.failed-STAMP``.

    :returns: ``moved`` (list of from and to) and ``bytes``; empty when nothing had been moved.
    """
    journal = host.journals / f"aside-{stamp}.json"
    if not journal.exists():
        return {"moved": [], "bytes": 0}
    _refuse_running(host)
    planned = [(one["from"], one["to"]) for one in json.loads(journal.read_text(encoding="utf-8"))]
    moved = {source for source, target in planned if os.path.lexists(target)}
    started = bool(moved) or not planned
    if started:
        for place in _placed(host):
            # A place that was never moved away still holds the old state.
            if str(place) in moved or str(place) not in dict(planned):
                os.rename(place, place.with_name(f"{place.name}.failed-{stamp}"))
    for source, target in planned:
        if os.path.lexists(target):
            os.rename(target, source)
    for keys, kept in _authorized_keys(host, stamp):
        if kept.exists():
            kept.replace(keys)
    host.run(["systemctl", "daemon-reload"])
    journal.replace(journal.with_suffix(".undone"))
    return {"moved": [{"from": b, "to": a} for a, b in planned], "bytes": sum(size_of(Path(a)) for a, _ in planned)}


def _authorized_keys(host: Host, stamp: str) -> list[tuple[Path, Path]]:
    """The users' keys, which a restore adds to, and where they are kept meanwhile."""
    return [(keys, keys.with_name(f"{keys.name}.aside-{stamp}")) for keys in sorted(host.homes.glob("*/.ssh/authorized_keys"))]


def _placed(host: Host) -> list[Path]:
    """What stands now in the places that a restore fills."""
    return [Path(source) for source, _ in moves("now", host)]


def _refuse_running(host: Host) -> None:
    agents = [unit.name for unit in host.units.glob("jujud-machine-*.service")]
    running = [name for name in [host.service, *agents] if host.run(["systemctl", "is-active", name])[1].strip() == "active"]
    if running:
        raise JujuDrError(f"{', '.join(running)} still runs", "Stop it first; nothing was moved")


def _write_journal(path: Path, planned: list[tuple[str, str]]) -> None:
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    if path.exists():
        raise JujuDrError(f"{path} is there: something was set aside under this stamp already", "Use another stamp")
    write_whole(path, json.dumps(_listed(planned), indent=1) + "\n")


def _listed(planned: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"from": source, "to": target} for source, target in planned]


def _copy_tree(source: Path, target: Path) -> None:
    """A copy with owners; copytree keeps all else."""
    shutil.copytree(source, target, symlinks=True)
    for path in [source, *source.rglob("*")]:
        own_like(path, target / path.relative_to(source))
