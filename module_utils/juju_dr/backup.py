"""A backup on its host: the database dumped straight into the archive, the host's files added, the archive given its name.

Everything unfinished lies in one folder beside the finished archives, so that whatever a killed run leaves is that folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Sequence

from .age import check_recipients, encrypt
from .archive_write import VERSION, ArchiveWriter, root_tar
from .backup_metadata import BackupMetadata, format_metadata
from .codec import codec
from .controller_host import Run, controller_client, machine_agent
from .dump import TOOL, DumpReport, dump, packed_at_most, sizes
from .errors import JujuDrError
from .files import size_of, write_whole
from .host_files import gather
from .offline import at_rest
from .progress import SILENT, Progress
from .schema import generation

if TYPE_CHECKING:
    from pymongo import MongoClient

    Client = MongoClient[dict[str, Any]]

PARTIAL, REPORT = "archive.partial", "dump-report.json"
# What a file system should keep for everybody else.
RESERVE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Host:
    """Where a controller machine keeps what is backed up.

    :param log_dir: None leaves the logs out.
    :param service: systemd unit that runs juju-db.
    """

    data_dir: str
    mongo_common: str
    log_dir: str | None
    service: str = ""


@dataclass
class Begun:
    """A backup whose database is in the unfinished archive.

    :ivar healed: what killed runs had left and was removed.
    :ivar waiting: whole archives that lie there already, which a fetch that failed has not brought.
    """

    report: DumpReport
    healed: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)


def dump_host(
    staging: Path,
    mode: str,
    compression: str,
    recipients: Sequence[str],
    host: Host,
    run: Run,
    progress: Progress = SILENT,
) -> Begun:
    """Begins an archive with the host's database. A failed one leaves nothing.

    :param staging: folder that is made for it beside the finished archives; one that is there is a killed run's, and goes.
    :param recipients: to whom the archive will be encrypted; tried now, as long as nothing was done.
    :raises DumpInterrupted: another try, perhaps on another member, may succeed.
    :raises JujuDrError: not enough room, an unknown compression or recipient, or whatever :func:`.dump.dump` finds.
    """
    packer, agent = codec(compression), machine_agent(host.data_dir)
    if recipients:
        check_recipients(recipients)
    healed, waiting = heal(staging)
    staging.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    with _or_nothing(staging):
        staging.mkdir(mode=0o700)
        _refuse_without_room(staging, host, bool(recipients))
        writer = ArchiveWriter(staging / PARTIAL, packer)
        opened = at_rest(host.data_dir, host.mongo_common, host.service, run) if mode == "offline" else _running(host)
        with opened as client:
            report = dump(client, writer, mode, progress)
            machine = described(client, agent.conf.require("model")[len("model-") :], agent.machine_id)
        state = {"report": report.to_json(), "machine": machine, "writer": writer.pause()}
        write_whole(staging / REPORT, json.dumps(state) + "\n")
    return Begun(report, healed, waiting)


def archive_host(
    staging: Path, dest_dir: Path, notes: str, recipients: Sequence[str], host: Host, progress: Progress = SILENT
) -> dict[str, Any]:
    """Adds the host's files to the archive that :func:`dump_host` began, gives it its name, and removes the staging folder.

    :param dest_dir: on the file system of the staging folder.
    :returns: ``path``, ``size`` and ``sha256`` of the archive, ``files`` in it, and what was ``left_out``.
    :raises JujuDrError: a file that must be there is not, no room, age failed; nothing is left then.
    """
    with _or_nothing(staging):
        begun = json.loads((staging / REPORT).read_text(encoding="utf-8"))
        metadata = metadata_of(begun, host.data_dir, notes)
        packer = codec(begun["writer"]["codec"])
        writer = ArchiveWriter.reopen(staging / PARTIAL, packer, begun["writer"], progress=progress)
        found = gather(host.data_dir, host.mongo_common, host.log_dir, staging)
        listed: list[dict[str, Any]] = []
        progress.doing("files")
        writer.add("root.tar", root_tar(found.files, listed))
        writer.add("metadata.json", [format_metadata(metadata).encode("utf-8")])
        # The controller's id tells archives of one second from each other.
        stamp = "".join(c for c in metadata.started if c.isdigit() or c == "T").replace("T", "-")
        name = f"juju-backup-{stamp}-{metadata.controller_uuid[:8]}{packer.suffix}"
        head = {**head_of(begun["report"], metadata), "root": listed}
        written = writer.finish(head, staging / name)
        finished, sha256 = Path(written.path), written.sha256
        if recipients:
            progress.doing("encrypting")
            finished = encrypt(finished, recipients)
            sha256 = finished.with_name(finished.name + ".sha256").read_text(encoding="utf-8").split()[0]
        final = _put_in_place(finished, dest_dir)
    shutil.rmtree(staging)
    return {
        "path": str(final),
        "size": final.stat().st_size,
        "sha256": sha256,
        "files": sum(1 for one in listed if "left_out" not in one),
        "left_out": found.left_out + [f"/{one['name']}: {one['left_out']}" for one in listed if "left_out" in one],
    }


def head_of(report: dict[str, Any], metadata: BackupMetadata) -> dict[str, Any]:
    """What the archive's manifest says besides the files: of whom, of which instant, made with what."""
    return {
        "tool": TOOL,
        "tool_version": VERSION,
        "controller_uuid": metadata.controller_uuid,
        "model_uuid": metadata.model_uuid,
        "machine_id": metadata.machine_id,
        "juju_version": metadata.version,
        "server_version": report["server_version"],
        "mode": report["mode"],
        "started": report["started"],
        "finished": report["finished"],
        "oplog": report["oplog"],
    }


def heal(staging: Path) -> tuple[list[str], list[str]]:
    """Removes what killed runs left: the unfinished folder, the window of a fetch, and digests whose archive never came.

    :returns: what was removed, and the whole archives that are there, which stay.
    """
    removed, whole = [], []
    if staging.exists():
        shutil.rmtree(staging)
        removed.append(str(staging))
    for window in sorted(staging.parent.glob("juju-backup-*.window")):
        window.unlink()
        removed.append(str(window))
    for digest in sorted(staging.parent.glob("juju-backup-*.sha256")):
        archive = digest.with_name(digest.name[: -len(".sha256")])
        if archive.exists():
            whole.append(str(archive))
        else:
            digest.unlink()
            removed.append(str(digest))
    return removed, whole


def _put_in_place(finished: Path, dest_dir: Path) -> Path:
    """The digest first: an archive is listed by its own name, and is whole from then on."""
    final = dest_dir / finished.name
    dest_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    finished.with_name(finished.name + ".sha256").replace(final.with_name(final.name + ".sha256"))
    finished.replace(final)
    handle = os.open(dest_dir, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return final


@contextlib.contextmanager
def _running(host: Host) -> Iterator[Client]:
    with controller_client(host.data_dir, host.mongo_common) as client:
        yield client


def described(client: Client, model_uuid: str, machine_id: str) -> dict[str, Any]:
    """What metadata.json says that only documents know: ``series``, ``base``, ``instance_id``, ``ha_nodes``."""
    juju, identity = client.juju, {"_id": f"{model_uuid}:{machine_id}"}
    machine: dict[str, Any] = juju.machines.find_one(identity, {"series": 1, "base": 1}) or {}
    instance: dict[str, Any] = juju.instanceData.find_one(identity, {"instanceid": 1}) or {}
    base = machine.get("base") or {}
    return {
        "series": str(machine.get("series", "")),
        "base": f"{base.get('os', '')}@{str(base.get('channel', '')).partition('/')[0]}" if base else "",
        "instance_id": str(instance.get("instanceid", "")),
        "ha_nodes": juju.controllerNodes.count_documents({}),
    }


def metadata_of(begun: dict[str, Any], data_dir: str, notes: str) -> BackupMetadata:
    """metadata.json of the archive, from agent.conf and what the dump found; the time is the database's own."""
    agent = machine_agent(data_dir)
    conf, machine = agent.conf, begun["machine"]
    version = conf.require("upgradedToVersion")
    instant = datetime.fromisoformat(begun["report"]["finished"]).astimezone(timezone.utc)
    return BackupMetadata(
        1,
        conf.require("model")[len("model-") :],
        conf.require("controller")[len("controller-") :],
        agent.machine_id,
        socket.gethostname(),
        version,
        machine["series"] if generation(version) == "2.9" else machine["base"],
        machine["ha_nodes"],
        machine["instance_id"],
        instant.strftime("%Y-%m-%dT%H:%M:%SZ"),
        notes,
    )


def _refuse_without_room(staging: Path, host: Host, encrypted: bool) -> None:
    """The archive, the host's files in it as large as they are, and for a moment both plain and encrypted."""
    try:
        with _running(host) as client:
            database = packed_at_most(sizes(client))
    except JujuDrError:
        # An offline dump needs no running juju-db.
        database = size_of(Path(host.mongo_common) / "db")
    data = Path(host.data_dir)
    files = size_of(data) - size_of(data / "db") + (size_of(Path(host.log_dir)) if host.log_dir else 0)
    needed = (database + files) * (2 if encrypted else 1) + RESERVE_BYTES
    free = shutil.disk_usage(staging).free
    if free < needed:
        raise JujuDrError(
            f"{free // 2**20} MiB are free at {staging.parent}, up to {needed // 2**20} MiB are needed for the archive "
            f"({database // 2**20} MiB database, {files // 2**20} MiB files{', twice to encrypt it' if encrypted else ''})",
            "Make room there, or set fs_archive_dest to a larger disk; nothing was done",
        )


@contextlib.contextmanager
def _or_nothing(staging: Path) -> Iterator[None]:
    """Removes the unfinished folder when this fails; a full disk is told in words."""
    try:
        yield
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JujuDrError(
                f"The disk became full while the archive was written: {error}",
                "Make room on the host, or set fs_archive_dest to a larger disk; nothing is left of this backup",
            ) from error
        raise
