"""The dump in the archive is byte for byte the plain one; it takes no scratch disk, and no more memory for more documents."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.load import load
from pymongo import MongoClient

Client = MongoClient[dict[str, Any]]
ROOT = Path(__file__).resolve().parent.parent.parent


def plain(client: Client) -> dict[str, bytes]:
    """Every collection by one cursor, decoded and encoded again, as anybody would write it."""
    found = {}
    for database in client.list_database_names():
        for name in client[database].list_collection_names() if database not in ("admin", "config", "local") else []:
            documents = client[database][name].find()
            found[f"juju-backup/dump/{database}/{name}.bson"] = b"".join(bson.encode(one) for one in documents)
    return found


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_the_archive_holds_what_the_plain_way_reads(
    standalone: Client, fixture_archive: Path, tmp_path: Path, name: str
) -> None:
    (fixture_archive / "dump" / "oplog.bson").unlink()
    load(standalone, str(fixture_archive), [])
    # Several batches, and chunks of the archive that end within one.
    standalone.big.many.insert_many([{"_id": n, "pad": f"{n}" * 200} for n in range(9000)])
    standalone.big.create_collection("empty")
    packer = codec(name)
    writer = ArchiveWriter(tmp_path / "partial", packer)
    report = dump(standalone, writer, "offline")
    state = json.loads(json.dumps(writer.pause()))
    written = ArchiveWriter.reopen(tmp_path / "partial", packer, state).finish({"root": []}, tmp_path / "a")
    path = tmp_path / "a"
    if name == "zstd":
        subprocess.run([sys.executable, "-c", UNPACK, str(path), str(tmp_path / "tar")], check=True)
        path = tmp_path / "tar"
    with tarfile.open(path) as tar:
        held = {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]
    expected = plain(standalone)
    assert {one: content for one, content in held.items() if one in expected or one.endswith(".bson")} == expected
    entries = {entry["name"]: entry for entry in written.manifest["files"]}
    for one in report.collections:
        if one.ns.startswith("admin."):
            continue
        entry = entries["juju-backup/dump/{}/{}.bson".format(*one.ns.split(".", 1))]
        assert (entry["documents"], entry["size"], entry["sha256"]) == (one.documents, one.bytes, one.sha256)


UNPACK = """
import sys, zstandard
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
    for block in iter(lambda: reader.read(1 << 20), b""):
        target.write(block)
"""
DUMP = """
import json, sys
from pathlib import Path
import ansible.module_utils
ansible.module_utils.__path__.append(sys.argv[1])
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.mongo import MongoAccess, connect
place = Path(sys.argv[3])
with connect(MongoAccess(port=int(sys.argv[2]))) as client:
    writer = ArchiveWriter(place / "partial", codec("gzip"))
    report = dump(client, writer, "offline")
    writer.pause()
# Not getrusage: that begins with what the parent had.
(peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(json.dumps({"kib": int(peak), "documents": report.documents}))
"""


def measured(client: Client, folder: Path) -> dict[str, int]:
    folder.mkdir()
    port = client.address[1] if client.address else 0
    command = [sys.executable, "-c", DUMP, str(ROOT / "module_utils"), str(port), str(folder)]
    told: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # What lies on disk is the archive and nothing else.
    assert [path.name for path in folder.iterdir()] == ["partial"]
    return told


def test_memory_does_not_grow_with_the_documents(standalone: Client, tmp_path: Path) -> None:
    many = standalone.big.many
    many.insert_many([{"_id": n, "pad": f"{n:0900}"} for n in range(20_000)])
    few = measured(standalone, tmp_path / "few")
    for part in range(1, 6):
        many.insert_many([{"_id": part * 20_000 + n, "pad": f"{n:0900}"} for n in range(20_000)])
    more = measured(standalone, tmp_path / "more")
    assert more["documents"] == 6 * few["documents"]
    assert more["kib"] <= 128 * 1024
    # Two chunks more or less are the threads' chance, not the documents'.
    assert more["kib"] <= few["kib"] + 8 * 1024
