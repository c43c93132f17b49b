"""Replays a dump's oplog into the server that the dump was loaded into: the state of one instant comes out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping, Sequence

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import errors as pymongo_errors

from .bson_stream import split
from .oplog import CappedTails, Present, Transactions, UniqueIndexes, replayable

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    Client = MongoClient[dict[str, Any]]

BATCH_OPERATIONS = 250
# A command is one document and may hold 16 MiB; an operation that is larger than this goes alone.
BATCH_BYTES = 8 * 1024 * 1024
# An operation that finds its work done already: the dump was read after it happened.
_OTHER_INDEX = {85: "IndexOptionsConflict", 86: "IndexKeySpecsConflict"}
_DONE_ALREADY = {26: "NamespaceNotFound", 27: "IndexNotFound", 48: "NamespaceExists", 68: "IndexAlreadyExists"}


def replay(client: Client, oplog: Path, loaded: Mapping[str, bool], unique: UniqueIndexes, transactions: Transactions) -> int:
    """Applies the window's operations in their order.

    :param oplog: the dump's oplog.bson; read twice when there are capped collections.
    :param loaded: namespaces of the loaded collections, and whether each is capped.
    :param unique: what was held back at the load; follows the window, and is built by :func:`build` afterwards.
    :returns: how many operations that were.
    :raises JujuDrError: a command that a replay cannot follow, or a damaged file.
    """
    capped = [ns for ns, one in loaded.items() if one]
    present, tails = Present(set(loaded)), CappedTails(_newest(client, capped))
    if tails.newest:
        tails.scan(replayable(_entries(oplog), Transactions()))
    pending = _Pending(client)
    number = -1
    for number, operation in enumerate(replayable(_entries(oplog), transactions)):
        if not present.has(operation):
            continue
        if operation["op"] == "c":
            pending.flush()
            command = unique.follow(operation)
            if command is not None:
                _run_command(client, str(operation["ns"]).partition(".")[0], command)
        elif not tails.has_seen(number, operation) and not _is_update_of_nothing(client, operation, capped, pending):
            pending.add(operation)
    pending.flush()
    present.refuse_gaps()
    return number + 1


def build(client: Client, unique: UniqueIndexes) -> None:
    """Builds the unique indexes that were held back."""
    for ns, indexes in sorted(unique.held.items()):
        if indexes:
            database, _, collection = ns.partition(".")
            _run_command(client, database, {"createIndexes": collection, "indexes": list(indexes.values())})
    unique.held.clear()


class _Pending:
    """Operations on documents that wait to be applied together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._operations: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, operation: dict[str, Any]) -> None:
        size = _size(operation["o"])
        if self._operations and (len(self._operations) >= BATCH_OPERATIONS or self._bytes + size > BATCH_BYTES):
            self.flush()
        self._operations.append(operation)
        self._bytes += size

    def flush(self) -> None:
        if self._operations:
            self._client.admin.command({"applyOps": self._operations, "allowAtomic": False})
            self._operations, self._bytes = [], 0


def _size(document: Any) -> int:
    return len(document.raw if isinstance(document, RawBSONDocument) else bson.encode(document))


def _entries(path: Path) -> Iterator[RawBSONDocument]:
    with open(path, "rb") as stream:
        for raw in split(stream, path.name):
            yield RawBSONDocument(raw)


def _newest(client: Client, capped: Iterable[str]) -> dict[str, Any]:
    found = {}
    for ns in capped:
        database, _, collection = ns.partition(".")
        for document in client[database][collection].find({}, {"_id": 1}).sort("$natural", -1).limit(1):
            found[ns] = document["_id"]
    return found


def _is_update_of_nothing(client: Client, operation: dict[str, Any], capped: Sequence[str], pending: _Pending) -> bool:
    """An update of a capped collection's document that was cut off since: it would come back at the wrong end."""
    if operation["op"] != "u" or operation["ns"] not in capped:
        return False
    pending.flush()
    database, _, collection = str(operation["ns"]).partition(".")
    return client[database][collection].count_documents({"_id": operation["o2"]["_id"]}) == 0


def _run_command(client: Client, database: str, command: dict[str, Any]) -> None:
    try:
        client[database].command(command)
    except pymongo_errors.OperationFailure as error:
        if error.code in _OTHER_INDEX:
            # What is there was made later in the window, and will be made again when its turn comes.
            _drop_indexes_like(client[database][command["createIndexes"]], command["indexes"])
            client[database].command(command)
        elif error.code not in _DONE_ALREADY:
            raise


def _drop_indexes_like(collection: Collection[dict[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> None:
    names, keys = {one["name"] for one in wanted}, [list(one["key"].items()) for one in wanted]
    for index in list(collection.list_indexes()):
        if index["name"] in names or list(index["key"].items()) in keys:
            collection.drop_index(index["name"])
