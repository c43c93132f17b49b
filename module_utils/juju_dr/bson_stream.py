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


def runs(stream: BinaryIO, target: int, name: str = "the BSON file") -> Iterator[tuple[bytes, int]]:
    """Yields whole documents end to end with their number, about ``target`` bytes at a time; checks as :func:`split` does.

    One run is one object, however many documents it holds: far cheaper than the documents one by one.

    :param target: bytes of a run; a single document may be larger.
    :raises BsonCut: at the first document that is cut or malformed; what was before it has been yielded.
    """
    length_at = struct.Struct("<i").unpack_from
    begins, rest = 0, b""
    while True:
        block = stream.read(target)
        held = rest + block if rest else block
        at = start = documents = 0
        end = len(held)
        # Once for each of millions of documents: as few steps as can be.
        while at + 4 <= end:
            (length,) = length_at(held, at)
            after = at + length
            if not MIN_DOCUMENT <= length <= MAX_DOCUMENT:
                raise BsonCut(name, begins + at, "no document starts there")
            if after > end:
                break
            if after - start > target and documents:
                yield held[start:at], documents
                start, documents = at, 0
            if held[after - 1]:
                raise BsonCut(name, begins + at, "the document has no end")
            at = after
            documents += 1
        if documents:
            yield held[start:at], documents
        begins, rest = begins + at, held[at:]
        if not block:
            if rest:
                raise BsonCut(name, begins, f"the file ends {len(rest)} bytes into a document")
            return
