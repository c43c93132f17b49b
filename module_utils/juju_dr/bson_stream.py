"""The stream of raw documents in a ``.bson`` file, as mongodump writes it: documents end to end, nothing between."""

from __future__ import annotations

import struct
from typing import BinaryIO, Iterator

from .errors import JujuDrError

# The server's limit is 16 MiB for a user's document; oplog entries may exceed it by 16 KiB.
MAX_DOCUMENT = 16 * 1024 * 1024 + 16 * 1024
MIN_DOCUMENT = 5


class BsonCut(JujuDrError):
    """A stream that is not whole documents end to end.

    :param offset: where the first bad document starts, in bytes.
    """

    def __init__(self, name: str, offset: int, seen: str) -> None:
        self.offset = offset
        super().__init__(f"{name} is damaged at byte {offset}: {seen}", "Take another archive, or fetch this one again")


def split(stream: BinaryIO, name: str = "the BSON file") -> Iterator[bytes]:
    """Yields each raw document, its length and terminator checked; nothing is decoded.

    :raises BsonCut: at the first document that is cut or malformed.
    """
    offset = 0
    while True:
        head = stream.read(4)
        if not head:
            return
        length = struct.unpack("<i", head)[0] if len(head) == 4 else 0
        if not MIN_DOCUMENT <= length <= MAX_DOCUMENT:
            raise BsonCut(name, offset, "no document starts there")
        rest = stream.read(length - 4)
        if len(rest) != length - 4:
            raise BsonCut(name, offset, f"{len(rest) + 4} of {length} bytes are there")
        if rest[-1]:
            raise BsonCut(name, offset, "the document has no end")
        yield head + rest
        offset += length


def count(stream: BinaryIO, name: str = "the BSON file") -> tuple[int, int]:
    """Documents and bytes of a stream, after checking all of it."""
    documents = size = 0
    for raw in split(stream, name):
        documents += 1
        size += len(raw)
    return documents, size
