"""An archive as the stream of its tar, whatever it is packed and encrypted with, and what vouches for its bytes.

A file of our own is hashed whole, its trailer and its manifest are checked, before anything else of it is unpacked; then its
members are unpacked in parallel. A stream (from age) and archives of others are unpacked in order, and checked at their end.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Iterator, Mapping, Sequence

from .age import AgeError, decrypting, is_encrypted
from .archive_tar import LIMITS, Limits, exactly, members
from .archive_write import BLOCK, MANIFEST, MANIFEST_FORMAT, PREFIX
from .codec import Codec, Gzip, Trailer, Unpackable, Zstd
from .errors import JujuDrError
from .memory import keep_freed
from .progress import SILENT, Progress
from .verdict import Refused

_READ = 256 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# Below this much no ratio is too high.
_UNSUSPICIOUS = 64 * 1024 * 1024
# A manifest is read into memory: room for a million files.
MANIFEST_BYTES = 256 * 1024 * 1024
_MANIFEST_PIECE = 16 * 1024 * 1024
_LARGEST_MEMBER = 64 * 1024 * 1024
WORKERS = 2


@dataclass
class Source:
    """An archive being read.

    :ivar stream: the bytes of its tar; to be read to the end.
    :ivar manifest: what our own says of itself, when it could be checked before the rest.
    :ivar vouched: whether a trailer of ours covers every byte; known at the end.
    :ivar sha256: of the plain archive, in hex; known at the end, as is ``size`` in bytes.
    """

    stream: Any
    manifest: Mapping[str, Any] | None = None
    vouched: bool = False
    size: int = 0
    sha256: str = ""
    encrypted: bool = False
    beside: bool = False


@contextlib.contextmanager
def opened(path: str, identity: str = "", limits: Limits = LIMITS, progress: Progress = SILENT) -> Iterator[Source]:
    """Opens an archive; leaving without an error means that all its bytes were read and are vouched for.

    :param identity: path of the secret key, for an encrypted one.
    :raises Refused: whatever is wrong with it.
    """
    keep_freed()
    place = Path(path)
    if place.is_dir():
        raise Refused("is-folder", f"{path} is a folder")
    if not place.exists():
        raise Refused("not-found", f"There is no archive at {path}")
    try:
        if is_encrypted(place):
            with _encrypted(place, identity, limits, progress) as source:
                yield source
        else:
            with open(path, "rb") as stream, _plain(place, stream, limits, progress) as source:
                yield source
    except AgeError as error:
        raise Refused(error.code, error.problem, error.cure) from error
    except Unpackable as error:
        raise Refused("damaged", f"{path} is damaged: {error}") from error


def manifest_of(path: Path, limits: Limits = LIMITS) -> Mapping[str, Any] | None:
    """What an archive of ours says of itself, believed as it stands: its bytes are not hashed. None when it has no trailer.

    :raises Refused: it is no archive, or its manifest cannot be read.
    """
    with path.open("rb") as stream:
        codec = _codec(path, stream.read(4))
        stream.seek(max(os.fstat(stream.fileno()).st_size - codec.trailer_size, 0))
        trailer = codec.parse_trailer(stream.read())
        return _manifest(path, stream, codec, trailer, limits)[1] if trailer else None


# --- what is on a disk -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _plain(place: Path, stream: IO[bytes], limits: Limits, progress: Progress) -> Iterator[Source]:
    codec = _codec(place, stream.read(4))
    stream.seek(0)
    size = os.fstat(stream.fileno()).st_size
    progress.expect(bytes=size)
    hashing = _Hashing(stream, codec.trailer_size, progress)
    while hashing.read(_READ):
        pass
    hashing.finish(codec)
    progress.doing("looks at what is inside")
    source = Source(None, None, False, hashing.size, hashing.sha256, beside=_beside(place, hashing.sha256))
    if hashing.trailer is None:
        if isinstance(codec, Zstd):
            raise Refused("trailer", f"{place} is packed with zstd and has no trailer of juju-dr: it was cut, or is of others")
        stream.seek(0)
        source.stream = _Guard(_stream(stream, codec, str(place)), stream, limits, str(place))
        yield source
        return
    _vouch(place, codec, hashing)
    source.vouched = True
    text, source.manifest = _manifest(place, stream, codec, hashing.trailer, limits)
    listed = _tiles(place, source.manifest, hashing.trailer.offset, limits)
    with ThreadPoolExecutor(WORKERS) as workers:
        source.stream = Pieces(_unpacked(stream, codec, listed, workers, text))
        yield source


def _codec(place: Path, head: bytes) -> Codec:
    if head[:2] == _GZIP:
        return Gzip()
    if head == _ZSTD:
        try:
            return Zstd()
        except JujuDrError as error:
            raise Refused("no-zstd", f"{place} is packed with zstd. {error.problem}", error.cure) from error
    raise Refused("no-archive", f"{place} is not a tar.gz: it does not begin as gzip, zstd or age do")


def _beside(place: Path, sha256: str) -> bool:
    """Compares with the digest that lies beside; whether one does."""
    sidecar = place.with_name(place.name + ".sha256")
    if not sidecar.exists():
        return False
    if sidecar.read_text(encoding="utf-8", errors="replace").split()[:1] != [sha256]:
        raise Refused("digest", f"{place} is not what {sidecar.name} says it is")
    return True


class _Hashing:
    """Hashes what is read through it, the last bytes apart: they may be the trailer.

    :ivar trailer: what was found at the end.
    :ivar covered: digest of all that the trailer vouches for.
    """

    def __init__(self, stream: Any, tail: int, progress: Progress) -> None:
        self._stream, self._tail_size, self._progress = stream, tail, progress
        self._digest, self._tail = hashlib.sha256(), b""
        self.size, self.sha256, self.covered = 0, "", b""
        self.trailer: Trailer | None = None

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self.size += len(data)
        self._progress.add(bytes=len(data))
        held = self._tail + data
        cut = max(len(held) - self._tail_size, 0)
        self._digest.update(memoryview(held)[:cut])
        self._tail = held[cut:]
        return data

    def finish(self, codec: Codec) -> None:
        self.trailer = codec.parse_trailer(self._tail)
        hashed = codec.hashed_of_trailer(self._tail)
        self._digest.update(hashed)
        self.covered = self._digest.digest()
        self._digest.update(self._tail[len(hashed) :])
        self.sha256 = self._digest.hexdigest()


def _vouch(place: Path, codec: Codec, hashing: _Hashing) -> None:
    trailer = hashing.trailer
    assert trailer is not None
    if trailer.version != 1:
        raise Refused("unknown-format", f"{place} ends with a trailer of version {trailer.version}, known is 1")
    if trailer.sha256 != hashing.covered:
        raise Refused("damaged", f"{place} is damaged: its bytes are not those that its trailer vouches for")
    if trailer.offset + trailer.length + codec.trailer_size != hashing.size:
        raise Refused("damaged", f"{place} is damaged: its trailer does not fit its length")


def _manifest(
    place: Path, stream: IO[bytes], codec: Codec, trailer: Trailer, limits: Limits
) -> tuple[bytes, Mapping[str, Any]]:
    """The raw end of the tar that holds the manifest, and the manifest."""
    stream.seek(trailer.offset)
    packed = io.BytesIO(stream.read(trailer.length))
    unpacking, text = _stream(packed, codec, str(place)), b""
    for piece in iter(lambda: unpacking.read(_MANIFEST_PIECE), b""):
        text += piece
        if len(text) > MANIFEST_BYTES:
            raise Refused("too-large", f"The manifest of {place} is larger than one can be")
    for member, body in members(io.BytesIO(text), str(place), limits, PREFIX):
        if member.name == MANIFEST:
            return text, parse_manifest(body.read(), str(place))
    raise Refused("trailer", f"{place} has no manifest where its trailer says")


def parse_manifest(text: bytes, where: str) -> Mapping[str, Any]:
    """Reads a manifest.

    :raises Refused: it is none, or of a newer juju-dr.
    """
    try:
        manifest = json.loads(text)
        version = manifest["format_version"]
        shaped = manifest["format"] == "juju-dr" and isinstance(manifest["files"], list) and isinstance(manifest["root"], list)
    except (ValueError, LookupError, TypeError) as error:
        raise Refused("manifest", f"The manifest of {where} cannot be read: {error!r}") from error
    if version != MANIFEST_FORMAT:
        raise Refused("unknown-format", f"The manifest of {where} is of format {version!r}, known is {MANIFEST_FORMAT}")
    if not shaped:
        raise Refused("manifest", f"The manifest of {where} is not one of juju-dr")
    return dict(manifest)


def _tiles(place: Path, manifest: Mapping[str, Any], end: int, limits: Limits) -> list[tuple[int, int, int]]:
    """The members of all files: they follow each other without a gap, and are as large as the files say."""
    listed: list[tuple[int, int, int]] = []
    at = total = 0
    try:
        for entry in manifest["files"]:
            own = [(int(offset), int(packed), int(raw)) for offset, packed, raw in entry["members"]]
            size = int(entry["size"])
            fits = sum(raw for _, _, raw in own[1:]) == size + -size % BLOCK
            for offset, packed, raw in own:
                fits = fits and offset == at and packed > 0 and 0 < raw <= _LARGEST_MEMBER
                at += packed
            if not fits:
                raise Refused("manifest", f"The manifest of {place} does not fit it at {entry['name']}")
            listed += own
            total += size
    except (LookupError, TypeError, ValueError) as error:
        raise Refused("manifest", f"The manifest of {place} cannot be read: {error!r}") from error
    if at != end:
        raise Refused("manifest", f"The manifest of {place} does not fit it: its files end at {at}, not at {end}")
    if total > limits.total_bytes:
        raise Refused("too-large", f"{place} unpacks to {total} bytes, allowed are {limits.total_bytes}")
    return listed


def _unpacked(
    stream: IO[bytes], codec: Codec, listed: Sequence[tuple[int, int, int]], workers: ThreadPoolExecutor, text: bytes
) -> Iterator[bytes]:
    """The tar in order, a few members ahead."""
    ahead: deque[Future[bytes]] = deque()
    number = stream.fileno()
    try:
        for offset, packed, raw in listed:
            ahead.append(workers.submit(codec.unpack, os.pread(number, packed, offset), raw))
            if len(ahead) > WORKERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for one in ahead:
            one.cancel()
    yield text


class Pieces:
    """A stream made of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._piece, self._at = pieces, b"", 0

    def read(self, size: int) -> bytes:
        """At most so many bytes, at least one before the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        return data


# --- what comes in order -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _encrypted(place: Path, identity: str, limits: Limits, progress: Progress) -> Iterator[Source]:
    beside = False
    if place.with_name(place.name + ".sha256").exists():
        digest = hashlib.sha256()
        with open(place, "rb") as packed:
            for block in iter(lambda: packed.read(_READ), b""):
                digest.update(block)
        beside = _beside(place, digest.hexdigest())
    progress.expect(bytes=place.stat().st_size)
    name = str(place)
    with decrypting(place, identity) as stream:
        head = exactly(stream, 4, name)
        codec = _codec(place, head)
        hashing = _Hashing(_Pushed(head, stream), codec.trailer_size, progress)
        source = Source(None, encrypted=True, beside=beside)
        source.stream = _Guard(_stream(hashing, codec, name), hashing, limits, name)
        yield source
        while hashing.read(_READ):
            pass
        hashing.finish(codec)
        source.size, source.sha256 = hashing.size, hashing.sha256
        if hashing.trailer is not None:
            _vouch(place, codec, hashing)
            source.vouched = True
        elif codec.name == "zstd":
            raise Refused("trailer", f"{place} is packed with zstd and has no trailer of juju-dr: it was cut, or is of others")


class _Pushed:
    """A stream with its first bytes put back."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int) -> bytes:
        """At most so many bytes."""
        head, self._head = self._head, b""
        data: bytes = head or self._stream.read(size)
        return data


def _stream(stream: Any, codec: Codec, where: str) -> Any:
    if isinstance(codec, Zstd):
        return _Frames(stream, codec, where)
    assert isinstance(codec, Gzip)
    return Inflate(stream, codec, where)


class Inflate:
    """Members of gzip in order, each with its checksum and length; nothing may be between or behind them."""

    def __init__(self, stream: Any, codec: Gzip, where: str) -> None:
        self._stream, self._codec, self._where = stream, codec, where
        self._unpacker: Any = None
        self._packed = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes, at least one before the end."""
        while True:
            self._packed = self._packed or self._stream.read(_READ)
            if self._unpacker is None:
                if not self._packed:
                    return b""
                self._unpacker = self._codec.unpacker()
            try:
                data: bytes = self._unpacker.decompress(self._packed, size)
            except self._codec.errors as error:
                raise Refused("damaged", f"{self._where} is damaged: {error}") from error
            if self._unpacker.eof:
                self._packed, self._unpacker = self._unpacker.unused_data, None
            else:
                self._packed = self._unpacker.unconsumed_tail
            if data:
                return data
            if not self._packed and self._unpacker is not None and not self._more():
                raise Refused("cut", f"{self._where} ends early: it was cut")

    def _more(self) -> bool:
        self._packed = self._stream.read(_READ)
        return bool(self._packed)


class _Frames:
    """Frames of zstd in order. The library does not tell where one is cut: the trailer does."""

    def __init__(self, stream: Any, codec: Zstd, where: str) -> None:
        self._reader, self._codec, self._where = codec.reader(stream), codec, where

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._reader.read(size)
        except self._codec.errors as error:
            raise Refused("damaged", f"{self._where} is damaged: {error}") from error
        return data


class _Guard:
    """Ends what unpacks to too much, as soon as it does."""

    def __init__(self, stream: Any, packed: Any, limits: Limits, where: str) -> None:
        self._stream, self._packed, self._limits, self._where = stream, packed, limits, where
        self._made = 0

    def read(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        self._made += len(data)
        if self._made > self._limits.total_bytes:
            raise Refused("too-large", f"{self._where} unpacks to more than {self._limits.total_bytes} bytes")
        if self._made > _UNSUSPICIOUS and self._made > self._limits.ratio * self._taken():
            raise Refused("bomb", f"{self._where} unpacks to more than {self._limits.ratio} times its size")
        return data

    def _taken(self) -> int:
        return int(self._packed.size if isinstance(self._packed, _Hashing) else self._packed.tell())
