"""Moving archives between machines: what is missing, what an older archive has already, parts that grow at their end only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Iterator, Sequence

from .age import decrypting, is_encrypted
from .archive_source import manifest_of
from .errors import JujuDrError
from .progress import duration, size_of_of

CHUNK = 1 << 20
# Left free on a disk that is filled by a copy.
MARGIN = 16 << 20
# What a cut connection may have written out of order at the end of a part.
UNSURE = 4 << 20
SMALLEST_WINDOW, LARGEST_WINDOW = 1 << 20, 256 << 20
WINDOW_SECONDS = 2.0


@dataclass(frozen=True)
class Segment:
    """A stretch of a file: where it begins, its bytes, and their SHA-256."""

    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class Step:
    """What comes next at the end of a part: bytes of the far file, or of a file that is here.

    :ivar offset: where they begin in the file they are taken from.
    """

    offset: int
    length: int
    here: bool = False


# --- digests and segments ----------------------------------------------------------------------------------------------


def digest_of(stream: BinaryIO, length: int) -> str | None:
    """SHA-256 of the next bytes of a stream; None when it has fewer."""
    digest, left = hashlib.sha256(), length
    while left:
        data = stream.read(min(left, CHUNK))
        if not data:
            return None
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def segments(path: Path, cuts: Iterable[int]) -> list[Segment]:
    """The stretches of a file between cuts, each with its digest; together they are the whole file.

    :param cuts: offsets in any order; those outside of the file are left out.
    """
    size = path.stat().st_size
    borders = sorted({0, size, *(cut for cut in cuts if 0 < cut < size)})
    found = []
    with path.open("rb") as stream:
        for begin, end in zip(borders, borders[1:]):
            digest = digest_of(stream, end - begin)
            if digest is None:
                raise JujuDrError(f"{path} became shorter while it was read", "Run it again")
            found.append(Segment(begin, end - begin, digest))
    return found


def cuts_of(path: Path) -> list[int]:
    """Where an archive's members begin and end, as its manifest tells; empty for a file that has none."""
    try:
        manifest = manifest_of(path)
    except JujuDrError:
        return []
    members = [member for one in manifest["files"] for member in one["members"]] if manifest else []
    return [offset + length for offset, packed, _ in members for length in (0, packed)]


def newest_archive(folder: Path, other_than: str) -> Path | None:
    """The newest archive in a folder that tells its members, of the same controller; names hold the time and whose it is.

    :param other_than: name of the archive that is fetched; one of another form has no members in common.
    """
    ending = "".join(Path(other_than).suffixes[-2:])
    if ending not in (".tar.gz", ".tar.zst"):
        return None
    # juju-backup-DATE-TIME-CONTROLLER
    whose = other_than.split("-", 4)[4:]
    alike = (path for path in folder.glob(f"juju-backup-*{ending}") if path.name.split("-", 4)[4:] == whose)
    found = [path for path in alike if path.name != other_than]
    return max(found, key=lambda path: path.name, default=None)


def plan(wanted: Sequence[Segment], kept: Iterable[Segment], begin: int = 0) -> list[Step]:
    """How a part becomes the wanted file: neighbouring stretches are one step.

    :param kept: what a file here holds.
    :param begin: what the part has already.
    """
    places = {(one.sha256, one.length): one.offset for one in kept}
    steps: list[Step] = []
    for one in wanted:
        skip = max(0, min(begin - one.offset, one.length))
        if skip == one.length:
            continue
        place = places.get((one.sha256, one.length))
        step = Step((one.offset if place is None else place) + skip, one.length - skip, place is not None)
        last = steps[-1] if steps else None
        if last and last.here == step.here and last.offset + last.length == step.offset:
            steps[-1] = Step(last.offset, last.length + step.length, step.here)
        else:
            steps.append(step)
    return steps


def next_window(steps: Sequence[Step], limit: int) -> tuple[list[Step], list[Step]]:
    """The first steps that together fetch no more than so many bytes, and the rest; a long step is divided."""
    now: list[Step] = []
    left = limit
    for index, step in enumerate(steps):
        if step.here or step.length <= left:
            now.append(step)
            left -= 0 if step.here else step.length
            continue
        if left:
            now.append(Step(step.offset, left))
        return now, [Step(step.offset + left, step.length - left), *steps[index + 1 :]]
    return now, []


class Pace:
    """How large a window is: about two seconds' worth, so that a cut connection costs no more than that."""

    def __init__(self, largest: int = LARGEST_WINDOW) -> None:
        self._largest, self.size = largest, min(16 * SMALLEST_WINDOW, largest)

    def took(self, seconds: float) -> None:
        """Says how long the last window took."""
        if seconds < WINDOW_SECONDS:
            self.size = min(self.size * 2, self._largest)
        elif seconds > 2 * WINDOW_SECONDS:
            self.size = max(self.size // 2, SMALLEST_WINDOW)


# --- the far side ------------------------------------------------------------------------------------------------------


def describe(path: Path, prefix: int = 0, cuts: Callable[[Path], Iterable[int]] | None = None) -> dict[str, Any]:
    """What the other side must know of a file before it is moved.

    :param prefix: of how many bytes at the beginning the digest is wanted.
    :param cuts: where the file is divided into segments; None for no segments.
    :returns: ``size`` (-1: there is none), ``free`` bytes beside it, ``sha256`` from the digest file beside it (may be empty),
        ``prefix_sha256``, ``segments`` as lists of offset, length, sha256.
    """
    result: dict[str, Any] = {"size": -1, "free": free_beside(path), "sha256": "", "prefix_sha256": "", "segments": []}
    with contextlib.suppress(FileNotFoundError):
        result["size"] = path.stat().st_size
        result["sha256"] = sha256_beside(path)
        if prefix:
            with path.open("rb") as stream:
                result["prefix_sha256"] = digest_of(stream, prefix) or ""
        if cuts:
            result["segments"] = [[one.offset, one.length, one.sha256] for one in segments(path, cuts(path))]
    return result


def sha256_beside(path: Path) -> str:
    """The digest that the file beside an archive states; empty when there is none."""
    try:
        words = path.with_name(path.name + ".sha256").read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return ""
    return words[0] if words else ""


def write_window(path: Path, window: Path, ranges: Sequence[tuple[int, int]], owner: str) -> int:
    """Copies stretches of a file end to end into another, which only its owner reads.

    :param ranges: offset and length of each.
    :param owner: name of the user who shall fetch it.
    :returns: bytes written.
    """
    with contextlib.suppress(FileNotFoundError):
        window.unlink()
    written = 0
    with open(os.open(window, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target, path.open("rb") as source:
        for offset, length in ranges:
            source.seek(offset)
            for data in _blocks(source, length):
                target.write(data)
                written += len(data)
        if os.geteuid() == 0:
            user = pwd.getpwnam(owner)
            os.fchown(target.fileno(), user.pw_uid, user.pw_gid)
    return written


def _blocks(source: BinaryIO, length: int) -> Iterator[bytes]:
    left = length
    while left:
        data = source.read(min(left, CHUNK))
        if not data:
            raise JujuDrError(f"{source.name} ends {left} bytes too early", "Run it again")
        yield data
        left -= len(data)


@contextlib.contextmanager
def source(path: Path, identity: str) -> Iterator[BinaryIO]:
    """The bytes of an archive that are sent: those of an encrypted one are decrypted on their way, and lie on no disk here.

    :param identity: path of the secret key, for an encrypted archive.
    """
    with decrypting(path, identity) if is_encrypted(path) else path.open("rb") as stream:
        yield stream


# --- this side ---------------------------------------------------------------------------------------------------------


class Part:
    """The unfinished copy of a file on this machine: 0600, grows at its end only."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """What there is of it."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def cut(self, size: int) -> None:
        """Takes away what lies behind so many bytes; makes the file when it is missing."""
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600), "r+b") as target:
            target.truncate(size)
            os.fchmod(target.fileno(), 0o600)

    def append(self, steps: Sequence[Step], window: Path, here: Path | None) -> None:
        """Puts steps at the end: what was fetched lies end to end in the window, the rest in a file that is here.

        :raises JujuDrError: the disk is full.
        """
        try:
            with contextlib.ExitStack() as files, self.path.open("ab") as target:
                fetched = files.enter_context(window.open("rb")) if any(not step.here for step in steps) else None
                kept = files.enter_context(here.open("rb")) if here else None
                for step in steps:
                    source = kept if step.here else fetched
                    assert source is not None
                    if step.here:
                        source.seek(step.offset)
                    for data in _blocks(source, step.length):
                        target.write(data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise disk_full(self.path) from error


def free_beside(path: Path) -> int:
    """Bytes an ordinary user may still write where a file lies, or would lie."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def check_space(free: int, needed: int, where: str) -> None:
    """Refuses what will not fit.

    :param where: machine and folder, as they shall be named.
    :raises JujuDrError: it does not fit with a little left over.
    """
    if free < needed + MARGIN:
        raise JujuDrError(
            f"{where} has {size_of_of(free, 0)} free, and {size_of_of(needed + MARGIN, 0)} are needed",
            "Free space there, or name another folder",
        )


def disk_full(path: Path) -> JujuDrError:
    """The error for a disk that became full although the space was looked at before."""
    return JujuDrError(f"The disk that holds {path.parent} became full while {path.name} was written", "Free space there")


class Patience:
    """How long a machine that does not answer is tried again.

    :param seconds: in all, counted from its last answer.
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._seconds, self._clock, self._sleep = seconds, clock, sleep
        self._answered = clock()

    def answered(self) -> None:
        """It did answer."""
        self._answered = self._clock()

    @property
    def silent(self) -> float:
        """Seconds since its last answer."""
        return self._clock() - self._answered

    def again(self) -> bool:
        """Waits a moment and says whether it shall be tried once more."""
        if self.silent >= self._seconds:
            return False
        self._sleep(min(max(self.silent / 4, 0.2), 5.0))
        return True

    def until_back(self, host: str, error: Exception, ask: Callable[[], Any], kept: str, cure: str) -> None:
        """Until a host answers again.

        :param error: that showed that it does not.
        :param ask: runs something there; raises the same kind of error while the host cannot be reached.
        :param kept: what has come so far and where it is, a sentence without its end.
        :raises JujuDrError: it does not answer, for as long as we wait.
        """
        while self.again():
            with contextlib.suppress(type(error)):
                if ask()["rc"] == 0:
                    return
        raise JujuDrError(f"{host} cannot be reached for {duration(self.silent)}: {error}. {kept}", cure)
