"""Dumps a controller's database in mongodump's format; documents pass undecoded, straight into the archive.

Hot dumps hold the oplog from before the first read to after the last, so that a load can replay it and arrive at the state of
one instant: the window's end.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Optional, Protocol, Tuple

from bson.timestamp import Timestamp
from pymongo import errors as pymongo_errors

from .ahead import Ahead
from .collection_metadata import file_stem, format_metadata, format_prelude
from .errors import JujuDrError
from .oplog import DumpInterrupted
from .progress import SILENT, Progress
from .raw_find import find_raw
from .window import Window

if TYPE_CHECKING:
    from pymongo import MongoClient

    Client = MongoClient[dict[str, Any]]

TOOL = "juju-dr"
# Fetched while the last batches are hashed and compressed.
AHEAD_BYTES = 2 * 1024 * 1024
ADMIN_COLLECTIONS = ("system.users", "system.roles")
_NAMESPACE_NOT_FOUND, _QUERY_PLAN_KILLED, _UNAUTHORIZED = 26, 175, 13


class Sink(Protocol):
    """Where the dump's files go, one after the other."""

    def add(self, name: str, blocks: Iterable[bytes], facts: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        """Takes one file in.

        :param name: for example ``dump/juju/machines.bson``.
        :param facts: asked once the blocks are used up; what it returns is kept with the file.
        :returns: at least ``size`` and ``sha256``.
        """


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

    :ivar members: ``host:port`` of every member of the replica set, so that a restore can ask whether one still lives.
    :ivar started: when the window began, ISO 8601 in UTC by the database's own time; likewise ``finished``, the instant that a
        restore arrives at.
    :ivar oplog: ``start``, ``end`` (each ``[seconds, increment]``) and ``entries``; empty for an offline dump.
    """

    mode: str
    member: str
    server_version: str
    members: list[str] = field(default_factory=list)
    started: str = ""
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


@dataclass(frozen=True)
class _Listed:
    """A collection that is dumped, as its database lists it."""

    database: str
    name: str
    options: dict[str, Any]
    uuid: str

    @property
    def path(self) -> str:
        # Juju's readers expect no admin database in dump/.
        folder = "juju-dr/admin" if self.database == "admin" else f"dump/{self.database}"
        return f"{folder}/{file_stem(self.name)}"


# A collection with its metadata, one of its batches with its number of documents, or the end of its batches (None).
_Read = Tuple[_Listed, Optional[bytes], int]


def _members(client: Client, hello: dict[str, Any]) -> list[str]:
    if hello.get("setName"):
        return [*hello.get("hosts", []), *hello.get("passives", []), *hello.get("arbiters", [])]
    # A server that runs alone keeps the configuration it had.
    return [str(one["host"]) for one in (client.local.system.replset.find_one() or {}).get("members", [])]


def dump(client: Client, sink: Sink, mode: str, progress: Progress = SILENT) -> DumpReport:
    """Dumps all databases of a running server.

    :param mode: ``hot`` on a replica set member, ``offline`` on a server without replication.
    :raises DumpInterrupted: the oplog rolled over, a collection was renamed, or the member went away; another try may succeed.
    :raises JujuDrError: the member cannot be dumped at all, or the sink takes no more.
    """
    began = time.monotonic()
    hot = mode == "hot"
    try:
        hello = client.admin.command("isMaster")
        if hot and not (hello.get("setName") and (hello.get("ismaster") or hello.get("secondary"))):
            raise DumpInterrupted(
                "This member is neither PRIMARY nor SECONDARY of a replica set",
                "Back another member up, or use mongo_dump_mode=offline",
            )
        report = DumpReport(mode, str(hello.get("me", "")), client.server_info()["version"], _members(client, hello))
        window = Window(client) if hot else None
        for size in sizes(client).values():
            progress.expect(size.data, size.documents)
        report.started = iso(window.start if window else _newest_entry(client))
        with Ahead(_read(client, window), lambda read: len(read[1] or b""), AHEAD_BYTES) as reads:
            report.collections = list(_collections(sink, reads, progress))
        report.finished = report.started
        if window is not None:
            window.close()
            sink.add("dump/oplog.bson", window.blocks(), lambda: {"documents": window.entries})
            report.oplog, report.finished = window.to_json(), iso(window.end)
        sink.add("dump/prelude.json", [format_prelude(report.server_version, TOOL).encode("utf-8")])
        report.elapsed = round(time.monotonic() - began, 2)
        sink.add("juju-dr/dump-report.json", [(json.dumps(report.to_json(), indent=1) + "\n").encode("utf-8")])
    except (pymongo_errors.AutoReconnect, pymongo_errors.CursorNotFound) as error:
        raise DumpInterrupted(f"The member went away while it was dumped: {error}", "Run the backup again") from error
    except pymongo_errors.OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            raise JujuDrError(f"MongoDB forbids the dump: {error}", "Check the roles of the machine agent's user") from error
        raise DumpInterrupted(f"MongoDB stopped the dump: {error}", "Run the backup again") from error
    return report


@dataclass(frozen=True)
class Size:
    """A database: bytes of its documents, bytes on disk, number of documents."""

    data: int
    stored: int
    documents: int


def sizes(client: Client) -> dict[str, Size]:
    """What a dump will read, by database."""
    found = {}
    for database in _databases(client):
        told = client[database].command("dbStats")
        found[database] = Size(int(told["dataSize"]), int(told["storageSize"]), int(told["objects"]))
    return found


def packed_at_most(found: dict[str, Size]) -> int:
    """Bytes of archive to reckon with: MongoDB's own compression on disk is lighter than ours, but may lag behind the data."""
    return sum(max(one.stored, one.data // 4) for one in found.values())


def iso(instant: Timestamp | None) -> str:
    """An instant of the database's time; now, by this host's clock, where the database has none."""
    moment = datetime.now(timezone.utc) if instant is None else datetime.fromtimestamp(instant.time, timezone.utc)
    return moment.isoformat(timespec="seconds")


def _newest_entry(client: Client) -> Timestamp | None:
    """The instant of a database at rest; None when it never was a replica set's."""
    for entry in client.local["oplog.rs"].find({}, {"ts": 1}).sort("$natural", -1).limit(1):
        instant: Timestamp = entry["ts"]
        return instant
    return None


def _databases(client: Client) -> list[str]:
    return sorted(set(client.list_database_names()) - {"local", "config"})


def _list(client: Client) -> Iterator[_Listed]:
    for database in _databases(client):
        for listed in sorted(client[database].list_collections(), key=lambda one: str(one["name"])):
            name = str(listed["name"])
            if database == "admin" and name not in ADMIN_COLLECTIONS:
                continue
            if database != "admin" and name.startswith("system.") and name not in ("system.js", "system.views"):
                continue
            if listed.get("type", "collection") == "collection":
                uuid: Any = listed["info"]["uuid"]
                raw = uuid if isinstance(uuid, bytes) else uuid.bytes
                yield _Listed(database, name, dict(listed.get("options", {})), raw.hex())


def _read(client: Client, window: Window | None) -> Iterator[_Read]:
    """All collections one after the other: metadata, batches, end."""
    # Listed at once: what is made later is made by the oplog.
    for one in list(_list(client)):
        yield one, _metadata(client, one).encode("utf-8"), 0
        # Read from what a majority has, so that no election takes anything back.
        try:
            for batch, documents in find_raw(client[one.database], one.name, "majority" if window else "local"):
                yield one, batch, documents
                if window:
                    window.watch()
        except pymongo_errors.OperationFailure as error:
            if not window or error.code not in (_NAMESPACE_NOT_FOUND, _QUERY_PLAN_KILLED):
                raise
            window.dropped_under_us(one.database, one.name)
        yield one, None, 0


def _metadata(client: Client, one: _Listed) -> str:
    try:
        told = client[one.database].command({"listIndexes": one.name, "includeBuildUUIDs": True})
        # Those still being built come with the oplog when they are done in the window, and not at all otherwise.
        indexes = [index for index in told["cursor"]["firstBatch"] if "buildUUID" not in index]
    except pymongo_errors.OperationFailure as error:
        if error.code != _NAMESPACE_NOT_FOUND:
            raise
        # Dropped since it was listed: its drop is in the window.
        indexes = []
    return format_metadata(one.name, one.options, indexes, one.uuid)


def _collections(sink: Sink, reads: Ahead[_Read], progress: Progress) -> Iterator[CollectionDump]:
    for one, metadata, _ in reads:
        sink.add(f"{one.path}.metadata.json", [metadata or b""])
        documents = 0

        def batches() -> Iterator[bytes]:
            nonlocal documents
            for _, batch, more in reads:
                if batch is None:
                    return
                documents += more
                progress.add(len(batch), more)
                yield batch

        entry = sink.add(f"{one.path}.bson", batches(), lambda: {"documents": documents})  # noqa: B023 - asked at once
        yield CollectionDump(f"{one.database}.{one.name}", documents, int(entry["size"]), str(entry["sha256"]))
