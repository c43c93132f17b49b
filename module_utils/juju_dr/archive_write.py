"""The archive, written: a tar in Juju's layout whose every file is a row of gzip members or zstd frames of its own.

A file is streamed in without its size being known: the member with its header is stored, so that it keeps its length, and is
filled in afterwards. Chunks are packed in parallel, in order, a few at a time. Headers are GNU tar's, which keep their length
whatever the size is (base-256 from 8 GiB) and take any bytes as a name; tar, Go's and Python's readers know them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, Iterable, Iterator, Mapping, Sequence

from .archive_tar import link_stays
from .codec import Codec, Trailer
from .errors import JujuDrError
from .files import sync_folder
from .memory import keep_freed
from .progress import SILENT, Progress

PREFIX = "juju-backup"
MANIFEST = f"{PREFIX}/juju-dr/manifest.json"
MANIFEST_FORMAT = 2
# Of juju-dr, as manifests tell it.
VERSION = "0.1"
# What is packed at once; a multiple of tar's block. Eight times as much makes an archive 0.1 % smaller, and holds 40 MiB more
# once a database is large enough to fill the queues.
CHUNK = 512 * 1024
BLOCK = tarfile.BLOCKSIZE
_READ = 1024 * 1024
# So much is written before the disk is asked to begin: at the end all of it is waited for.
_SYNC = 32 * 1024 * 1024


@dataclass(frozen=True)
class Written:
    """A finished archive.

    :param manifest: what it holds, as the archive's own manifest.json has it.
    """

    path: str
    size: int
    sha256: str
    manifest: Mapping[str, Any]


class ArchiveWriter:
    """An archive in the making. A failed one is left to the caller to remove (:meth:`discard`).

    :param path: made, 0600; must not exist.
    :param workers: threads that pack.
    :raises JujuDrError: from every method: the disk is full, or the file cannot be written.
    """

    def __init__(self, path: Path, codec: Codec, workers: int = 2, progress: Progress = SILENT) -> None:
        self._start(path, codec, workers, progress, os.O_CREAT | os.O_EXCL)
        self._mtime = int(time.time())
        self._entries: list[dict[str, Any]] = []
        self._folders: list[str] = []

    @classmethod
    def reopen(
        cls, path: Path, codec: Codec, state: Mapping[str, Any], workers: int = 2, progress: Progress = SILENT
    ) -> ArchiveWriter:
        """Goes on where :meth:`pause` stopped, in any process.

        :raises JujuDrError: the file is not as it was then.
        """
        writer = cls.__new__(cls)
        if state["codec"] != codec.name or path.stat().st_size != state["end"]:
            raise JujuDrError(f"{path} is not the archive that was begun: it has another length", "Begin the backup again")
        writer._start(path, codec, workers, progress, 0)
        writer._mtime, writer._entries, writer._folders = state["mtime"], list(state["files"]), list(state["folders"])
        writer._end = writer._stream.seek(0, os.SEEK_END)
        writer._hash_to(writer._end)
        return writer

    def _start(self, path: Path, codec: Codec, workers: int, progress: Progress, flags: int) -> None:
        keep_freed()
        self._path, self._codec, self._progress = path, codec, progress
        handle = _writing(path, lambda: os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600))
        self._stream: BinaryIO = os.fdopen(handle, "r+b")
        self._end = 0
        self._packers = ThreadPoolExecutor(workers)
        # Packed chunks that wait for their turn: as many as keep the threads busy.
        self._ahead = workers
        # Headers are filled in afterwards, so the file is hashed behind the writer, by one thread, in order. It also waits for
        # the disk, meanwhile.
        self._behind = ThreadPoolExecutor(1)
        self._digest = hashlib.sha256()
        self._hashed_to = self._synced_to = 0
        self._under_way: deque[Future[None]] = deque()

    def add(self, name: str, blocks: Iterable[bytes], facts: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        """Streams one file in.

        :param name: below ``juju-backup/``, or with it.
        :param blocks: its content, in pieces of any size.
        :param facts: asked after the last block for what else the manifest shall say of the file.
        :returns: the manifest's entry: ``name``, ``size``, ``sha256``, ``mode``, ``uid``, ``gid``, and ``members``, each
            ``[offset, packed, raw]`` in bytes. The first is the file's header, the others its content, filled up with
            zeros to a whole block of tar.
        """
        inside = name if name.startswith(PREFIX + "/") else f"{PREFIX}/{name}"
        if any(entry["name"] == inside for entry in self._entries) or ".." in PurePosixPath(inside).parts:
            raise JujuDrError(f"{inside} cannot be added to the archive", "Add each file once, below juju-backup/")
        above = self._new_folders(inside)
        content, chunks = hashlib.sha256(), _chunks(blocks)
        first, second = next(chunks, b""), next(chunks, None)
        small, size = second is None, 0
        header = above + self._header(inside, len(first))
        members = [self._write(self._codec.pack(header) if small else self._codec.stored(header), len(header))]
        waiting: deque[tuple[Future[bytes], int]] = deque()
        chunk: bytes | None = first
        while chunk:
            content.update(chunk)
            size += len(chunk)
            self._progress.add(bytes=len(chunk))
            padded = chunk + b"\0" * (-len(chunk) % BLOCK)
            waiting.append((self._packers.submit(self._codec.pack, padded), len(padded)))
            if len(waiting) > self._ahead:
                members.append(self._write_next(waiting))
            chunk, second = second or next(chunks, None), None
        while waiting:
            members.append(self._write_next(waiting))
        if not small:
            self._fill_in(members[0], above + self._header(inside, size))
        self._hash_to(self._end)
        entry = {"name": inside, "size": size, "sha256": content.hexdigest(), "mode": 0o600, "uid": 0, "gid": 0}
        entry.update(facts() if facts else {})
        entry["members"] = members
        self._entries.append(entry)
        return entry

    def _new_folders(self, name: str) -> bytes:
        """Headers of the folders above that are not there yet, closed to others."""
        made = b""
        for parent in reversed(list(PurePosixPath(name).parents)[:-1]):
            if str(parent) not in self._folders:
                self._folders.append(str(parent))
                made += self._header(f"{parent}/", 0, tarfile.DIRTYPE, 0o700)
        return made

    def _header(self, name: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o600) -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.mode, info.mtime = size, kind, mode, self._mtime
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def _write_next(self, waiting: deque[tuple[Future[bytes], int]]) -> list[int]:
        packed, raw = waiting.popleft()
        return self._write(packed.result(), raw)

    def _write(self, packed: bytes, raw: int) -> list[int]:
        _writing(self._path, lambda: self._stream.write(packed))
        member = [self._end, len(packed), raw]
        self._end += len(packed)
        if self._end - self._synced_to >= _SYNC:
            self._synced_to = self._end
            self._under_way.append(self._behind.submit(os.fdatasync, self._stream.fileno()))
        return member

    def _fill_in(self, member: Sequence[int], header: bytes) -> None:
        packed = self._codec.stored(header)
        assert len(packed) == member[1]
        _writing(self._path, self._stream.flush)
        _writing(self._path, lambda: os.pwrite(self._stream.fileno(), packed, member[0]))

    def _hash_to(self, end: int) -> None:
        _writing(self._path, self._stream.flush)
        self._under_way.append(self._behind.submit(self._hash_region, self._hashed_to, end))
        self._hashed_to = end
        while self._under_way and self._under_way[0].done():
            self._next_done()

    def _hash_region(self, at: int, end: int) -> None:
        while at < end:
            data = os.pread(self._stream.fileno(), min(_READ, end - at), at)
            if not data:
                raise JujuDrError(f"{self._path} became shorter while it was written", "Begin the backup again")
            self._digest.update(data)
            at += len(data)

    def _next_done(self) -> None:
        # An error of the disk is told once: whoever hears it must say it.
        _writing(self._path, self._under_way.popleft().result)

    def pause(self) -> dict[str, Any]:
        """Closes the file, on disk; what is returned (JSON can hold it) lets :meth:`reopen` go on."""
        self._settle()
        self._close()
        return {
            "codec": self._codec.name,
            "end": self._end,
            "mtime": self._mtime,
            "files": self._entries,
            "folders": self._folders,
        }

    def finish(self, head: Mapping[str, Any], dest: Path) -> Written:
        """Adds the manifest and the trailer, and gives the archive its name, with its digest beside it.

        :param head: what the manifest says besides the files; ``root`` lists what is in root.tar.
        :param dest: the archive's name; what was there is replaced in one step.
        """
        offset = self._end
        manifest = {
            "format": "juju-dr",
            "format_version": MANIFEST_FORMAT,
            **head,
            "compression": self._codec.name,
            "files": list(self._entries),
        }
        text = json.dumps(manifest, indent=1).encode("ascii")
        header = self._new_folders(MANIFEST) + self._header(MANIFEST, len(text))
        self._write(self._codec.pack(header), len(header))
        # tar ends with two empty blocks.
        text += b"\0" * (-len(text) % BLOCK + 2 * BLOCK)
        for at in range(0, len(text), CHUNK):
            piece = text[at : at + CHUNK]
            self._write(self._codec.pack(piece), len(piece))
        trailer = Trailer(offset, self._end - offset)
        hashed = self._codec.hashed_of_trailer(self._codec.trailer(trailer))
        self._hash_to(self._end)
        self._settle()
        self._digest.update(hashed)
        last = self._codec.trailer(Trailer(trailer.offset, trailer.length, self._digest.digest()))
        self._write(last, 0)
        self._digest.update(last[len(hashed) :])
        self._settle()
        self._close()
        digest = self._digest.hexdigest()
        beside = dest.with_name(dest.name + ".sha256")
        _writing(self._path, lambda: _write_beside(beside, f"{digest}  {dest.name}\n"))
        _writing(self._path, lambda: self._path.replace(dest))
        sync_folder(dest.parent)
        return Written(str(dest), self._end, digest, manifest)

    def discard(self) -> None:
        """Stops and removes the unfinished file."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _settle(self) -> None:
        _writing(self._path, self._stream.flush)
        while self._under_way:
            self._next_done()
        _writing(self._path, lambda: os.fsync(self._stream.fileno()))

    def _close(self) -> None:
        self._packers.shutdown()
        self._behind.shutdown()
        self._stream.close()


def _writing(path: Path, act: Callable[[], Any]) -> Any:
    try:
        return act()
    except OSError as error:
        raise JujuDrError(
            f"{path} cannot be written: {error.strerror}", "Make room there, or choose another folder for backups"
        ) from error


def _write_beside(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _chunks(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of :data:`CHUNK`, the last one shorter; none is empty."""
    gathered, size = [], 0
    for block in blocks:
        view = memoryview(block)
        while size + len(view) >= CHUNK:
            cut = CHUNK - size
            gathered.append(view[:cut])
            yield b"".join(gathered)
            gathered, size, view = [], 0, view[cut:]
        if len(view):
            gathered.append(view)
            size += len(view)
    if size:
        yield b"".join(gathered)


# --- root.tar ----------------------------------------------------------------------------------------------------------


def root_tar(files: Sequence[tuple[Path, str]], listed: list[dict[str, Any]]) -> Iterator[bytes]:
    """root.tar as a stream, owners and modes kept.

    :param files: path on this host, name in root.tar without leading slash. What is gone meanwhile is left out.
    :param listed: filled with ``name``, ``mode``, ``uid``, ``gid``, and ``size`` and ``sha256``, or ``link``, of each; or with
        ``name`` and ``left_out``, the reason, for a link that leads out of its tree.
    """
    naming = tarfile.TarFile(fileobj=io.BytesIO(), mode="w")
    for source, name in files:
        try:
            info = naming.gettarinfo(str(source), arcname=name)
            if info.islnk():
                # A file of its own here.
                info.type, info.linkname, info.size = tarfile.REGTYPE, "", source.stat().st_size
            stream = open(source, "rb") if info.isreg() else None  # noqa: SIM115
        except FileNotFoundError:
            # Gone since it was listed: a rotated log, a closed segment.
            continue
        # No reader of ours takes set-uid, or a link that leads out.
        info.mtime, info.mode = int(info.mtime), info.mode & 0o1777
        if info.issym() and not link_stays(name, info.linkname):
            listed.append({"name": name, "left_out": f"a link to {info.linkname}, which is no part of the controller"})
            continue
        entry: dict[str, Any] = {"name": name, "mode": info.mode, "uid": info.uid, "gid": info.gid}
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        if stream is not None:
            digest = hashlib.sha256()
            with stream:
                for block in _exactly(stream, info.size):
                    digest.update(block)
                    yield block
            yield b"\0" * (-info.size % BLOCK)
            entry.update(size=info.size, sha256=digest.hexdigest())
        elif info.issym():
            entry["link"] = info.linkname
        listed.append(entry)
    yield b"\0" * (2 * BLOCK)


def _exactly(stream: BinaryIO, left: int) -> Iterator[bytes]:
    """A file as of one size whatever happens to it: cut where it grew, filled with zeros where it shrank."""
    while left:
        data = stream.read(min(_READ, left)) or b"\0" * min(_READ, left)
        left -= len(data)
        yield data
