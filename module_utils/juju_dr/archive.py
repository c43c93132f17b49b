"""The archive: read to its last byte before anything in it is believed, and unpacked into a private folder only."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Iterator, Mapping, cast

import bson
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from .archive_source import MANIFEST_BYTES, Source, opened, parse_manifest
from .archive_tar import LIMITS, Body, Limits, Member, members
from .archive_write import MANIFEST, PREFIX
from .bson_stream import BsonCut, raw_documents, runs
from .collection_metadata import collection_of
from .collection_metadata import parse_metadata as parse_collection
from .errors import JujuDrError
from .foreign import DECODED, Contents, describe, wanted
from .progress import SILENT, Progress
from .verdict import Refused

SMALL_FILE = 4 * 1024 * 1024
_RUN = 1024 * 1024
_ANY = Limits(2**62, 2**40, 2**40)
# What the archive and its manifest must say alike of each file.
_COMPARED = ("name", "size", "sha256", "mode", "uid", "gid")


@dataclass
class ArchiveInfo:
    """What an archive is, after every byte of it was read.

    :ivar format: as in :class:`.foreign.Described`, like all that says what the archive is of.
    :ivar addresses: where any controller machine of the archive was reached.
    :ivar endpoints: every host:port at which one may still answer, from all that names one.
    :ivar sha256: of the archive; of an encrypted one, what is inside.
    :ivar manifest: what our own says of itself besides the files, such as the oplog window and the tool's version.
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
    has_files: bool = True
    has_logs: bool = False
    cannot_restore: str = ""
    collections: int = 0
    documents: int = 0
    unpacked_bytes: int = 0
    root_bytes: int = 0
    encrypted: bool = False
    manifest: dict[str, Any] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)


@dataclass
class _Read:
    """What one pass over an archive collects: entries as the manifest has them, in order."""

    files: list[dict[str, Any]] = field(default_factory=list)
    root: list[dict[str, Any]] = field(default_factory=list)
    small: dict[str, bytes] = field(default_factory=dict)
    documents: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    blobs: dict[str, int] = field(default_factory=dict)
    chunks: dict[str, int] = field(default_factory=dict)
    manifest: Mapping[str, Any] | None = None


def inspect(
    path: str,
    *,
    identity: str = "",
    expected_controller_uuid: str = "",
    limits: Limits = LIMITS,
    progress: Progress = SILENT,
) -> ArchiveInfo:
    """Reads an archive to its last byte; writes nothing.

    :param identity: path of the secret key, for an encrypted one.
    :raises Refused: whatever is wrong with it, one sentence and the cure.
    """
    with _refusing(path):
        with opened(path, identity, limits, progress) as source:
            read = _walk(path, source, limits)
        info = _judge(path, source, read)
    if expected_controller_uuid and info.controller_uuid != expected_controller_uuid:
        raise Refused(
            "other-controller", f"{path} is of controller {info.controller_uuid}, expected was {expected_controller_uuid}"
        )
    return info


def unpack(
    path: str,
    dest: str,
    sha256: str,
    *,
    identity: str = "",
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Unpacks an archive into a new private folder, which stays only when all of the archive was read, is sound, and is what
    was verified elsewhere. Of our own archives that is known, from the digest, before the first byte is written.

    :param dest: folder that is made, 0700; it must not exist.
    :param sha256: of the archive that was verified; empty takes any, within the ordinary limits.
    :returns: paths of ``dump``, ``root`` and ``admin`` below it.
    :raises Refused: the archive is not the one that was verified, or anything :func:`inspect` finds.
    """
    target = Path(dest)
    if os.path.lexists(dest):
        raise Refused("exists", f"{dest} exists already")
    # What was verified was within the limits that were set there.
    limits = _ANY if sha256 else LIMITS
    with contextlib.ExitStack() as undo, _refusing(path):
        with opened(path, identity, limits, progress) as source:
            _same(path, source, sha256)
            target.mkdir(mode=0o700)
            undo.callback(shutil.rmtree, target, ignore_errors=True)
            _enough_room(source, target)
            read = _walk(path, source, limits, _Folder(target))
        _same(path, source, sha256)
        _judge(path, source, read)
        undo.pop_all()
    return {"dump": str(target / "dump"), "root": str(target / "root"), "admin": str(target / "juju-dr" / "admin")}


def files_of(path: str, identity: str = "") -> Iterator[tuple[str, Body]]:
    """Every file of an archive and of its root.tar in order, without writing any: its name below ``juju-backup/``, those in
    root.tar below ``root/``, and its content, to be read before the next is asked for.

    :raises Refused: it is damaged, or unsafe.
    """
    with _refusing(path), opened(path, identity) as source:
        for member, body in members(source.stream, path, LIMITS, PREFIX):
            name = str(PurePosixPath(member.name).relative_to(PREFIX))
            if name == "root.tar":
                for inner, content in members(body, f"root.tar in the archive {path}", LIMITS):
                    if inner.kind == "file":
                        yield f"root/{inner.name}", content
            elif member.kind == "file":
                yield name, body


def _same(path: str, source: Source, sha256: str) -> None:
    if sha256 and source.sha256 and source.sha256 != sha256:
        raise Refused("changed", f"{path} is not the archive that was verified: it changed on its way")


def _enough_room(source: Source, target: Path) -> None:
    if source.manifest is None:
        return
    needed, free = sum(one["size"] for one in source.manifest["files"]), shutil.disk_usage(target).free
    if free < needed:
        raise Refused("no-room", f"{free // 2**20} MiB are free at {target}, {needed // 2**20} MiB are needed")


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    """Whatever reading an archive can raise, as the one thing that is told."""
    try:
        yield
    except Refused:
        raise
    except BsonCut as error:
        raise Refused("documents", error.problem, error.cure) from error
    except JujuDrError as error:
        raise Refused("no-backup", error.problem, error.cure) from error
    except (BSONError, LookupError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise Refused("damaged", f"{path} is damaged: {type(error).__name__}: {error}") from error
    except OSError as error:
        raise Refused("unreadable", f"{error.filename or path} cannot be read or written: {error.strerror}") from error


def _walk(path: str, source: Source, limits: Limits, folder: _Folder | None = None) -> _Read:
    """Reads every member once, and puts it into the folder where there is one."""
    read = _Read(manifest=source.manifest)
    for member, body in members(source.stream, path, limits, PREFIX):
        if member.kind == "folder":
            continue
        inside = PurePosixPath(member.name).relative_to(PREFIX)
        if inside == PurePosixPath("root.tar"):
            _read_root(path, read, body, limits, folder)
        else:
            with folder.file(inside) if folder else contextlib.nullcontext() as output:
                _read_file(read, member, inside, _Tee(body, output))
        entry: dict[str, Any] = {"name": member.name, "size": member.size, "sha256": body.sha256.hexdigest()}
        read.files.append({**entry, "mode": member.mode, "uid": member.uid, "gid": member.gid})
    return read


class _Tee:
    """Reads a member, and writes what is read to a file when there is one."""

    def __init__(self, body: Body, output: IO[bytes] | None) -> None:
        self._body, self._output = body, output

    def read(self, size: int) -> bytes:
        """What is at hand, at most so many bytes; none only at the member's end."""
        return self._written(self._body.some(size))

    def whole(self) -> bytes:
        """All that is left."""
        return self._written(self._body.read())

    def drain(self) -> None:
        while self.read(_RUN):
            pass

    def _written(self, data: bytes) -> bytes:
        if self._output is not None:
            self._output.write(data)
        return data


def _read_file(read: _Read, member: Member, inside: PurePosixPath, content: _Tee) -> None:
    """What a file is, is known from its name."""
    if inside.suffix == ".bson":
        namespace = _namespace(inside)
        seen = _wanted(read, namespace)
        documents = 0
        for run, number in runs(cast("BinaryIO", content), _RUN, str(inside)):
            documents += number
            for raw in raw_documents(run) if seen else ():
                seen(raw)
        read.counts[namespace] = documents
    elif inside.suffix == ".json":
        if member.size > (MANIFEST_BYTES if member.name == MANIFEST else SMALL_FILE):
            raise Refused("too-large", f"{member.name} in the archive is larger than such a file can be")
        _keep(read, inside, content.whole())
    else:
        content.drain()


def _namespace(inside: PurePosixPath) -> str:
    if inside.parts[0] == "dump" and len(inside.parts) == 3:
        return f"{inside.parent.name}.{collection_of(inside.stem)}"
    return str(inside)


def _wanted(read: _Read, namespace: str) -> Any:
    """What is to be known of the documents of a collection; None when only that they are whole."""
    database, _, collection = namespace.partition(".")

    def decoded(raw: bytes) -> None:
        kept = read.documents.setdefault(collection, [])
        if wanted(collection, raw):
            kept.append(bson.decode(raw))

    def blob(raw: bytes) -> None:
        document = bson.decode(raw)
        read.blobs[repr(document["_id"])] = int(document["length"])

    def chunk(raw: bytes) -> None:
        document = RawBSONDocument(raw)
        key = repr(document["files_id"])
        read.chunks[key] = read.chunks.get(key, 0) + len(document["data"])

    if database == "juju" and collection in DECODED:
        return decoded
    return {"blobstore.blobstore.files": blob, "blobstore.blobstore.chunks": chunk}.get(namespace)


def _keep(read: _Read, inside: PurePosixPath, content: bytes) -> None:
    if not inside.name.endswith(".metadata.json"):
        read.small[str(inside)] = content
        return
    parse_collection(content.decode("utf-8"), str(inside))
    read.counts.setdefault(f"{inside.parent.name}.{collection_of(inside.name[: -len('.metadata.json')])}", -1)


def _read_root(path: str, read: _Read, content: Body, limits: Limits, folder: _Folder | None) -> None:
    for member, body in members(content, f"root.tar in the archive {path}", limits):
        entry: dict[str, Any] = {"name": member.name, "mode": member.mode, "uid": member.uid, "gid": member.gid}
        with folder.rooted(member) if folder else contextlib.nullcontext() as output:
            stream = _Tee(body, output)
            if member.kind == "file" and member.name.endswith(("/agent.conf", "/ca.crt")):
                if member.size > SMALL_FILE:
                    raise Refused("too-large", f"{member.name} in root.tar is larger than such a file can be")
                read.small["root/" + member.name] = stream.whole()
            stream.drain()
        if member.kind == "file":
            entry.update(size=member.size, sha256=body.sha256.hexdigest())
        elif member.kind == "link":
            entry["link"] = member.target
        read.root.append(entry)
    if folder is not None:
        folder.close()


# --- the verdict -------------------------------------------------------------------------------------------------------


def _judge(path: str, source: Source, read: _Read) -> ArchiveInfo:
    info = ArchiveInfo(path, source.size, source.sha256, encrypted=source.encrypted)
    if not source.beside:
        info.unproven.append("no .sha256 file lies beside it")
    _compare(path, source, read)
    files = {str(PurePosixPath(one["name"]).relative_to(PREFIX)): int(one["size"]) for one in read.files}
    root = {one["name"]: int(one["size"]) for one in read.root if "size" in one}
    described = describe(path, Contents(files, root, read.small, read.documents))
    for one in fields(described):
        if one.name != "unproven":
            setattr(info, one.name, getattr(described, one.name))
    info.unproven += described.unproven
    info.has_logs = any(name.startswith("var/log/juju/") for name in root)
    info.collections = sum(1 for namespace in read.counts if ".bson" not in namespace)
    info.documents = sum(number for number in read.counts.values() if number > 0)
    info.unpacked_bytes, info.root_bytes = sum(files.values()), files.get("root.tar", 0)
    if read.manifest is not None:
        info.manifest = {key: value for key, value in read.manifest.items() if key not in ("files", "root")}
    missing = [blob for blob, length in read.blobs.items() if read.chunks.get(blob, 0) != length]
    if missing:
        info.unproven.append(f"{len(missing)} of {len(read.blobs)} blobs (charms, agent binaries) are not complete in it")
    return info


def _compare(path: str, source: Source, read: _Read) -> None:
    """Every file against the archive's own manifest, for which the trailer vouches."""
    text = read.small.get("juju-dr/manifest.json")
    if text is None and not source.vouched:
        return
    if text is None or not source.vouched:
        raise Refused("trailer", f"{path} is of juju-dr, and its end is missing: it was cut")
    read.manifest = read.manifest or parse_manifest(text, path)
    told = [{key: one[key] for key in _COMPARED} for one in read.manifest["files"]]
    listed = [one for one in read.manifest["root"] if "left_out" not in one]
    seen = [one for one in read.files if one["name"] != MANIFEST]
    for expected, found in ((told, seen), (listed, read.root)):
        for one, other in zip(expected, found):
            if one != other:
                raise Refused("manifest", f"{path} does not hold what its manifest says, first at {other['name']}")
        if len(expected) != len(found):
            raise Refused("manifest", f"{path} does not hold what its manifest says: {len(found)} of {len(expected)} files")
    for one in read.manifest["files"]:
        namespace = _namespace(PurePosixPath(one["name"]).relative_to(PREFIX))
        if "documents" in one and read.counts.get(namespace) != one["documents"]:
            raise Refused("manifest", f"{path} does not hold as many documents as its manifest says: {one['name']}")


# --- unpacking ---------------------------------------------------------------------------------------------------------


class _Folder:
    """Where files are unpacked to. :func:`.archive_tar.members` has seen to it that every name stays inside."""

    def __init__(self, target: Path) -> None:
        self._target, self._root = target, target / "root"
        self._root.mkdir(mode=0o700)
        self._folders: list[tuple[Path, Member]] = []

    @contextlib.contextmanager
    def file(self, inside: PurePosixPath) -> Iterator[IO[bytes]]:
        """A new file of the archive, closed to others."""
        place = self._target / inside
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _new_file(place) as output:
            yield output

    @contextlib.contextmanager
    def rooted(self, member: Member) -> Iterator[IO[bytes] | None]:
        """A new member of root.tar, with owner, mode and time; a file to be written where it is one."""
        place = self._root / member.name
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if member.kind == "file":
            with _new_file(place) as output:
                yield output
            _take_over(place, member)
            return
        if member.kind == "folder":
            place.mkdir(mode=0o700, exist_ok=True)
            self._folders.append((place, member))
        else:
            place.symlink_to(member.target)
        yield None

    def close(self) -> None:
        """Folders last: a closed one could not be filled."""
        for place, member in reversed(self._folders):
            _take_over(place, member)


def _new_file(place: Path) -> IO[bytes]:
    return open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")


def _take_over(place: Path, member: Member) -> None:
    """Owner by name where this host knows it, else by number; mode; time."""
    if os.geteuid() == 0:
        uid, gid = member.uid, member.gid
        with contextlib.suppress(LookupError, OSError):
            shutil.chown(place, member.uname or uid, member.gname or gid)
            uid, gid = -1, -1
        os.chown(place, uid, gid)
    place.chmod(member.mode & 0o777)
    os.utime(place, (member.mtime, member.mtime))
