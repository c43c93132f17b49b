"""The stream of raw documents in a ``.bson`` file, as mongodump writes it: documents end to end, nothing between."""

from __future__ import annotations

import contextlib
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


def raw_documents(run: bytes) -> Iterator[bytes]:
    """The documents of a run that is whole, one by one."""
    offset = 0
    while offset < len(run):
        length = int.from_bytes(run[offset : offset + 4], "little")
        yield run[offset : offset + length]
        offset += length


def runs(stream: BinaryIO, target: int, name: str = "the BSON file") -> Iterator[tuple[bytes, int]]:
    """Yields whole documents end to end with their number, about ``target`` bytes at a time; checks as :func:`split` does.

    One run is one object, however many documents it holds: far cheaper than the documents one by one.

    :param stream: may give fewer bytes than it is asked for; none only at its end.
    :param target: bytes of a run; a single document may be larger.
    :raises BsonCut: at the first document that is cut or malformed; what was before it has been yielded.
    """
    length_at = struct.Struct("<i").unpack_from
    begins, rest, wanted = 0, b"", target
    while True:
        block = stream.read(wanted)
        held = rest + block if rest else block
        at = documents = 0
        # Once for each of millions of documents: as few steps as can be. What is behind the end of the block is an error.
        with contextlib.suppress(struct.error, IndexError):
            while True:
                (length,) = length_at(held, at)
                if length < MIN_DOCUMENT or held[at + length - 1]:
                    break
                at += length
                documents += 1
        if documents:
            yield held[:at], documents
        begins, rest = begins + at, held[at:]
        wanted = max(target, 4) - len(rest)
        if len(rest) >= 4:
            (length,) = length_at(rest)
            if not MIN_DOCUMENT <= length <= MAX_DOCUMENT:
                raise BsonCut(name, begins, "no document starts there")
            if length <= len(rest):
                raise BsonCut(name, begins, "the document has no end")
            if length > target:
                wanted = length - len(rest)
        if not block:
            if rest:
                raise BsonCut(name, begins, f"the file ends {len(rest)} bytes into a document")
            return
