"""From a dump in a staging folder to an archive: gathers the host's files and names what the archive is of."""

from __future__ import annotations

import json
import shutil
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import bson

from .archive import write
from .backup_metadata import BackupMetadata
from .bson_stream import split
from .controller_host import machine_agent
from .errors import JujuDrError
from .files import size_of
from .host_files import gather
from .schema import generation


def archive_host(
    staging: str, dest_dir: str, notes: str, data_dir: str, mongo_common: str, log_dir: str | None
) -> dict[str, Any]:
    """Writes the archive of this host and removes the staging folder.

    :param log_dir: None leaves the logs out.
    :returns: path, size and sha256 of the archive, and what was skipped.
    :raises JujuDrError: not enough room, or a file that must be there is not.
    """
    folder = Path(staging)
    _refuse_without_room(folder, Path(dest_dir), Path(data_dir))
    metadata = describe(folder, data_dir, notes)
    found = gather(data_dir, mongo_common, log_dir, folder)
    stamp = datetime.fromisoformat(metadata.started.replace("Z", "+00:00")).strftime("%Y%m%d-%H%M%S")
    written = write(folder, found.files, metadata, Path(dest_dir), f"juju-backup-{stamp}.tar.gz")
    shutil.rmtree(folder)
    return {
        "path": written.path,
        "size": written.size,
        "sha256": written.sha256,
        "files": len(written.manifest["root"]),
        "skipped": found.skipped,
    }


def describe(staging: Path, data_dir: str, notes: str) -> BackupMetadata:
    """metadata.json of the archive, from agent.conf and the dumped documents."""
    agent = machine_agent(data_dir)
    conf, dump = agent.conf, staging / "dump" / "juju"
    model, version = conf.require("model")[len("model-") :], conf.require("upgradedToVersion")
    machine: dict[str, Any] = next(
        (m for m in _documents(dump / "machines.bson") if m["_id"] == f"{model}:{agent.machine_id}"), {}
    )
    instance: dict[str, Any] = next(
        (i for i in _documents(dump / "instanceData.bson") if i["_id"] == f"{model}:{agent.machine_id}"), {}
    )
    base = machine.get("base") or {}
    system = f"{base.get('os', '')}@{str(base.get('channel', '')).partition('/')[0]}" if base else ""
    report = json.loads((staging / "juju-dr" / "dump-report.json").read_text(encoding="utf-8"))
    started = datetime.fromisoformat(report["started"]).astimezone(timezone.utc)
    return BackupMetadata(
        1,
        model,
        conf.require("controller")[len("controller-") :],
        agent.machine_id,
        socket.gethostname(),
        version,
        str(machine.get("series", "")) if generation(version) == "2.9" else system,
        sum(1 for _ in _documents(dump / "controllerNodes.bson")),
        str(instance.get("instanceid", "")),
        started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        notes,
    )


def _documents(path: Path) -> Any:
    with open(path, "rb") as stream:
        for raw in split(stream, path.name):
            yield bson.decode(raw)


def _refuse_without_room(staging: Path, dest: Path, data_dir: Path) -> None:
    """root.tar is spooled beside the dump, and the archive is no larger than both together."""
    needed = size_of(staging) + 2 * size_of(data_dir)
    free = min(shutil.disk_usage(staging).free, shutil.disk_usage(dest).free)
    if free < needed:
        raise JujuDrError(
            f"{free // 2**20} MiB are free for the archive, up to {needed // 2**20} MiB are needed",
            f"Make room at {dest}, or set fs_archive_dest and the staging folder to a larger disk",
        )
