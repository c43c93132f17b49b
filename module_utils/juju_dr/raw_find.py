"""All documents of a collection as bytes end to end, at the least cost that pymongo allows.

pymongo's own raw batches make one object of each document. Here a reply stays one object, and is cut by its lengths.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any, Iterator

import bson
from bson.errors import InvalidBSON
from bson.int64 import Int64
from bson.raw_bson import DEFAULT_RAW_BSON_OPTIONS
from pymongo.errors import PyMongoError
from pymongo.read_preferences import SecondaryPreferred

from .errors import JujuDrError

if TYPE_CHECKING:
    from pymongo.database import Database

# Newer pymongos have in C what the loop below does: for their own use, so its outcome is checked against the lengths.
_joined: Any = getattr(getattr(bson, "_cbson", None), "_array_of_documents_to_buffer", None)
# Larger batches cost page faults, smaller ones round trips; the server sends less than 16 MiB whatever it is asked for.
BATCH_BYTES = 1024 * 1024
MOST_DOCUMENTS, FEWEST_DOCUMENTS = 4000, 4
_DOCUMENT, _ARRAY = 3, 4
_length_at = struct.Struct("<i").unpack_from


def find_raw(database: Database[dict[str, Any]], collection: str, concern: str) -> Iterator[tuple[bytes, int]]:
    """Batches of documents in their natural order, end to end, and how many documents each holds.

    :param concern: the level of the read concern.
    :raises pymongo.errors.PyMongoError: as any read.
    """
    stats = database.command({"collStats": collection}, read_preference=SecondaryPreferred())
    number = max(FEWEST_DOCUMENTS, min(MOST_DOCUMENTS, BATCH_BYTES // max(1, int(stats.get("avgObjSize", 1)))))
    # A cursor belongs to the session that opened it; what it reads is said by the concern alone.
    with database.client.start_session(causal_consistency=False) as session:

        def run(command: dict[str, Any]) -> Any:
            return database.command(
                command, codec_options=DEFAULT_RAW_BSON_OPTIONS, read_preference=SecondaryPreferred(), session=session
            )["cursor"]

        find = {"find": collection, "batchSize": number, "readConcern": {"level": concern}}
        batch, documents, rest = documents_of(bytes(run(find).raw), "firstBatch")
        opened = Int64(rest["id"])
        try:
            while True:
                if documents:
                    yield batch, documents
                if not opened:
                    return
                more = {"getMore": opened, "collection": collection, "batchSize": number}
                batch, documents, rest = documents_of(bytes(run(more).raw), "nextBatch")
                opened = Int64(rest["id"])
        except GeneratorExit:
            if opened:
                # A member that is gone has no cursor either.
                with contextlib.suppress(PyMongoError):
                    database.command({"killCursors": collection, "cursors": [opened]}, session=session)
            raise


def documents_of(cursor: bytes, name: str) -> tuple[bytes, int, dict[str, Any]]:
    """The documents in the array ``name`` of a reply's cursor, end to end, their number, and what else the cursor says.

    :raises JujuDrError: it is no array of documents.
    """
    begins, at = _place(cursor, name)
    (size,) = _length_at(cursor, at)
    end = at + size
    raw, documents = (_at_once if _joined else one_by_one)(memoryview(cursor)[at:end], name)
    others = cursor[4:begins] + cursor[end:]
    return raw, documents, bson.decode(struct.pack("<i", len(others) + 4) + others)


def _at_once(array: memoryview, name: str) -> tuple[bytes, int]:
    """As :func:`one_by_one`, in C."""
    try:
        raw = bytes(_joined(array))
    except InvalidBSON:
        # It says better what is wrong.
        return one_by_one(array, name)
    documents = _number_of(len(array) - 5 - len(raw))
    return one_by_one(array, name) if documents is None else (raw, documents)


def _number_of(between: int) -> int | None:
    """How many elements an array has whose types, numbers as text and zero bytes take so many bytes; None: no array does."""
    number, digits, first = 0, 1, 10
    while between > (first - number) * (2 + digits):
        between -= (first - number) * (2 + digits)
        number, digits, first = first, digits + 1, first * 10
    more, rest = divmod(between, 2 + digits)
    return None if rest or between < 0 else number + more


def one_by_one(array: memoryview, name: str) -> tuple[bytes, int]:
    """The documents of an array end to end, and their number.

    :raises JujuDrError: it is no array of documents.
    """
    at, end = 4, len(array) - 1
    found = []
    documents, digits, more_digits = 0, 1, 10
    while at < end:
        if array[at] != _DOCUMENT:
            raise JujuDrError(f"MongoDB sent something else than documents in {name}", "Run the backup again")
        # Its type, its number in the array as text, a zero byte.
        at += 2 + digits
        (size,) = _length_at(array, at)
        found.append(array[at : at + size])
        at += size
        documents += 1
        if documents == more_digits:
            digits += 1
            more_digits *= 10
    if at != end:
        raise JujuDrError(f"MongoDB sent a damaged batch: {name} ends at {at}, not at {end}", "Run the backup again")
    return b"".join(found), documents


def _place(cursor: bytes, name: str) -> tuple[int, int]:
    """Where an array of this name begins, and where its value does."""
    wanted = bytes([_ARRAY]) + name.encode("ascii") + b"\0"
    # The server writes it first; what else a cursor holds is short.
    at = cursor.find(wanted, 4)
    if at < 0:
        raise JujuDrError(f"MongoDB sent no {name}", "Run the backup again")
    return at, at + len(wanted)
