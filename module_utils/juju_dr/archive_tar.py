"""A tar read strictly: to its last byte, every header, every byte of padding, and nothing that a restore must not unpack.

Python's tarfile parses a header here, and no more: its reader ends in silence at a header that is damaged.
"""

from __future__ import annotations

import posixpath
import tarfile
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Iterator

from .digest import Digest
from .verdict import Refused

BLOCK = tarfile.BLOCKSIZE
PIECE = 1024 * 1024
_ZEROS = b"\0" * BLOCK
# What a Linux host can have.
_LONGEST_PART, _LONGEST_NAME = 255, 4096
_LONGEST_RECORD = 64 * 1024
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
# Folders that a controller's files are in; links among them are the machine's own.
_TREES = (
    ("var", "lib", "juju"),
    ("var", "log", "juju"),
    ("var", "snap", "juju-db"),
    ("etc", "systemd", "system"),
    ("etc", "init"),
)
# What a link may name on any host: programs and units of the system. Nothing is written through a link.
_SYSTEM = (("usr",), ("lib",), ("lib64",), ("bin",), ("sbin",), ("snap",), ("dev", "null"))


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    :param total_bytes: all of its files together.
    :param ratio: unpacked bytes for one packed byte, beyond the first 64 MiB. It guards where no manifest tells sizes before.
    :param files: files, folders and links, of the archive and of root.tar each.
    """

    total_bytes: int = 2**42
    ratio: int = 250
    files: int = 2_000_000


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """One entry of a tar, known to be harmless.

    :param kind: ``file``, ``folder`` or ``link``.
    :param mode: permissions only.
    :param target: of a link, as written.
    """

    name: str
    kind: str
    size: int
    mode: int
    uid: int
    gid: int
    uname: str
    gname: str
    mtime: int
    target: str


class Body:
    """The content of one member; what is not read of it is read past.

    :ivar sha256: of what was read so far.
    """

    def __init__(self, stream: Any, size: int, where: str, hasher: Executor) -> None:
        self._stream, self._left, self._where = stream, size, where
        self.sha256 = Digest(hasher)

    def read(self, size: int = -1) -> bytes:
        """So many bytes; fewer only at the member's end."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = exactly(self._stream, wanted, self._where)
        self._left -= wanted
        self.sha256.update(data)
        return data

    def some(self, size: int) -> bytes:
        """What is at hand, at most so many bytes: nothing is joined for it. None only at the member's end."""
        wanted = min(size, self._left)
        data = (self._stream.read(wanted) or exactly(self._stream, wanted, self._where)) if wanted else b""
        self._left -= len(data)
        self.sha256.update(data)
        return data

    def blocks(self) -> Iterator[bytes]:
        """What is left, in pieces."""
        while self._left:
            yield self.some(PIECE)


def exactly(stream: Any, size: int, where: str) -> bytes:
    """That many bytes of a stream.

    :raises Refused: there are fewer.
    """
    data: bytes = stream.read(size) if size else b""
    if len(data) == size:
        return data
    pieces = [data]
    while data and sum(map(len, pieces)) < size:
        data = stream.read(size - sum(map(len, pieces)))
        pieces.append(data)
    data = b"".join(pieces)
    if len(data) != size:
        raise Refused("cut", f"{where} ends early: it was cut")
    return data


def members(stream: Any, where: str, limits: Limits, prefix: str = "") -> Iterator[tuple[Member, Body]]:
    """Every member of a tar, its body to be read before the next is asked for.

    :param stream: has ``read``; read to its end.
    :param where: for messages.
    :param prefix: the folder that all of it must be in; links are allowed only without.
    :raises Refused: at the first thing that is damaged or unsafe.
    """
    with ThreadPoolExecutor(1) as hasher:
        yield from _members(stream, where, limits, prefix, hasher)


def _members(stream: Any, where: str, limits: Limits, prefix: str, hasher: Executor) -> Iterator[tuple[Member, Body]]:
    known, records = _Known(where, limits), _Records(where)
    while True:
        head = exactly(stream, BLOCK, where)
        if head == _ZEROS:
            records.none_left()
            _end(stream, where)
            return
        try:
            info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise Refused("damaged", f"{where} is no whole tar inside: {error}") from error
        if records.takes(info, stream):
            continue
        records.apply(info)
        member = _member(info, where, prefix)
        known.add(member)
        if not 0 <= info.size <= limits.total_bytes:
            raise Refused("too-large", f"{where} holds {member.name!r} of {info.size} bytes")
        body = Body(stream, member.size, where, hasher)
        yield member, body
        for _ in body.blocks():
            pass
        if exactly(stream, -member.size % BLOCK, where).strip(b"\0"):
            raise Refused("damaged", f"{where} is damaged behind {member.name!r}")


def _end(stream: Any, where: str) -> None:
    if exactly(stream, BLOCK, where) != _ZEROS:
        raise Refused("damaged", f"{where} is damaged: only half of its end is there")
    while True:
        rest = stream.read(PIECE)
        if not rest:
            return
        if rest.strip(b"\0"):
            raise Refused("damaged", f"{where} goes on behind its end")


class _Records:
    """What comes before a header and belongs to it: long names of GNU tar, records of PAX."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: dict[str, str] = {}

    def takes(self, info: tarfile.TarInfo, stream: Any) -> bool:
        """Whether this was such a thing; then it is read."""
        names = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
        if info.type not in names and info.type != tarfile.XHDTYPE:
            return False
        if not 0 <= info.size <= _LONGEST_RECORD:
            raise Refused("long-name", f"{self._where} holds a name of {info.size} bytes")
        data = exactly(stream, info.size, self._where)
        if exactly(stream, -info.size % BLOCK, self._where).strip(b"\0"):
            raise Refused("damaged", f"{self._where} is damaged behind a long name")
        found = self._pax(data) if info.type == tarfile.XHDTYPE else {names[info.type]: _text(data.rstrip(b"\0"))}
        if set(found) & set(self._found):
            raise Refused("duplicate", f"{self._where} names one member twice")
        self._found.update(found)
        return True

    def _pax(self, data: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        while data:
            number, _, _ = data.partition(b" ")
            length = int(number) if number.isdigit() and len(number) < 6 else 0
            record, data = data[len(number) + 1 : length], data[length:]
            key, equals, value = record[:-1].partition(b"=")
            if record[-1:] != b"\n" or not equals or _text(key) in found:
                raise Refused("damaged", f"{self._where} is no whole tar inside: bad PAX records")
            found[_text(key)] = _text(value)
        if any(key.startswith("GNU.sparse.") for key in found):
            raise Refused("sparse", f"{self._where} holds a sparse file")
        return found

    def apply(self, info: tarfile.TarInfo) -> None:
        found, self._found = self._found, {}
        info.name = found.get("path", info.name)
        info.linkname = found.get("linkpath", info.linkname)
        info.uname, info.gname = found.get("uname", info.uname), found.get("gname", info.gname)
        try:
            for key in ("size", "uid", "gid"):
                setattr(info, key, int(found.get(key, getattr(info, key))))
            info.mtime = int(float(found.get("mtime", info.mtime)))
        except (ValueError, OverflowError) as error:
            raise Refused("damaged", f"{self._where} is no whole tar inside: {error}") from error

    def none_left(self) -> None:
        if self._found:
            raise Refused("damaged", f"{self._where} is no whole tar inside: it ends behind a long name")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _member(info: tarfile.TarInfo, where: str, prefix: str) -> Member:
    kind = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(info.type, "file")
    told = f"{where} holds {info.name!r}"
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise Refused("sparse", f"{told}, a sparse file")
    if (kind == "file" and info.type not in _FILES) or (kind == "link" and prefix):
        raise Refused("unsafe-kind", f"{told}, which is no plain file or folder")
    if kind == "file" and info.mode & 0o6000:
        raise Refused("set-id", f"{told}, which is no plain file or folder: it is set-uid or set-gid")
    if kind != "file" and info.size:
        raise Refused("unsafe-kind", f"{told}, which is no plain file or folder: a {kind} with content")
    name = safe_name(info.name, where, kind)
    if prefix and PurePosixPath(name).parts[:1] != (prefix,):
        raise Refused("unsafe-name", f"{told}, which leads out of it: it is not below {prefix}/")
    if kind == "link" and not link_stays(name, info.linkname):
        raise Refused("unsafe-link", f"{told}, a link to {info.linkname!r}, which leads out of its tree")
    return Member(
        name, kind, info.size, info.mode & 0o1777, info.uid, info.gid, info.uname, info.gname, int(info.mtime), info.linkname
    )


def safe_name(name: str, where: str, kind: str = "file") -> str:
    """The name without decoration.

    :raises Refused: it leads out of the tree, or no host could have it.
    """
    path = PurePosixPath(name)
    told = f"{where} holds {name[:80]!r}"
    if path.is_absolute() or ".." in path.parts or "\0" in name or (kind != "folder" and (not path.parts or name[-1:] == "/")):
        raise Refused("unsafe-name", f"{told}, which leads out of it")
    if len(name) > _LONGEST_NAME or any(len(part.encode("utf-8", "surrogateescape")) > _LONGEST_PART for part in path.parts):
        raise Refused("long-name", f"{told}…, a name longer than a host can have")
    return str(path)


def link_stays(name: str, target: str) -> bool:
    """Whether a link of root.tar names something that belongs where it is: in the same folder tree of the controller's files,
    or a program or unit of the system. An absolute target is one of the host that is restored.

    :param name: of the link, without leading slash.
    """
    if not target or "\0" in target or len(target) > _LONGEST_NAME:
        return False
    above = [] if target.startswith("/") else list(PurePosixPath(name).parent.parts)
    for part in target.split("/"):
        if part == "..":
            if not above:
                return False
            above.pop()
        elif part not in ("", "."):
            above.append(part)
    parts = tuple(above)
    folder = PurePosixPath(name).parent.parts
    own = folder[:2] if folder[:1] == ("home",) else folder
    allowed: tuple[tuple[str, ...], ...] = (own, *_TREES, *_SYSTEM)
    return any(tree and parts[: len(tree)] == tree for tree in allowed)


class _Known:
    """The names seen so far: none twice, none below a link or a file."""

    def __init__(self, where: str, limits: Limits) -> None:
        self._where, self._limits = where, limits
        self._kinds: dict[str, str] = {}

    def add(self, member: Member) -> None:
        kinds, there = self._kinds, self._kinds.get(member.name)
        # A folder may be told again, or after what is in it.
        if there and (there, member.kind) != ("folder", "folder"):
            raise Refused("duplicate", f"{self._where} holds {member.name!r} twice")
        above = posixpath.dirname(member.name)
        while above and kinds.get(above) != "folder":
            if above in kinds:
                raise Refused("unsafe-path", f"{self._where} writes through the {kinds[above]} {above!r}")
            kinds[above] = "folder"
            above = posixpath.dirname(above)
        kinds[member.name] = member.kind
        if len(kinds) > self._limits.files:
            raise Refused("too-large", f"{self._where} holds more than {self._limits.files} files and folders")
