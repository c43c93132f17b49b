"""Whatever an older archive holds and wherever a transfer was cut, the part becomes the wanted file."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pwd
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import transfer
from ansible.module_utils.juju_dr.archive_write import CHUNK, ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.progress import reconnect_seconds
from ansible.module_utils.juju_dr.transfer import (
    LARGEST_WINDOW,
    MARGIN,
    SMALLEST_WINDOW,
    Pace,
    Part,
    Patience,
    Segment,
    Step,
    check_space,
    cuts_of,
    describe,
    digest_of,
    free_beside,
    newest_archive,
    next_window,
    plan,
    segments,
    source,
    write_window,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ME = pwd.getpwuid(os.getuid()).pw_name
PIECES = st.lists(st.sampled_from([bytes([number]) * (7 * number + 1) for number in range(9)]), max_size=20)


def written(path: Path, pieces: list[bytes]) -> tuple[Path, list[int]]:
    path.write_bytes(b"".join(pieces))
    cuts = [sum(map(len, pieces[:index])) for index in range(len(pieces) + 1)]
    return path, cuts


@settings(deadline=None)
@given(far=PIECES, near=PIECES, begin=st.integers(0, 300), limit=st.integers(1, 60), data=st.data())
def test_a_part_becomes_the_wanted_file(
    tmp_path_factory: pytest.TempPathFactory, far: list[bytes], near: list[bytes], begin: int, limit: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("transfer")
    source, cuts = written(folder / "far", far)
    older, older_cuts = written(folder / "near", near)
    whole = source.read_bytes()
    part, window = Part(folder / "part"), folder / "window"
    part.path.write_bytes(whole[:begin])
    part.cut(min(begin, len(whole)))
    wanted = segments(source, data.draw(st.permutations(cuts)))
    steps = plan(wanted, segments(older, older_cuts), part.size)
    rest, fetched = steps, 0
    while rest:
        now, rest = next_window(rest, limit)
        ranges = [(step.offset, step.length) for step in now if not step.here]
        fetched += write_window(source, window, ranges, ME)
        assert sum(length for _, length in ranges) <= limit
        part.append(now, window, older)
    assert part.path.read_bytes() == whole
    assert part.path.stat().st_mode & 0o777 == 0o600
    known = {one.sha256 for one in segments(older, older_cuts)}
    assert fetched <= sum(one.length for one in wanted if one.sha256 not in known)


@settings(deadline=None)
@given(PIECES, st.lists(st.integers(-5, 400)))
def test_segments_cover_the_whole_file(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cuts: list[int]) -> None:
    path, _ = written(tmp_path_factory.mktemp("segments") / "f", pieces)
    whole, end = path.read_bytes(), 0
    for one in segments(path, cuts):
        assert one.offset == end
        assert one.sha256 == hashlib.sha256(whole[one.offset : one.offset + one.length]).hexdigest()
        end += one.length
    assert end == len(whole)


def test_neighbours_are_one_step() -> None:
    wanted = [Segment(0, 5, "a"), Segment(5, 5, "b"), Segment(10, 5, "c"), Segment(15, 5, "d")]
    assert plan(wanted, []) == [Step(0, 20)]
    kept = [Segment(100, 5, "c"), Segment(105, 5, "d"), Segment(0, 6, "a")]
    assert plan(wanted, kept) == [Step(0, 10), Step(100, 10, True)]
    assert plan(wanted, kept, 12) == [Step(102, 8, True)]
    assert plan(wanted, kept, 20) == []


def test_a_long_step_is_divided() -> None:
    steps = [Step(0, 3, True), Step(10, 8), Step(0, 5, True), Step(30, 1)]
    assert next_window(steps, 5) == ([Step(0, 3, True), Step(10, 5)], [Step(15, 3), Step(0, 5, True), Step(30, 1)])
    assert next_window([Step(15, 3), Step(0, 5, True), Step(30, 1)], 3) == ([Step(15, 3), Step(0, 5, True)], [Step(30, 1)])
    assert next_window([], 3) == ([], [])


def test_windows_grow_on_fast_networks_and_shrink_on_slow_ones() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(0.5)
    assert pace.size == LARGEST_WINDOW
    pace.took(3.0)
    assert pace.size == LARGEST_WINDOW
    for _ in range(20):
        pace.took(60)
    assert pace.size == SMALLEST_WINDOW
    assert Pace(5).size == 5


def test_the_digest_of_more_than_there_is() -> None:
    assert digest_of(io.BytesIO(b"abc"), 4) is None
    assert digest_of(io.BytesIO(b"abc"), 2) == hashlib.sha256(b"ab").hexdigest()


def test_a_file_is_described(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    nothing = describe(path, 5)
    assert (nothing["size"], nothing["sha256"], nothing["prefix_sha256"]) == (-1, "", "")
    path.write_bytes(b"abcdef")
    (tmp_path / "a.tar.gz.sha256").write_text("cafe  a.tar.gz\n")
    about = describe(path, 3, lambda _: [2])
    assert (about["size"], about["sha256"]) == (6, "cafe")
    assert about["prefix_sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert about["segments"] == [
        [0, 2, hashlib.sha256(b"ab").hexdigest()],
        [2, 4, hashlib.sha256(b"cdef").hexdigest()],
    ]
    assert describe(path, 7)["prefix_sha256"] == ""
    (tmp_path / "a.tar.gz.sha256").write_text("")
    assert describe(path)["sha256"] == ""


def test_a_file_that_shrinks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    with pytest.raises(JujuDrError, match="ends 2 bytes too early"):
        write_window(path, tmp_path / "w", [(1, 4)], ME)
    monkeypatch.setattr(transfer, "digest_of", lambda *_: None)
    with pytest.raises(JujuDrError, match="became shorter"):
        segments(path, [])


def test_a_window_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    source, window = tmp_path / "f", tmp_path / "w"
    source.write_bytes(b"abc")
    window.write_bytes(b"old and longer")
    window.chmod(0o644)
    assert write_window(source, window, [(1, 1), (0, 2)], ME) == 3
    assert window.read_bytes() == b"bab"
    assert window.stat().st_mode & 0o777 == 0o600


class FullDisk(io.BytesIO):
    def write(self, _: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_becomes_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, window = Part(tmp_path / "part"), tmp_path / "window"
    window.write_bytes(b"abc")
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode: FullDisk() if self == part.path else real(self, mode))
    with pytest.raises(JujuDrError, match=f"The disk that holds {tmp_path} became full while part was written"):
        part.append([Step(0, 3)], window, None)
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        part.append([Step(0, 3)], tmp_path / "none", None)


def test_space_is_looked_at_ahead(tmp_path: Path) -> None:
    assert free_beside(tmp_path / "not" / "there" / "f") > 0
    check_space(MARGIN + 10, 10, "here")
    with pytest.raises(JujuDrError, match=r"/b on c0 has 16\.0 MiB free, and 116\.0 MiB are needed"):
        check_space(MARGIN + 9, 100 << 20, "/b on c0")


def test_patience_counts_from_the_last_answer() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    patience = Patience(60, lambda: now[0], sleep)
    now[0] = 50
    patience.answered()
    while patience.again():
        pass
    assert 110 <= now[0] <= 115
    assert patience.silent >= 60
    assert (min(slept), max(slept)) == (0.2, 5.0)


def test_a_host_is_tried_until_it_is_back_or_patience_ends() -> None:
    now = [0.0]
    answers: list[Any] = [OSError("no route"), {"rc": 255}, {"rc": 0}]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def sleep(seconds: float) -> None:
        now[0] += seconds

    patience = Patience(60, lambda: now[0], sleep)
    patience.until_back("c0", OSError("cut"), ask, "3 MiB are kept", "Go on")
    assert answers == []
    answers += [OSError("no route")] * 100
    with pytest.raises(JujuDrError, match=r"^c0 cannot be reached for 1:03: cut\. 3 MiB are kept\. Go on\.$"):
        patience.until_back("c0", OSError("cut"), ask, "3 MiB are kept", "Go on")
    answers[0] = ValueError("something else")
    with pytest.raises(ValueError, match="something else"):
        Patience(60, lambda: now[0], sleep).until_back("c0", OSError("cut"), ask, "", "")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, 240),
        ({"juju_dr_reconnect_seconds": "900"}, 900),
        ({"juju_dr_reconnect_at_most": 45}, 45),
        ({"juju_dr_reconnect_seconds": 5, "juju_dr_reconnect_at_most": "45"}, 5),
    ],
)
def test_a_host_that_another_stands_in_for_is_not_tried_long(told: dict[str, Any], seconds: float) -> None:
    assert reconnect_seconds(lambda name, default: told.get(name, default)) == seconds


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_only_what_changed_in_an_archive_is_missing(tmp_path: Path, packing: str) -> None:
    def archive(name: str, files: dict[str, bytes]) -> Path:
        writer = ArchiveWriter(tmp_path / f"{name}.partial", codec(packing))
        # Archives of another day differ in every header.
        writer._mtime += 86400 if name == "newer" else 0
        for inside, content in files.items():
            writer.add(inside, [content])
        writer.finish({"root": []}, tmp_path / name)
        return tmp_path / name

    files = {f"dump/juju/{number}.bson": os.urandom(100_000) for number in range(9)}
    large = os.urandom(2 * CHUNK + CHUNK // 4)
    older = archive("older", {**files, "dump/logs.bson": large})
    newer = archive("newer", {**dict(reversed(files.items())), "dump/logs.bson": large + b"more", "dump/new": b"new"})
    steps = plan(segments(newer, cuts_of(newer)), segments(older, cuts_of(older)))
    assert sum(step.length for step in steps) == newer.stat().st_size
    # Its last chunk, headers and the manifest.
    assert CHUNK // 4 < sum(step.length for step in steps if not step.here) < CHUNK // 4 + 40_000


def test_a_file_without_members_has_no_cuts(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"no archive at all")
    assert cuts_of(path) == []
    path.write_bytes(b"\x1f\x8b an archive of others, perhaps")
    assert cuts_of(path) == []


def test_what_is_sent_of_a_plain_archive(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"plain")
    with source(tmp_path / "f", "") as stream:
        assert stream.read() == b"plain"


def test_the_newest_archive_that_tells_its_members(tmp_path: Path) -> None:
    for name in (
        "juju-backup-1.tar.gz",
        "juju-backup-3.tar.gz",
        "juju-backup-2.tar.gz",
        "juju-backup-9.tar.gz.age",
        "other.tar.gz",
    ):
        (tmp_path / name).touch()
    assert newest_archive(tmp_path, "juju-backup-4.tar.gz") == tmp_path / "juju-backup-3.tar.gz"
    assert newest_archive(tmp_path, "juju-backup-3.tar.gz") == tmp_path / "juju-backup-2.tar.gz"
    assert newest_archive(tmp_path, "juju-backup-4.tar.zst") is None
    assert newest_archive(tmp_path, "juju-backup-4.tar.gz.age") is None
    mine = "juju-backup-20261124-101500-e8ecd66d.tar.gz"
    for name in (mine, "juju-backup-20261125-101500-11111111.tar.gz"):
        (tmp_path / name).touch()
    assert newest_archive(tmp_path, "juju-backup-20261126-101500-e8ecd66d.tar.gz") == tmp_path / mine
