"""The archive: written in Juju's own layout with a manifest, read to its last byte before anything in it is believed."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, Iterator, Sequence

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from .archive_write import MANIFEST, PREFIX, ArchiveWriter, Written, file_blocks, root_tar
from .backup_metadata import BackupMetadata, format_metadata
from .bson_stream import split
from .codec import codec
from .collection_metadata import collection_of
from .collection_metadata import parse_metadata as parse_collection
from .errors import JujuDrError
from .foreign import AGAIN, DECODED, Contents, describe

SMALL_FILE = 4 * 1024 * 1024
CHUNK = 1024 * 1024


class _Hashing(io.RawIOBase):
    """Passes bytes through and hashes them."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self.sha256 = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self._count(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._count(bytes(data))
        return len(data)

    def _count(self, data: bytes) -> None:
        self.sha256.update(data)
        self.size += len(data)


# --- writing -----------------------------------------------------------------------------------------------------------


def write(staging: Path, files: Sequence[tuple[Path, str]], metadata: BackupMetadata, dest_dir: Path, name: str) -> Written:
    """Makes one archive of the staging folder and the host's files.

    :param staging: holds ``dump/`` and ``juju-dr/``.
    :param files: path on the host, name in root.tar.
    :param name: file name, ending in .tar.gz; it appears only when the archive is whole and on disk.
    """
    root: list[dict[str, Any]] = []
    writer = ArchiveWriter(dest_dir / (name + ".partial"), codec("gzip"))
    try:
        writer.add("metadata.json", [format_metadata(metadata).encode("utf-8")])
        writer.add("root.tar", root_tar(files, root))
        for folder in ("dump", "juju-dr"):
            for path in sorted(p for p in (staging / folder).rglob("*") if p.is_file()):
                writer.add(path.relative_to(staging).as_posix(), file_blocks(path))
        head = {"controller_uuid": metadata.controller_uuid, "juju_version": metadata.version, "root": root}
        return writer.finish(head, dest_dir / name)
    except BaseException:
        writer.discard()
        raise


# --- reading -----------------------------------------------------------------------------------------------------------


@dataclass
class ArchiveInfo:
    """What an archive is, after every byte of it was read.

    :ivar format: as in :class:`.foreign.Described`, like all that says what the archive is of.
    :ivar addresses: where any controller machine of the archive was reached.
    :ivar endpoints: every host:port at which one may still answer, from all that names one.
    :ivar unproven: what the format could not prove, one sentence each.
    """

    path: str
    size: int = 0
    sha256: str = ""
    format: str = ""
    controller_uuid: str = ""
    model_uuid: str = ""
    machine_id: str = ""
    version: str = ""
    generation: str = ""
    hostname: str = ""
    instance_id: str = ""
    started: str = ""
    api_port: int = 17070
    state_port: int = 37017
    ca_cert: str = ""
    server_cert: str = ""
    controllers: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)
    has_dqlite: bool = False
    has_agent_binary: bool = False
    has_logs: bool = False
    cannot_restore: str = ""
    collections: int = 0
    documents: int = 0
    unpacked_bytes: int = 0
    unproven: list[str] = field(default_factory=list)


@dataclass
class _Read:
    """What one pass over an archive collects."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    root: dict[str, tuple[int, str]] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    chunks: dict[str, int] = field(default_factory=dict)


def inspect(path: str, expected_controller_uuid: str = "") -> ArchiveInfo:
    """Reads an archive to its last byte; writes nothing.

    :raises JujuDrError: whatever is wrong with it, one sentence and the cure.
    """
    info, read = ArchiveInfo(path), _Read()
    with _opened(path, info) as tar:
        for member in tar:
            name = _safe_name(member, PREFIX)
            if member.isdir():
                continue
            content = tar.extractfile(member)
            assert content is not None
            hashed = _Hashing(content)
            _read_member(read, name, hashed)
            _drain(hashed)
            read.files[name] = (hashed.size, hashed.sha256.hexdigest())
    _judge(info, read)
    if expected_controller_uuid and info.controller_uuid != expected_controller_uuid:
        raise JujuDrError(
            f"{path} is of controller {info.controller_uuid}, expected was {expected_controller_uuid}",
            "Name the right archive, or the right expected_controller_uuid",
        )
    return info


@contextlib.contextmanager
def _opened(path: str, info: ArchiveInfo) -> Iterator[tarfile.TarFile]:
    """The archive as a stream of members; afterwards drained, so that gzip's own checks are made too."""
    place = Path(path)
    if place.is_dir():
        raise JujuDrError(f"{path} is a folder", "Name the archive itself, juju-backup-….tar.gz")
    if not place.exists():
        raise JujuDrError(f"There is no archive at {path}", "Check the path; it is looked up on the control machine")
    with open(path, "rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            raise JujuDrError(f"{path} is not a tar.gz: it does not begin as gzip does", "Name a juju-backup-….tar.gz")
        raw.seek(0)
        hashed = _Hashing(raw)
        packed = gzip.GzipFile(fileobj=hashed, mode="rb")
        try:
            with tarfile.open(fileobj=packed, mode="r|") as tar:
                yield tar
            _drain(packed)
        except EOFError as error:
            raise JujuDrError(f"{path} ends early, after {hashed.size} bytes: it was cut", AGAIN) from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise JujuDrError(f"{path} is damaged: {error}", AGAIN) from error
        except tarfile.TarError as error:
            raise JujuDrError(f"{path} is no whole tar inside: {error}", AGAIN) from error
        except (BSONError, LookupError, TypeError, ValueError) as error:
            # Damage reaches our own parsing before gzip's checksum at the end of the member can tell.
            raise JujuDrError(f"{path} is damaged: {error}", AGAIN) from error
        # What lies behind the last member belongs to the file, too.
        _drain(hashed)
    info.size, info.sha256 = hashed.size, hashed.sha256.hexdigest()
    sidecar = place.with_name(place.name + ".sha256")
    if sidecar.exists():
        if sidecar.read_text(encoding="utf-8").split()[:1] != [info.sha256]:
            raise JujuDrError(f"{path} is not what {sidecar.name} says it is", AGAIN)
    else:
        info.unproven.append("no .sha256 file lies beside it")


def _drain(stream: Any) -> None:
    while stream.read(CHUNK):
        pass


def _safe_name(member: tarfile.TarInfo, prefix: str = "") -> str:
    """The member's name, when it is harmless.

    :raises JujuDrError: it leads out of the tree, or is no file, folder or link.
    """
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or (prefix and name.parts[:1] != (prefix,)):
        raise JujuDrError(f"The archive holds {member.name!r}, which leads out of it", "Do not use this archive")
    kinds = member.isreg() or member.isdir() or (member.issym() and not prefix)
    if not kinds or (member.mode & (stat.S_ISUID | stat.S_ISGID) and member.isreg()):
        raise JujuDrError(f"The archive holds {member.name!r}, which is no plain file or folder", "Do not use this archive")
    return str(name)


def _read_member(read: _Read, name: str, content: _Hashing) -> None:
    if name in read.files:
        raise JujuDrError(f"The archive holds {name!r} twice", "Do not use this archive")
    inside = PurePosixPath(name).relative_to(PREFIX)
    if inside == PurePosixPath("root.tar"):
        _read_root(read, content)
    elif inside.suffix == ".bson":
        _read_collection(read, inside, content)
    elif inside.suffix == ".json":
        limit = SMALL_FILE if inside.name != "manifest.json" else 64 * SMALL_FILE
        read.small[str(inside)] = _at_most(content, limit, name)
        if inside.name.endswith(".metadata.json"):
            parse_collection(read.small.pop(str(inside)).decode("utf-8"), name)
            read.counts.setdefault(f"{inside.parent.name}.{collection_of(inside.name[: -len('.metadata.json')])}", -1)


def _at_most(content: Any, limit: int, name: str) -> bytes:
    data: bytes = content.read(limit + 1)
    if len(data) > limit:
        raise JujuDrError(f"{name} in the archive is larger than such a file can be", "Do not use this archive")
    return data


def _read_root(read: _Read, content: Any) -> None:
    try:
        with tarfile.open(fileobj=content, mode="r|") as root:
            for member in root:
                name = _safe_name(member)
                if not member.isreg():
                    continue
                stream = root.extractfile(member)
                assert stream is not None
                hashed = _Hashing(stream)
                if name.endswith("/agent.conf") or name.endswith("/ca.crt"):
                    read.small["root/" + name] = _at_most(hashed, SMALL_FILE, name)
                _drain(hashed)
                read.root[name] = (hashed.size, hashed.sha256.hexdigest())
    except tarfile.TarError as error:
        raise JujuDrError(f"root.tar in the archive is damaged: {error}", AGAIN) from error


def _read_collection(read: _Read, inside: PurePosixPath, content: Any) -> None:
    collection = collection_of(inside.stem)
    ns = f"{inside.parent.name}.{collection}" if inside.parts[0] == "dump" and len(inside.parts) == 3 else str(inside)
    documents = 0
    for raw in split(content, str(inside)):
        documents += 1
        if ns.startswith("juju.") and collection in DECODED:
            read.documents.setdefault(collection, []).append(bson.decode(raw))
        elif ns == "blobstore.blobstore.files":
            document = bson.decode(raw)
            read.blobs[repr(document["_id"])] = int(document["length"])
        elif ns == "blobstore.blobstore.chunks":
            chunk = RawBSONDocument(raw)
            key = repr(chunk["files_id"])
            read.chunks[key] = read.chunks.get(key, 0) + len(chunk["data"])
    read.counts[ns] = documents


def _judge(info: ArchiveInfo, read: _Read) -> None:
    files = {str(PurePosixPath(name).relative_to(PREFIX)): size for name, (size, _) in read.files.items()}
    root = {name: size for name, (size, _) in read.root.items()}
    described = describe(info.path, Contents(files, root, read.small, read.documents))
    beside = info.unproven
    for one in fields(described):
        setattr(info, one.name, getattr(described, one.name))
    info.unproven = beside + described.unproven
    info.collections = sum(1 for ns in read.counts if ".bson" not in ns)
    info.documents = sum(n for n in read.counts.values() if n > 0)
    info.unpacked_bytes = sum(size for size, _ in read.files.values())
    _compare(info, read)
    _unproven(info, read)


def _compare(info: ArchiveInfo, read: _Read) -> None:
    """Every file against the archive's own manifest."""
    if info.format != "juju-dr":
        return
    manifest = json.loads(read.small["juju-dr/manifest.json"])
    files = {one["name"]: (one["size"], one["sha256"]) for one in manifest["files"]}
    root = {one["name"]: (one["size"], one["sha256"]) for one in manifest["root"] if "sha256" in one}
    seen = {name: value for name, value in read.files.items() if name != MANIFEST}
    wrong = sorted(set(files.items()) ^ set(seen.items())) + sorted(set(root.items()) ^ set(read.root.items()))
    if wrong:
        raise JujuDrError(f"{info.path} does not hold what its manifest says, first at {wrong[0][0]}", AGAIN)


def _unproven(info: ArchiveInfo, read: _Read) -> None:
    missing = [blob for blob, length in read.blobs.items() if read.chunks.get(blob, 0) != length]
    if missing:
        info.unproven.append(f"{len(missing)} of {len(read.blobs)} blobs (charms, agent binaries) are not complete in it")


# --- unpacking ---------------------------------------------------------------------------------------------------------


def unpack(path: str, dest: str, sha256: str) -> dict[str, str]:
    """Unpacks an archive into a new private folder, once it was read whole and is what was verified elsewhere.

    :param dest: folder that is made, 0700.
    :returns: paths of ``dump``, ``root`` and ``admin`` below it.
    :raises JujuDrError: the archive is not the one that was verified, or anything :func:`inspect` finds.
    """
    info = inspect(path)
    if sha256 and info.sha256 != sha256:
        raise JujuDrError(f"{path} is not the archive that was verified: it changed on its way", "Run the restore again")
    target = Path(dest)
    target.mkdir(mode=0o700)
    root = target / "root"
    root.mkdir(mode=0o700)
    with _opened(path, ArchiveInfo(path)) as tar:
        for member in tar:
            inside = PurePosixPath(_safe_name(member, PREFIX)).relative_to(PREFIX)
            if member.isdir():
                continue
            content = tar.extractfile(member)
            assert content is not None
            if str(inside) == "root.tar":
                _unpack_root(content, root)
            else:
                place = target / inside
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
                    shutil.copyfileobj(content, output, CHUNK)
    return {"dump": str(target / "dump"), "root": str(root), "admin": str(target / "juju-dr" / "admin")}


def _unpack_root(content: Any, root: Path) -> None:
    folders = []
    with tarfile.open(fileobj=content, mode="r|") as tar:
        for member in tar:
            place = root / _safe_name(member)
            _no_link_above(root, place)
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if member.isdir():
                place.mkdir(mode=0o700, exist_ok=True)
                folders.append((place, member))
            elif member.issym():
                place.symlink_to(member.linkname)
            else:
                stream = tar.extractfile(member)
                assert stream is not None
                with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as output:
                    shutil.copyfileobj(stream, output, CHUNK)
                _take_over(place, member)
    for place, member in reversed(folders):
        _take_over(place, member)


def _no_link_above(root: Path, place: Path) -> None:
    for parent in place.relative_to(root).parents:
        if (root / parent).is_symlink():
            raise JujuDrError(f"The archive writes through the link {parent}", "Do not use this archive")


def _take_over(place: Path, member: tarfile.TarInfo) -> None:
    """Owner by name where this host knows it, else by number; mode without set-uid; time."""
    if os.geteuid() == 0:
        uid, gid = member.uid, member.gid
        with contextlib.suppress(LookupError, OSError):
            shutil.chown(place, member.uname or uid, member.gname or gid)
            uid, gid = -1, -1
        os.chown(place, uid, gid)
    place.chmod(member.mode & 0o777)
    os.utime(place, (member.mtime, member.mtime))
