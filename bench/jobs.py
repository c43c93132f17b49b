"""What is measured of ours, a job in a process of its own: ``python -m bench.jobs NAME ARGUMENTS`` tells what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).resolve().parent.parent / "module_utils"))
from ansible.module_utils.juju_dr.backup_metadata import BackupMetadata, format_metadata  # noqa: E402

# Each job imports what it needs, as each module does: its time is measured from the start of Python.
if TYPE_CHECKING:
    from pymongo import MongoClient

Answer = dict[str, Any]
# Of the fixture that the grown database is made from.
METADATA = BackupMetadata(
    1,
    "36c3711f-846b-4cde-8d01-0e977609708a",
    "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd",
    "0",
    "bench",
    "2.9.61.1",
    "focal",
    1,
    "manual:",
    "2026-11-24T02:00:00Z",
    "bench",
)


def _client(port: int) -> MongoClient[dict[str, Any]]:
    from ansible.module_utils.juju_dr.mongo import MongoAccess, connect

    return connect(MongoAccess(port=port))


def dump(port: int, dest: str, mode: str) -> Answer:
    """A dump into a folder."""
    from ansible.module_utils.juju_dr.dump import dump as dump_database
    from ansible.module_utils.juju_dr.folder import Folder

    with _client(port) as client:
        report = dump_database(client, Folder(Path(dest)), mode)
    return {"documents": report.documents, "bytes": report.bytes}


def backup(port: int, dest: str, files: str, codec: str) -> Answer:
    """A hot dump streamed into an archive, and the host's files.

    :param files: folder that stands for the host's root.
    """
    from ansible.module_utils.juju_dr.archive_write import ArchiveWriter, root_tar
    from ansible.module_utils.juju_dr.codec import codec as codec_of
    from ansible.module_utils.juju_dr.dump import dump as dump_database

    packed, root = codec_of(codec), Path(files)
    archive_path = Path(dest) / f"juju-backup{packed.suffix}"
    writer = ArchiveWriter(archive_path.with_suffix(".partial"), packed)
    with _client(port) as client:
        dump_database(client, writer, "hot")
    listed: list[dict[str, Any]] = []
    writer.add("root.tar", root_tar([(path, str(path.relative_to(root))) for path in sorted(root.rglob("*"))], listed))
    writer.add("metadata.json", [format_metadata(METADATA).encode("utf-8")])
    head = {"controller_uuid": METADATA.controller_uuid, "juju_version": METADATA.version, "root": listed}
    written = writer.finish(head, archive_path)
    return {"path": written.path, "size": written.size, "sha256": written.sha256}


def verify(path: str) -> Answer:
    """An archive read to its last byte."""
    from ansible.module_utils.juju_dr import archive

    info = archive.inspect(path)
    return {"documents": info.documents, "bytes": info.unpacked_bytes}


def load(port: int, source: str) -> Answer:
    """A load into a server without journal, and the checkpoint that makes it last."""
    from ansible.module_utils.juju_dr.load import load as load_dump

    with _client(port) as client:
        report = load_dump(client, source, [])
        client.admin.command("fsync")
    return {"documents": report.documents, "bytes": report.bytes}


JOBS: dict[str, Callable[..., Answer]] = {"dump": dump, "backup": backup, "verify": verify, "load": load}


def peak_mib() -> float:
    """The most memory this process had; what it shares with files that are only mapped is in it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def main() -> None:
    name, arguments = sys.argv[1:]
    answer = JOBS[name](**json.loads(arguments))
    print(json.dumps({**answer, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
