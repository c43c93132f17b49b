"""Moves a host's present controller data aside, puts it back, or deletes it when the operator says so.

What is moved is written into the journal before it is moved. Every function here may be killed anywhere and called again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import journal as journals
from .authorized_keys import merged, text_of
from .controller_host import Run
from .errors import JujuDrError
from .files import FRESH, own_like, size_of, sync_folder
from .journal import Aside, Journal
from .loading_server import heal

# Identity files of the snap's common folder; the folder itself belongs to the snap and stays.
_COMMON_FILES = ("server.pem", "ca.crt", "shared-secret", "juju-db.config")


@dataclass(frozen=True)
class Host:
    """Where things are on the host, and how commands are run there.

    :param work: folder of the journal and of unpacked archives.
    """

    data: Path
    common: Path
    service: str
    run: Run
    work: Path = journals.FOLDER
    units: Path = Path("/etc/systemd/system")
    homes: Path = Path("/home")


def services(host: Host) -> list[dict[str, Any]]:
    """juju-db and the machine agents of this host, and which of them run."""
    units = [host.service, *(unit.name[: -len(".service")] for unit in sorted(host.units.glob("jujud-machine-*.service")))]
    return [{"unit": unit, "active": _runs(host, unit)} for unit in units]


def moves(stamp: str, host: Host) -> list[dict[str, str]]:
    """What is moved, from where to where, for what is there now.

    The links that start units with the host are moved too: a host that is started anew must not start a half restored one.
    """
    places = [host.data, *(host.common / name for name in ("db", *_COMMON_FILES)), *sorted(host.units.glob("jujud-machine-*"))]
    places += sorted(host.units.glob("*.wants/jujud-machine-*")) + sorted(host.units.glob(f"*.wants/{host.service}.service"))
    present = [place for place in places if os.path.lexists(place) and not _is_kept(place)]
    return [{"from": str(place), "to": str(place.with_name(f"{place.name}.aside-{stamp}"))} for place in present]


def aside(journal: Journal, host: Host, root: Path | None = None) -> dict[str, Any]:
    """Moves everything aside; the host's own dqlite/ and tools/ are copied back, since they are what fits this host.

    Called again, it removes what an earlier attempt has placed since, so that each attempt starts from the same state. Only
    keys stay that may log in: they are only ever added to, by us and by whoever works on this host.

    :param root: unpacked root of the archive, whose keys will be added to the host's.
    :returns: ``moved`` (list of from and to) and ``bytes`` set aside.
    :raises JujuDrError: a service still runs.
    """
    _refuse_running(host)
    heal(host.common)
    if journal.aside is None:
        journal.aside = _plan(journal.run, host, root)
        journals.write(journal, host.work)
    planned = journal.aside
    for one in planned.keys:
        # A copy: whoever works on this host logs in by these all the while.
        if one["existed"] and not os.path.lexists(one["kept"]):
            _copy_file(Path(one["path"]), Path(one["kept"]))
    for one in planned.moved:
        if os.path.lexists(one["from"]) and not os.path.lexists(one["to"]):
            _rename(Path(one["from"]), Path(one["to"]))
    for place in _placed(host, planned):
        _remove(place)
    host.data.mkdir(mode=0o755, parents=True)
    old = host.data.with_name(f"{host.data.name}.aside-{journal.run}")
    for name in ("dqlite", "tools"):
        if (old / name).is_dir():
            _copy_tree(old / name, host.data / name)
    host.run(["systemctl", "daemon-reload"])
    return {"moved": planned.moved, "bytes": planned.bytes}


def back(journal: Journal, host: Host) -> dict[str, Any]:
    """Puts back what :func:`aside` moved, byte for byte.

    What stands in its place was made from the archive and is removed; it is kept beside as ``.failed-STAMP`` once jujud has
    worked with it, and so are authorized_keys in which somebody else has written meanwhile. Of undone restores only the last
    one's is kept, so that the disk does not fill up with them.

    :returns: ``moved`` (list of from and to), ``bytes`` put back, and ``beside``, what of the undone restore is
        kept. Not ``failed``: Ansible takes a result by that name for its own word.
    """
    _refuse_running(host)
    heal(host.common)
    if journal.state != journals.ROLLING_BACK:
        journal.state = journals.ROLLING_BACK
        for path in journal.failed:
            _remove(Path(path))
        journal.failed = []
        journals.write(journal, host.work)
    planned = journal.aside
    if planned is None:
        return {"moved": [], "bytes": 0, "beside": []}
    for place in _placed(host, planned):
        if journal.started and not place.is_symlink():
            _keep_beside(place, journal, host)
        else:
            _remove(place)
    for one in planned.moved:
        if os.path.lexists(one["to"]):
            _rename(Path(one["to"]), Path(one["from"]))
    _keys_back(journal, planned, host)
    for path in planned.absent:
        _remove(Path(path))
    for path, (accessed, modified) in planned.times.items():
        os.utime(path, ns=(accessed, modified))
    host.run(["systemctl", "daemon-reload"])
    moved = [{"from": one["to"], "to": one["from"]} for one in planned.moved]
    return {"moved": moved, "bytes": planned.bytes, "beside": journal.failed}


def kept(journal: Journal, host: Host) -> list[dict[str, Any]]:
    """What is kept on this host for a way back, with its size in bytes: ``path`` and ``bytes``."""
    planned = journal.aside or Aside([])
    paths = [one["to"] for one in planned.moved] + [one["kept"] for one in planned.keys] + journal.failed
    paths.append(str(host.work / f"restore-{journal.run}"))
    return [{"path": path, "bytes": size_of(Path(path))} for path in paths if os.path.lexists(path)]


def delete(journal: Journal, host: Host) -> dict[str, Any]:
    """Deletes what is kept for a way back and closes the journal.

    :returns: ``deleted`` (path and bytes each), ``bytes``, and ``journal``, where the closed journal lies.
    :raises JujuDrError: the restore neither ended nor was rolled back.
    """
    if journal.state not in (journals.RESTORED, journals.ROLLED_BACK):
        raise JujuDrError(
            f"The restore of run {journal.run} has not ended ({journal.state}); nothing was deleted",
            "Run the restore again to its end, or playbooks/rollback.yml, first",
        )
    deleted = kept(journal, host)
    for one in deleted:
        _remove(Path(one["path"]))
    old = journals.remember(journal, host.work)
    (host.work / journals.NAME).unlink()
    return {"deleted": deleted, "bytes": sum(one["bytes"] for one in deleted), "journal": str(old)}


def _keep_beside(place: Path, journal: Journal, host: Host) -> None:
    failed = place.with_name(f"{place.name}.failed-{journal.run}")
    # Written down first: what is beside must be found by whoever deletes it.
    journal.failed = sorted({*journal.failed, str(failed)})
    journals.write(journal, host.work)
    _rename(place, failed)


def _plan(stamp: str, host: Host, root: Path | None) -> Aside:
    planned = moves(stamp, host)
    keys: list[dict[str, Any]] = []
    for home in sorted(path for path in host.homes.glob("*") if path.is_dir()):
        path = home / ".ssh" / "authorized_keys"
        there = {"existed": path.exists(), "folder_existed": path.parent.exists()}
        archived = text_of(root / "home" / home.name / ".ssh" / "authorized_keys") if root else ""
        copy = str(path.with_name(f"{path.name}.aside-{stamp}"))
        keys.append({"path": str(path), "kept": copy, "placed": _sha256(merged(text_of(path), archived)), **there})
    made = [host.units / f"{host.service}.service.d", host.common / "logs"]
    folders = {Path(one["from"]).parent for one in planned}
    folders |= {Path(one["path"]).parents[0 if one["folder_existed"] else 1] for one in keys}
    folders |= {host.units, host.common, *host.units.glob("*.wants")}
    # The folder of Juju's data holds other programs' too; its times are theirs.
    times = {str(one): one.stat() for one in sorted(folders - {host.data.parent}) if one.is_dir()}
    return Aside(
        planned,
        keys,
        [str(path) for path in made if not path.exists()],
        {path: [status.st_atime_ns, status.st_mtime_ns] for path, status in times.items()},
        sum(size_of(Path(one["from"])) for one in planned),
    )


def _placed(host: Host, planned: Aside) -> list[Path]:
    """What stands now in the places that a restore fills. A place that was never moved away still holds the old state."""
    targets = {one["from"]: one["to"] for one in planned.moved}
    present = [one["from"] for one in moves("now", host)]
    # Files that a killed run was about to put in place.
    present += [str(half) for folder in (host.common, host.units) for half in folder.glob(f"*{FRESH}")]
    return [Path(place) for place in present if place not in targets or os.path.lexists(targets[place])]


def _keys_back(journal: Journal, planned: Aside, host: Host) -> None:
    """The users' keys as they were."""
    for one in planned.keys:
        path, copy = Path(one["path"]), Path(one["kept"])
        for half in path.parent.glob(f"{path.name}*{FRESH}"):
            _remove(half)
        if one["existed"] and not copy.exists():
            # An earlier undoing has put it back.
            continue
        present = text_of(path)
        if path.exists() and present != text_of(copy) and _sha256(present) != one.get("placed"):
            _keep_beside(path, journal, host)
        if one["existed"]:
            copy.replace(path)
        else:
            _remove(path)
            if not one["folder_existed"] and path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _is_kept(place: Path) -> bool:
    return ".aside-" in place.name or ".failed-" in place.name


def _runs(host: Host, unit: str) -> bool:
    return host.run(["systemctl", "is-active", unit])[1].strip() in ("active", "activating", "reloading", "deactivating")


def _refuse_running(host: Host) -> None:
    running = [one["unit"] for one in services(host) if one["active"]]
    if running:
        raise JujuDrError(f"{', '.join(running)} still runs", "Stop it first; nothing was moved")


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise JujuDrError(
            f"{source} cannot be renamed to {target}: {error.strerror}",
            "A mount point cannot be set aside: mount it elsewhere, or take another host",
        ) from error
    sync_folder(target.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _copy_file(source: Path, target: Path) -> None:
    """A copy that appears whole, with owner, mode and times."""
    fresh = target.with_name(target.name + FRESH)
    shutil.copy2(source, fresh)
    own_like(source, fresh)
    fresh.replace(target)


def _copy_tree(source: Path, target: Path) -> None:
    """A copy with owners; copytree keeps all else."""
    shutil.copytree(source, target, symlinks=True)
    for path in [source, *source.rglob("*")]:
        own_like(path, target / path.relative_to(source))
