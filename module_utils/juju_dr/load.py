"""Loads a dump into a stand-alone mongod: data, then indexes, then the oplog of the dump window, then the Mongo users.

Documents are never looked at: workers send runs of them as they lie in the file, several runs of a large collection at once. A
collection's indexes are built as soon as it is whole, while others are still filled.
"""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Sequence, Tuple

import bson
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS, RawBSONDocument
from pymongo import errors as pymongo_errors

from .agent_conf import parse
from .bson_stream import runs, split
from .collection_metadata import collection_of, parse_metadata
from .controller_host import Run
from .errors import JujuDrError
from .loading_server import loading_server
from .oplog import Transactions, UniqueIndexes
from .progress import SILENT, Progress
from .replay import build, replay

if TYPE_CHECKING:
    from pymongo import MongoClient

    Client = MongoClient[dict[str, Any]]

ROLES = ("dbAdminAnyDatabase", "userAdminAnyDatabase", "clusterAdmin", "readWriteAnyDatabase")
WORKERS = 3
RUN_BYTES = 1024 * 1024
DUPLICATE_KEY = 11000


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
        # MongoDB 2.4 keeps indexes and users in each database; users are made anew.
        if path.parent.name == "admin" or path.name.startswith("system."):
            continue
        metadata = path.with_name(path.name[: -len(".bson")] + ".metadata.json")
        if not metadata.exists():
            raise JujuDrError(f"The dump has no {metadata.name} for {path.name}", "Take another archive")
        read = parse_metadata(metadata.read_text(encoding="utf-8"), metadata.name)
        collection = str(read.get("collectionName") or collection_of(path.name[: -len(".bson")]))
        found.append(Source(path.parent.name, collection, path, dict(read["options"]), list(read["indexes"])))
    if not found:
        raise JujuDrError(f"{dump_folder} holds no dump", "Unpack the archive again, or take another one")
    return sorted(found, key=lambda one: -one.path.stat().st_size)


def load(client: Client, source: str, users: Sequence[MongoUser], progress: Progress = SILENT) -> LoadReport:
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
    report, oplog = LoadReport(), folder / "dump" / "oplog.bson"
    # Only a window's documents are of several instants.
    later = UniqueIndexes() if oplog.exists() else None
    try:
        report.collections = _load_collections(client, wanted, later, progress)
        if later is not None:
            progress.doing("replaying the oplog")
            transactions = Transactions()
            loaded = {one.ns: one.capped for one in wanted}
            report.oplog_applied = replay(client, oplog, loaded, later, transactions)
            report.transactions_dropped = len(transactions.open)
            progress.doing("unique indexes")
            build(client, later)
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


class _Run(RawBSONDocument):
    """Many documents end to end that pymongo puts into an insert as if they were one.

    An insert's documents lie end to end in its message, so that the server sees what it would see of a list of them. What it
    answers to each insert is how many documents it took, and that is compared.
    """

    def __init__(self, documents: bytes) -> None:
        # Not the parent's: that demands one document. Only `raw` is ever asked for.
        self._documents = documents

    @property
    def raw(self) -> bytes:
        return self._documents


@dataclass
class _Filling:
    """A collection on its way in.

    :ivar under_way: tasks that were handed out and are not done.
    :ivar twice: documents that are in the dump twice, because they were deleted and made anew while it was read.
    :ivar last_is_out: no task of this collection is left to hand out.
    """

    source: Source
    documents: int = 0
    bytes: int = 0
    twice: int = 0
    under_way: int = 0
    last_is_out: bool = False


_Task = Tuple[_Filling, Iterable[Tuple[bytes, int]]]


class _Work:
    """Hands the runs of all collections to workers, in the order given; any thread may call it."""

    def __init__(self, wanted: Sequence[Source]) -> None:
        self._lock = threading.Lock()
        self._tasks = self._all_tasks(wanted)
        self._given_up = False
        self.report: list[dict[str, Any]] = []

    def next(self) -> _Task | None:
        """The next task; None when there is no more."""
        with self._lock:
            task = None if self._given_up else next(self._tasks, None)
            if task is not None:
                task[0].under_way += 1
            return task

    def done(self, filling: _Filling, documents: int, twice: int, size: int) -> bool:
        """A task is done; tells whether the collection is whole with it."""
        with self._lock:
            filling.under_way -= 1
            filling.documents += documents
            filling.twice += twice
            filling.bytes += size
            whole = filling.last_is_out and not filling.under_way
            if whole:
                self.report.append({"ns": filling.source.ns, "documents": filling.documents, "bytes": filling.bytes})
            return whole

    def give_up(self) -> None:
        """No further task is handed out."""
        self._given_up = True

    @staticmethod
    def _all_tasks(wanted: Sequence[Source]) -> Iterator[_Task]:
        for one in wanted:
            filling = _Filling(one)
            if not one.capped:
                for run in _runs(one):
                    yield filling, (run,)
            filling.last_is_out = True
            # A capped collection keeps the order of insertion: one worker takes all of it.
            yield filling, _runs(one) if one.capped else ()


def _runs(one: Source) -> Iterator[tuple[bytes, int]]:
    with open(one.path, "rb") as stream:
        yield from runs(stream, RUN_BYTES, one.path.name)


def _load_collections(
    client: Client, wanted: Sequence[Source], later: UniqueIndexes | None, progress: Progress
) -> list[dict[str, Any]]:
    work = _Work(wanted)
    progress.expect(sum(one.path.stat().st_size for one in wanted))

    def worker() -> None:
        try:
            while True:
                task = work.next()
                if task is None:
                    return
                filling, found = task
                documents = twice = size = 0
                for raw, number in found:
                    twice += _insert(client, filling.source, raw, number, may_be_twice=later is not None)
                    documents, size = documents + number, size + len(raw)
                    progress.add(len(raw), number)
                if work.done(filling, documents, twice, size):
                    progress.doing(f"indexes of {filling.source.ns}")
                    _complete(client, filling, later)
                    progress.doing("")
        except BaseException:
            work.give_up()
            raise

    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(lambda one: _create(client, one), wanted))
        for job in [workers.submit(worker) for _ in range(WORKERS)]:
            job.result()
    return sorted(work.report, key=_by_ns)


def _create(client: Client, one: Source) -> None:
    options = {key: value for key, value in one.options.items() if key not in ("autoIndexId", "uuid")}
    client[one.database].command({"create": one.collection, **options})


def _insert(client: Client, one: Source, documents: bytes, number: int, may_be_twice: bool) -> int:
    """Inserts a run of documents.

    :returns: how many of them are there already; the window, which tells what became of them, puts that right.
    :raises JujuDrError: the server did not take all of them.
    """
    answer = client[one.database].command(
        {
            "insert": one.collection,
            "documents": [_Run(documents)],
            "ordered": one.capped,
            "bypassDocumentValidation": True,
        }
    )
    errors = answer.get("writeErrors", [])
    twice = len(errors) if may_be_twice and all(error["code"] == DUPLICATE_KEY for error in errors) else 0
    if answer["n"] != number - twice:
        refused = "; ".join(str(error["errmsg"])[:200] for error in errors[:3])
        raise JujuDrError(
            f"MongoDB took {answer['n']} of {number} documents of {one.ns}: {refused}",
            "Take another archive; the old data is untouched",
        )
    return twice


def _complete(client: Client, filling: _Filling, later: UniqueIndexes | None) -> None:
    """Builds the indexes of a collection whose documents are all in, in one pass over it.

    :param later: takes those that must wait for the window; None when there is none.
    """
    one = filling.source
    database = client[one.database]
    indexes = [{k: v for k, v in index.items() if k != "ns"} for index in one.indexes if index["name"] != "_id_"]
    if later is not None:
        indexes = later.hold(one.ns, indexes)
    if indexes:
        database.command({"createIndexes": one.collection, "indexes": indexes})
    stored = database[one.collection].estimated_document_count() if not one.capped else filling.documents
    if stored != filling.documents - filling.twice:
        raise JujuDrError(
            f"{one.ns} holds {stored} documents after loading {filling.documents}", "Look at mongod's log on that host"
        )


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


def load_into_juju_db(
    source: str, agent_conf: str, machine_id: str, mongo_common: str, service: str, run: Run, progress: Progress = SILENT
) -> LoadReport:
    """Loads an unpacked archive in place of juju-db's database, which was set aside before.

    :param agent_conf: path of the agent.conf whose passwords the Mongo users get.
    :raises JujuDrError: the database folder is not empty, or whatever :func:`load` finds.
    """
    conf = parse(Path(agent_conf).read_text(encoding="utf-8"))
    _empty_dbpath(Path(mongo_common))
    users = [MongoUser(f"machine-{machine_id}", conf.require("statepassword"))]
    with loading_server(mongo_common, service, run, journal=False) as client:
        report = load(client, source, users, progress)
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
