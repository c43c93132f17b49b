"""Dumps a controller's database into a folder, in mongodump's format; documents pass through undecoded.

Hot dumps hold the oplog from before the first read to after the last, so that a load can replay it and arrive at the state of
one instant: the window's end.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Iterator

from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import errors as pymongo_errors
from pymongo.read_concern import ReadConcern

from .collection_metadata import file_stem, format_metadata, format_prelude
from .controller_host import Run, machine_agent
from .errors import JujuDrError
from .loading_server import loading_server
from .mongo import MongoAccess, access_from_agent_conf, connect
from .oplog import is_kept
from .progress import SILENT, Progress

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    Client = MongoClient[dict[str, Any]]

TOOL = "juju-dr"
# About a megabyte of Juju's documents: larger batches cost page faults, smaller ones round trips.
BATCH_DOCUMENTS = 1000
WORKERS = 2
BACK_SECONDS = 120
ADMIN_COLLECTIONS = ("system.users", "system.roles")


class DumpInterrupted(JujuDrError):
    """The member changed under the dump; another try, perhaps on another member, usually succeeds."""


@dataclass(frozen=True)
class CollectionDump:
    """One dumped collection: namespace, documents, bytes of BSON, and their SHA-256."""

    ns: str
    documents: int
    bytes: int
    sha256: str


@dataclass
class DumpReport:
    """What was dumped, and of which instant.

    :ivar oplog: ``start``, ``end`` (each ``[seconds, increment]``) and ``entries``; empty for an offline dump.
    """

    mode: str
    member: str
    server_version: str
    started: str
    finished: str = ""
    elapsed: float = 0.0
    oplog: dict[str, Any] = field(default_factory=dict)
    collections: list[CollectionDump] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**self.__dict__, "collections": [c.__dict__ for c in self.collections]}

    @property
    def documents(self) -> int:
        return sum(c.documents for c in self.collections)

    @property
    def bytes(self) -> int:
        return sum(c.bytes for c in self.collections)


def dump(client: Client, dest: str, mode: str, progress: Progress = SILENT) -> DumpReport:
    """Dumps all databases of a running server into a new folder.

    :param dest: folder that is made, 0700; ``dump/`` and ``juju-dr/`` below it.
    :param mode: ``hot`` on a replica set member, ``offline`` on a server without replication.
    :raises DumpInterrupted: the oplog rolled over, a collection was renamed, or the member went away.
    :raises JujuDrError: the member cannot be dumped at all.
    """
    began = time.monotonic()
    folder = Path(dest)
    folder.mkdir(mode=0o700)
    hot = mode == "hot"
    try:
        hello = client.admin.command("isMaster")
        if hot and not (hello.get("setName") and (hello.get("ismaster") or hello.get("secondary"))):
            raise JujuDrError(
                "This member is neither PRIMARY nor SECONDARY of a replica set",
                "Back another member up, or use mongo_dump_mode=offline",
            )
        version = client.server_info()["version"]
        report = DumpReport(mode, str(hello.get("me", "")), version, _now())
        start = _window_start(client) if hot else None
        wanted = list(_collections(client, folder))
        with ThreadPoolExecutor(WORKERS) as workers:
            report.collections = list(workers.map(lambda one: _dump_collection(client, hot, progress, *one), wanted))
        if start is not None:
            report.oplog = _dump_oplog(client, folder / "dump" / "oplog.bson", start)
        _write_text(folder / "dump" / "prelude.json", format_prelude(version, TOOL))
    except (pymongo_errors.AutoReconnect, pymongo_errors.CursorNotFound) as error:
        raise DumpInterrupted(f"The member went away while it was dumped: {error}", "Run the backup again") from error
    except pymongo_errors.OperationFailure as error:
        raise DumpInterrupted(f"MongoDB stopped the dump: {error}", "Run the backup again") from error
    report.finished, report.elapsed = _now(), round(time.monotonic() - began, 2)
    _write_text(folder / "juju-dr" / "dump-report.json", json.dumps(report.to_json(), indent=1) + "\n")
    return report


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _collections(client: Client, folder: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Database, listing and folder of every collection; the folders are made."""
    (folder / "dump").mkdir(mode=0o700)
    (folder / "juju-dr").mkdir(mode=0o700)
    for database in sorted(client.list_database_names()):
        if database in ("local", "config"):
            continue
        # Juju's readers expect no admin database in dump/.
        target = folder / "juju-dr" / "admin" if database == "admin" else folder / "dump" / database
        target.mkdir(mode=0o700)
        for listed in sorted(client[database].list_collections(), key=lambda one: str(one["name"])):
            name = str(listed["name"])
            if database == "admin" and name not in ADMIN_COLLECTIONS:
                continue
            if database != "admin" and name.startswith("system.") and name not in ("system.js", "system.views"):
                continue
            if listed.get("type", "collection") == "collection":
                yield database, dict(listed), target


def _dump_collection(
    client: Client, hot: bool, progress: Progress, database: str, listed: dict[str, Any], folder: Path
) -> CollectionDump:
    name = str(listed["name"])
    concern = ReadConcern("majority") if hot else ReadConcern("local")
    collection: Collection[dict[str, Any]] = client[database].get_collection(name, read_concern=concern)
    uuid = listed.get("info", {}).get("uuid")
    indexes = [dict(index) for index in collection.list_indexes()]
    text = format_metadata(name, listed.get("options", {}), indexes, uuid.hex() if isinstance(uuid, bytes) else uuid.hex)
    _write_text(folder / f"{file_stem(name)}.metadata.json", text)
    digest, documents, size = hashlib.sha256(), 0, 0
    with _create(folder / f"{file_stem(name)}.bson") as target:
        for batch in _raw_batches(collection, {}):
            target.write(batch)
            digest.update(batch)
            size += len(batch)
            more = _documents_in(batch)
            documents += more
            progress.add(len(batch), more)
    return CollectionDump(f"{database}.{name}", documents, size, digest.hexdigest())


def _documents_in(batch: bytes) -> int:
    documents = offset = 0
    while offset < len(batch):
        offset += int.from_bytes(batch[offset : offset + 4], "little")
        documents += 1
    return documents


def _window_start(client: Client) -> Timestamp:
    """Where the window must begin: before every transaction that is open now, as mongodump has it."""
    committed = _committed(client)
    running = client.config.transactions.find(
        {"state": {"$in": ["prepared", "inProgress"]}, "startOpTime": {"$exists": True}}, {"startOpTime": 1}
    )
    oldest: Timestamp = min([committed, *(one["startOpTime"]["ts"] for one in running)])
    return oldest


def _committed(client: Client) -> Timestamp:
    """The newest entry that a majority has, so that no election can take it back."""
    status = client.admin.command("replSetGetStatus")
    timestamp: Timestamp = status["optimes"]["lastCommittedOpTime"]["ts"]
    return timestamp


def _dump_oplog(client: Client, path: Path, start: Timestamp) -> dict[str, Any]:
    end = _committed(client)
    oplog = client.local["oplog.rs"]
    entries = 0
    with _create(path) as target:
        for batch in _raw_batches(oplog, {"ts": {"$gte": start, "$lte": end}}):
            for raw in _raw_documents(batch):
                if is_kept(RawBSONDocument(raw)):
                    target.write(raw)
                    entries += 1
    # Looked at last: what was cut off while we read would be missing.
    oldest = next(iter(oplog.find({}, {"ts": 1}).sort("$natural", 1).limit(1)))["ts"]
    if oldest > start:
        raise DumpInterrupted(
            "The oplog rolled over while the database was dumped: changes are missing",
            "Run the backup again in a quieter hour, or raise oplogSize in juju-db.config",
        )
    return {"start": [start.time, start.inc], "end": [end.time, end.inc], "entries": entries}


def _raw_batches(collection: Collection[dict[str, Any]], query: dict[str, Any]) -> Iterator[bytes]:
    """Batches of documents end to end, as the server sends them."""
    batches: Any = collection.find_raw_batches(query, batch_size=BATCH_DOCUMENTS)
    return iter(batches)


def _raw_documents(batch: bytes) -> Iterator[bytes]:
    offset = 0
    while offset < len(batch):
        length = int.from_bytes(batch[offset : offset + 4], "little")
        yield batch[offset : offset + length]
        offset += length


def _create(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _write_text(path: Path, text: str) -> None:
    with _create(path) as target:
        target.write(text.encode("utf-8"))


def dump_offline(
    dest: str, data_dir: str, mongo_common: str, service: str, run: Run, progress: Progress = SILENT
) -> DumpReport:
    """Stops juju-db, dumps what lies on disk, and starts juju-db again whatever happens.

    :raises JujuDrError: the dump failed, or juju-db does not come back; juju-db was started again in every case.
    """
    access = access_from_agent_conf(machine_agent(data_dir).conf, mongo_common)
    try:
        _systemctl(run, "stop", service)
        with loading_server(mongo_common, service, run) as client:
            return dump(client, dest, "offline", progress)
    finally:
        _systemctl(run, "start", service)
        _wait_member(access)


def _systemctl(run: Run, verb: str, service: str) -> None:
    code, _, errors = run(["systemctl", verb, service])
    if code:
        raise JujuDrError(f"{service} does not {verb}: {errors.strip()}", f"Look at: systemctl status {service}")


def _wait_member(access: MongoAccess) -> None:
    """Until the member serves again: jujud and the other members rely on it."""
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            with connect(access, timeout_seconds=2.0) as client:
                hello = client.admin.command("isMaster")
                if hello.get("ismaster") or hello.get("secondary"):
                    return
        except JujuDrError:
            pass
        if time.monotonic() > deadline:
            raise JujuDrError(
                f"juju-db was started after the dump, but is no PRIMARY or SECONDARY after {BACK_SECONDS} s",
                "Look at mongod's log on that host",
            )
        time.sleep(0.2)
