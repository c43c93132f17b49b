"""Loads a dump into a stand-alone mongod: data, then indexes, then the oplog of the dump window, then the Mongo users."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Sequence

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo import errors as pymongo_errors

from .agent_conf import parse
from .bson_stream import count, split
from .collection_metadata import collection_of, parse_metadata
from .controller_host import Run
from .errors import JujuDrError
from .loading_server import loading_server
from .oplog import Transactions, replayable

if TYPE_CHECKING:
    from pymongo import MongoClient

    Client = MongoClient[dict[str, Any]]

ROLES = ("dbAdminAnyDatabase", "userAdminAnyDatabase", "clusterAdmin", "readWriteAnyDatabase")
WORKERS = 3
BATCH_DOCUMENTS = 1000
BATCH_BYTES = 8 * 1024 * 1024
# An operation that finds its work done already: the dump was read after it happened.
_DONE_ALREADY = {26: "NamespaceNotFound", 27: "IndexNotFound", 48: "NamespaceExists", 68: "IndexAlreadyExists"}


@dataclass(frozen=True)
class MongoUser:
    """A user that jujud logs in with; all four of Juju's roles are given."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Source:
    """One collection of an unpacked dump."""

    database: str
    collection: str
    path: Path
    options: dict[str, Any]
    indexes: list[dict[str, Any]]

    @property
    def ns(self) -> str:
        return f"{self.database}.{self.collection}"

    @property
    def capped(self) -> bool:
        return bool(self.options.get("capped"))


@dataclass
class LoadReport:
    """What was loaded.

    :ivar oplog_applied: oplog entries replayed, each operation of a transaction counted.
    :ivar transactions_dropped: large transactions whose end lies beyond the dump, so that they never happened.
    """

    collections: list[dict[str, Any]] = field(default_factory=list)
    oplog_applied: int = 0
    transactions_dropped: int = 0
    elapsed: float = 0.0

    @property
    def documents(self) -> int:
        return sum(int(c["documents"]) for c in self.collections)

    @property
    def bytes(self) -> int:
        return sum(int(c["bytes"]) for c in self.collections)


def sources(dump_folder: Path) -> list[Source]:
    """The collections of an unpacked dump, largest first.

    :raises JujuDrError: a collection without readable metadata, or no collection at all.
    """
    found = []
    for path in sorted(dump_folder.glob("*/*.bson")):
        metadata = path.with_name(path.name[: -len(".bson")] + ".metadata.json")
        if not metadata.exists():
            raise JujuDrError(f"The dump has no {metadata.name} for {path.name}", "Take another archive")
        read = parse_metadata(metadata.read_text(encoding="utf-8"), metadata.name)
        collection = str(read.get("collectionName") or collection_of(path.name[: -len(".bson")]))
        found.append(Source(path.parent.name, collection, path, dict(read["options"]), list(read["indexes"])))
    if not found:
        raise JujuDrError(f"{dump_folder} holds no dump", "Unpack the archive again, or take another one")
    return sorted(found, key=lambda one: -one.path.stat().st_size)


def load(client: Client, source: str, users: Sequence[MongoUser]) -> LoadReport:
    """Loads ``source/dump`` and makes the users; the server must be empty.

    :raises JujuDrError: damaged dump, a server that is not empty, a document the server refuses.
    """
    began = time.monotonic()
    folder = Path(source)
    wanted = sources(folder / "dump")
    present = set(client.list_database_names()) - {"admin", "config", "local"}
    if present:
        raise JujuDrError(
            f"The database to load into already holds {', '.join(sorted(present))}",
            "Set the present database aside first; nothing was loaded",
        )
    report = LoadReport()
    try:
        with ThreadPoolExecutor(WORKERS) as workers:
            report.collections = sorted(workers.map(lambda one: _load_collection(client, one), wanted), key=_by_ns)
        oplog = folder / "dump" / "oplog.bson"
        if oplog.exists():
            transactions = Transactions()
            report.oplog_applied = replay(client, _entries(oplog), transactions)
            report.transactions_dropped = len(transactions.open)
        make_users(client, users)
    except pymongo_errors.PyMongoError as error:
        raise JujuDrError(
            f"MongoDB refused the load: {str(error)[:300]}",
            "Look at mongod's log on that host; the old data is untouched",
        ) from error
    report.elapsed = round(time.monotonic() - began, 2)
    return report


def _by_ns(entry: dict[str, Any]) -> str:
    return str(entry["ns"])


def _load_collection(client: Client, one: Source) -> dict[str, Any]:
    with open(one.path, "rb") as stream:
        documents, size = count(stream, one.path.name)
    options = {key: value for key, value in one.options.items() if key not in ("autoIndexId", "uuid")}
    database = client[one.database]
    database.command({"create": one.collection, **options})
    collection = database.get_collection(one.collection, codec_options=DEFAULT_RAW_BSON_OPTIONS)
    with open(one.path, "rb") as stream:
        for batch in _batches(split(stream, one.path.name)):
            # A capped collection keeps the order of insertion.
            collection.insert_many(batch, ordered=one.capped, bypass_document_validation=True)
    indexes = [{k: v for k, v in index.items() if k != "ns"} for index in one.indexes if index["name"] != "_id_"]
    if indexes:
        database.command({"createIndexes": one.collection, "indexes": indexes})
    stored = collection.count_documents({}) if not one.capped else documents
    if stored != documents:
        raise JujuDrError(f"{one.ns} holds {stored} documents after loading {documents}", "Look at mongod's log on that host")
    return {"ns": one.ns, "documents": documents, "bytes": size}


def _batches(documents: Iterable[bytes]) -> Iterator[list[RawBSONDocument]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for raw in documents:
        batch.append(RawBSONDocument(raw))
        size += len(raw)
        if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _entries(path: Path) -> Iterator[RawBSONDocument]:
    with open(path, "rb") as stream:
        for raw in split(stream, path.name):
            yield RawBSONDocument(raw)


def replay(client: Client, entries: Iterable[Any], transactions: Transactions) -> int:
    """Applies oplog entries in order and returns how many operations that were."""
    applied = 0
    pending: list[dict[str, Any]] = []

    def flush() -> None:
        if pending:
            client.admin.command({"applyOps": list(pending), "allowAtomic": False})
            pending.clear()

    for operation in replayable(entries, transactions):
        applied += 1
        if operation["op"] == "c":
            flush()
            _run_command(client, operation)
        else:
            pending.append(operation)
            if len(pending) >= BATCH_DOCUMENTS // 4:
                flush()
    flush()
    return applied


def _run_command(client: Client, operation: dict[str, Any]) -> None:
    database = str(operation["ns"]).partition(".")[0]
    try:
        client[database].command(operation["o"])
    except pymongo_errors.OperationFailure as error:
        if error.code not in _DONE_ALREADY:
            raise


def make_users(client: Client, users: Sequence[MongoUser]) -> None:
    """Makes or updates the Mongo users with Juju's four roles."""
    for user in users:
        known = client.admin.command({"usersInfo": user.name})["users"]
        client.admin.command(
            {
                "updateUser" if known else "createUser": user.name,
                "pwd": user.password,
                "roles": [{"role": role, "db": "admin"} for role in ROLES],
            }
        )


def stored_credentials(client: Client, source: str, name: str) -> bool:
    """Puts one user back as the archive holds it, password and all; False when the archive has no such user."""
    path = Path(source) / "juju-dr" / "admin" / "system.users.bson"
    if not path.exists():
        return False
    with open(path, "rb") as stream:
        for raw in split(stream, path.name):
            document = bson.decode(raw)
            if document.get("user") == name and document.get("db") == "admin":
                users = client.admin.get_collection("system.users", codec_options=DEFAULT_RAW_BSON_OPTIONS)
                users.replace_one({"_id": document["_id"]}, RawBSONDocument(raw), upsert=True)
                return True
    return False


def load_into_juju_db(source: str, agent_conf: str, machine_id: str, mongo_common: str, service: str, run: Run) -> LoadReport:
    """Loads an unpacked archive in place of juju-db's database, which was set aside before.

    :param agent_conf: path of the agent.conf whose passwords the Mongo users get.
    :raises JujuDrError: the database folder is not empty, or whatever :func:`load` finds.
    """
    conf = parse(Path(agent_conf).read_text(encoding="utf-8"))
    _empty_dbpath(Path(mongo_common))
    users = [MongoUser(f"machine-{machine_id}", conf.require("statepassword"))]
    with loading_server(mongo_common, service, run) as client:
        report = load(client, source, users)
        old = conf.scalar("oldpassword")
        if not stored_credentials(client, source, "admin") and old:
            make_users(client, [MongoUser("admin", old)])
        return report


def _empty_dbpath(mongo_common: Path) -> None:
    """Makes the folder of the database, owned as its parent is.

    :raises JujuDrError: there is a database in it.
    """
    path = mongo_common / "db"
    if path.exists() and any(path.iterdir()):
        raise JujuDrError(f"{path} holds a database", "Set it aside first; nothing was loaded")
    path.mkdir(mode=0o700, exist_ok=True)
    owner = mongo_common.stat()
    shutil.chown(path, owner.st_uid, owner.st_gid)
