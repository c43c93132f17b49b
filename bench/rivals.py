"""The baselines: MongoDB's own tools when they are here, Juju's way to an archive, and a plain loop with pymongo."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from bson.raw_bson import RawBSONDocument

from .ground import HOST_FILES, Client, ours, timed

# What juju-restore runs mongorestore with, as far as it is about speed.
JUJU_RESTORE_FLAGS = ("--drop", "--writeConcern=majority", "--stopOnError", "--maintainInsertionOrder", "-vvvvv")
BATCH_BYTES = 15 * 2**20


def tool(name: str) -> str:
    """mongodump or mongorestore: named by a variable (MONGODUMP, MONGORESTORE) or on PATH; empty when it is not here."""
    return os.environ.get(name.upper(), "") or shutil.which(name) or ""


def mongodump(port: int, dest: Path, *flags: str) -> float:
    """Seconds of mongodump into a new folder."""
    return timed([tool("mongodump"), "--quiet", f"--port={port}", f"--out={dest}", *flags]).seconds


def mongorestore(port: int, dump: Path, *flags: str) -> float:
    """Seconds of mongorestore into an empty replica set member."""
    return timed([tool("mongorestore"), f"--port={port}", *flags, str(dump)]).seconds


def jujus_way(port: int, scratch: Path) -> tuple[float, int]:
    """As create-backup does it: dump, root.tar, both into one tar, gzip -6; nothing is read back.

    mongodump does the dump when it is here, else our own does; the archive's size is returned with the seconds.
    """
    inside = scratch / "juju-backup"
    inside.mkdir()
    began = time.monotonic()
    if tool("mongodump"):
        mongodump(port, inside / "dump", "--oplog")
    else:
        ours("dump", port=port, dest=str(inside / "dumped"), mode="hot")
    with (inside / "root.tar").open("wb") as root:
        subprocess.run(["gzip", "-dc", str(HOST_FILES)], stdout=root, check=True)
    with (scratch / "juju-backup.tar").open("wb") as plain:
        subprocess.run(["tar", "-C", str(scratch), "-c", "juju-backup"], stdout=plain, check=True)
    with (scratch / "juju-backup.tar.gz").open("wb") as packed:
        subprocess.run(["gzip", "-6", "-c", str(scratch / "juju-backup.tar")], stdout=packed, check=True)
    return time.monotonic() - began, (scratch / "juju-backup.tar.gz").stat().st_size


def plain_loop(client: Client, dump: Path) -> float:
    """Seconds of what juju-restore's flags mean, written down with pymongo as anybody would.

    One collection after the other, one worker, in order, each batch acknowledged by a majority, then its indexes.
    """
    # Not of the baseline: where a document ends, and what metadata.json says.
    from ansible.module_utils.juju_dr.bson_stream import split
    from ansible.module_utils.juju_dr.load import sources

    began = time.monotonic()
    concern = {"w": "majority"}
    for one in sources(dump / "dump"):
        database = client[one.database]
        options = {key: value for key, value in one.options.items() if key != "autoIndexId"}
        database.command({"create": one.collection, **options})
        batch: list[Any] = []
        size = 0
        with one.path.open("rb") as stream:
            for raw in split(stream):
                batch.append(RawBSONDocument(raw))
                size += len(raw)
                if len(batch) == 1000 or size > BATCH_BYTES:
                    _insert(database, one.collection, batch, concern)
                    size = 0
        _insert(database, one.collection, batch, concern)
        indexes = [{k: v for k, v in index.items() if k != "ns"} for index in one.indexes if index["name"] != "_id_"]
        if indexes:
            database.command({"createIndexes": one.collection, "indexes": indexes})
    return time.monotonic() - began


def _insert(database: Any, collection: str, batch: list[Any], concern: dict[str, Any]) -> None:
    if batch:
        database.command({"insert": collection, "documents": batch, "ordered": True, "writeConcern": concern})
        batch.clear()
