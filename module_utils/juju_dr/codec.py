"""How an archive is packed: one call packs or unpacks one whole gzip member or zstd frame.

A file is a row of such members, so chunks are packed and unpacked in parallel, and any reader of the format sees one stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from .errors import JujuDrError

_fast: Any = None
with contextlib.suppress(ImportError):
    from isal import isal_zlib as _fast
_zstandard: Any = None
with contextlib.suppress(ImportError):
    import zstandard as _zstandard

# Measured on BSON: isal packs at ten times zlib's speed, and at this level 3 % worse than zlib at its best.
# A third of a database is packed already: zstd beyond level 1 costs time, and made nothing smaller.
_ISAL_LEVEL = 2
_ZLIB_LEVEL = 4
_ZSTD_LEVEL = 1
# Beyond this much memory for one frame a zstd file is hostile, not large.
ZSTD_WINDOW = 128 * 1024 * 1024
TRAILER_VERSION = 1
_TRAILER_MAGIC = b"jujudr\0\0"
_FIELDS = struct.Struct("<8sIQQ")
_DIGEST = hashlib.sha256().digest_size
_PAYLOAD = _FIELDS.size + _DIGEST
# Where samples of a chunk are taken that tell whether packing it is worth the time, and what they must shrink to.
_SAMPLES, _SAMPLE_BYTES, _WORTH = (0.25, 0.75), 32 * 1024, 0.97
_LARGEST_BLOCK = 0xFFFF
_GZIP_HEADER = b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff"
_ZSTD_SKIPPED = 0x184D2A5D


class Unpackable(Exception):
    """Bytes that are not one whole member with the content promised."""


@dataclass(frozen=True)
class Trailer:
    """The last bytes of an archive; other readers see an empty member.

    :param offset: where the manifest's members begin, in bytes.
    :param length: how long they are; the trailer follows.
    :param sha256: of every byte before this digest, the trailer's own fields included.
    """

    offset: int
    length: int
    sha256: bytes = b"\0" * _DIGEST
    version: int = TRAILER_VERSION

    def _payload(self) -> bytes:
        return _FIELDS.pack(_TRAILER_MAGIC, self.version, self.offset, self.length) + self.sha256


class Codec:
    """One way to pack.

    :cvar name: as it is chosen and written in a manifest.
    :cvar suffix: of an archive's name.
    """

    name = ""
    suffix = ""
    _head = b""
    _tail = b""

    def pack(self, raw: bytes) -> bytes:
        """One whole member; safe to call from several threads."""
        raise NotImplementedError

    def stored(self, raw: bytes) -> bytes:
        """One whole member whose length depends on that of ``raw`` (less than 64 KiB) only: it can be replaced in place."""
        raise NotImplementedError

    def unpack(self, packed: bytes, raw: int) -> bytes:
        """The ``raw`` bytes of one whole member.

        :raises Unpackable: it is no such member, or holds more or less; no more than ``raw + 1`` bytes are ever made.
        """
        raise NotImplementedError

    # What the methods above and below raise on bad data.
    errors: tuple[type[Exception], ...] = ()

    @property
    def trailer_size(self) -> int:
        """Length of every trailer, in bytes."""
        return len(self._head) + _PAYLOAD + len(self._tail)

    def trailer(self, trailer: Trailer) -> bytes:
        """The trailer as bytes; there is only one way to write it."""
        return self._head + trailer._payload() + self._tail

    def hashed_of_trailer(self, trailer: bytes) -> bytes:
        """The part of a trailer that its digest covers."""
        return trailer[: len(self._head) + _FIELDS.size]

    def parse_trailer(self, data: bytes) -> Trailer | None:
        """The trailer that these bytes are, whatever its version; None when they are none."""
        if len(data) != self.trailer_size:
            return None
        magic, version, offset, length = _FIELDS.unpack_from(data, len(self._head))
        at = len(self._head) + _FIELDS.size
        found = Trailer(offset, length, data[at : at + _DIGEST], version)
        return found if magic == _TRAILER_MAGIC and self.trailer(found) == data else None


class Gzip(Codec):
    """Members of gzip; isal does the work where it is installed, zlib elsewhere."""

    name = "gzip"
    suffix = ".tar.gz"
    # Flag FEXTRA; one subfield "JD" holds the payload; then an empty block, CRC and length.
    _head = b"\x1f\x8b\x08\x04\0\0\0\0\x00\xff" + struct.pack("<H2sH", _PAYLOAD + 4, b"JD", _PAYLOAD)
    _tail = b"\x03\x00" + b"\0" * 8

    def __init__(self, library: Any = _fast) -> None:
        self._library = library or zlib
        self._level = _ZLIB_LEVEL if self._library is zlib else _ISAL_LEVEL
        self.errors = (zlib.error, getattr(self._library, "error", zlib.error))

    def unpacker(self) -> Any:
        """What unpacks one member bit by bit."""
        return self._library.decompressobj(zlib.MAX_WBITS | 16)

    def pack(self, raw: bytes) -> bytes:
        # Charms and agent binaries are packed already: trying again takes as long as all the rest, and gains nothing.
        if not self._shrinks(raw):
            return self.stored(raw)
        return b"".join((_GZIP_HEADER, *self._deflated(raw), self._checks(raw)))

    def stored(self, raw: bytes) -> bytes:
        return b"".join((_GZIP_HEADER, *_blocks(raw), self._checks(raw)))

    def _deflated(self, raw: bytes) -> tuple[bytes, bytes]:
        packer = self._library.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(raw), packer.flush()

    def _shrinks(self, raw: bytes) -> bool:
        if len(raw) < _SAMPLE_BYTES / (1 - _SAMPLES[-1]):
            return True
        for place in _SAMPLES:
            at = int(len(raw) * place)
            sample = raw[at : at + _SAMPLE_BYTES]
            if sum(map(len, self._deflated(sample))) < _WORTH * len(sample):
                return True
        return False

    def _checks(self, raw: bytes) -> bytes:
        return struct.pack("<II", self._library.crc32(raw), len(raw) & 0xFFFFFFFF)

    def unpack(self, packed: bytes, raw: int) -> bytes:
        unpacker = self.unpacker()
        try:
            content: bytes = unpacker.decompress(packed, raw + 1)
        except self.errors as error:
            raise Unpackable(str(error)) from error
        if len(content) != raw or not unpacker.eof or unpacker.unused_data:
            raise Unpackable("a member of another length")
        return content


def _blocks(raw: bytes) -> Iterator[bytes | memoryview]:
    """Deflate's blocks of what is not packed: each with its length and that again, inverted."""
    whole, last = memoryview(raw), max(len(raw) - 1, 0) // _LARGEST_BLOCK
    for number in range(last + 1):
        block = whole[number * _LARGEST_BLOCK : (number + 1) * _LARGEST_BLOCK]
        yield struct.pack("<BHH", number == last, len(block), len(block) ^ 0xFFFF)
        yield block


class Zstd(Codec):
    """Frames of zstd, each with its content's size and checksum; needs the library ``zstandard``."""

    name = "zstd"
    suffix = ".tar.zst"
    _head = struct.pack("<II", _ZSTD_SKIPPED, _PAYLOAD)

    def __init__(self, library: Any = _zstandard) -> None:
        if library is None:
            raise JujuDrError(
                "zstd was asked for, and Python's zstandard is not installed here",
                "Install it (Debian and Ubuntu: python3-zstandard, elsewhere: pip install zstandard), or use gzip",
            )
        self._library = library
        self.errors = (library.ZstdError, struct.error)

    def reader(self, stream: Any) -> Any:
        """What unpacks frame after frame; a frame that is cut at the end of the stream just ends."""
        return self._library.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(stream, read_across_frames=True)

    def pack(self, raw: bytes) -> bytes:
        # A compressor is for one thread.
        packer = self._library.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True, write_content_size=True)
        packed: bytes = packer.compress(raw)
        return packed

    def stored(self, raw: bytes) -> bytes:
        # One segment, size in 4 bytes, checksum; one raw block. The library knows the checksum, and tells it only so.
        return b"".join(
            (
                struct.pack("<IBI", 0xFD2FB528, 0xA4, len(raw)),
                struct.pack("<I", len(raw) << 3 | 1)[:3],
                raw,
                self.pack(raw)[-4:],
            )
        )

    def unpack(self, packed: bytes, raw: int) -> bytes:
        try:
            parameters = self._library.get_frame_parameters(packed)
            if parameters.content_size != raw or not parameters.has_checksum or self._length(packed) != len(packed):
                raise Unpackable("a frame of another length")
            # What the frame's head says is all that is made.
            content: bytes = self._library.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompress(packed)
        except self.errors as error:
            raise Unpackable(str(error)) from error
        return content

    def _length(self, packed: bytes) -> int:
        """Length of the frame at the beginning: older libraries do not tell what lies behind it."""
        at, last = self._library.frame_header_size(packed), False
        while not last:
            head = int.from_bytes(packed[at : at + 3], "little") if at + 3 <= len(packed) else 1
            # A run of one byte is stored as that byte.
            at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)
            last = bool(head & 1)
        return int(at) + 4


CODECS: Mapping[str, type] = {"gzip": Gzip, "zstd": Zstd}


def codec(name: str) -> Codec:
    """The codec of that name, ``gzip`` or ``zstd``.

    :raises JujuDrError: there is none of that name, or its library is not installed.
    """
    if name not in CODECS:
        raise JujuDrError(f"There is no compression {name!r}", f"Choose one of {', '.join(sorted(CODECS))}")
    made: Codec = CODECS[name]()
    return made
