"""What is written is an ordinary tar.gz or tar.zst for every other reader, and every bit of it is accounted for."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import archive_write, codec
from ansible.module_utils.juju_dr.archive_write import BLOCK, CHUNK, MANIFEST, ArchiveWriter, Written, root_tar
from ansible.module_utils.juju_dr.codec import Codec, Gzip, Trailer, Unpackable, Zstd
from ansible.module_utils.juju_dr.errors import JujuDrError
from hypothesis import given, settings
from hypothesis import strategies as st

WAYS: dict[str, Callable[[], Codec]] = {"isal": Gzip, "zlib": lambda: Gzip(zlib), "zstd": Zstd}
HEAD = {"controller_uuid": "u", "root": []}


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> Codec:
    made: Codec = WAYS[request.param]()
    return made


def blocks(content: bytes, size: int = 100_000) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def some(size: int, seed: int = 1) -> bytes:
    """Bytes that pack by about a half."""
    chosen = random.Random(seed)
    return bytes(chosen.choices(b"abcdefghijklmnop", k=size % CHUNK)) + b"0123456789abcdef" * (size // CHUNK * CHUNK // 16)


CONTENTS = {
    "metadata.json": b'{"FormatVersion":1}\n',
    "root.tar": some(CHUNK + 12345),
    "dump/oplog.bson": b"",
    "dump/juju/machines.bson": some(BLOCK),
    "dump/juju/exactly.bson": some(2 * CHUNK),
    "dump/juju/" + "long" * 60 + ".bson": some(CHUNK * 2 + 1),
}


def written(folder: Path, way: Codec, contents: dict[str, bytes] | None = None) -> Written:
    writer = ArchiveWriter(folder / "x.partial", way)
    for name, content in (CONTENTS if contents is None else contents).items():
        writer.add(name, blocks(content))
    return writer.finish(HEAD, folder / ("juju-backup-1" + way.suffix))


def plain(way: Codec, packed: bytes) -> bytes:
    """What a program that knows nothing of us unpacks."""
    program = ["gzip", "-dc"] if way.name == "gzip" else ["zstd", "-dc"]
    return subprocess.run(program, input=packed, stdout=subprocess.PIPE, check=True).stdout


def test_the_archive_is_whole_private_and_has_its_digest_beside_it(way: Codec, tmp_path: Path) -> None:
    made = written(tmp_path, way)
    content = Path(made.path).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (made.size, made.sha256)
    assert sorted(p.name for p in tmp_path.iterdir()) == [Path(made.path).name, Path(made.path).name + ".sha256"]
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    subprocess.run(["sha256sum", "--check", made.path + ".sha256"], cwd=tmp_path, check=True)


def test_members_tile_the_file_and_hold_what_the_manifest_says(way: Codec, tmp_path: Path) -> None:
    made = written(tmp_path, way)
    content, at = Path(made.path).read_bytes(), 0
    for entry in made.manifest["files"]:
        raw = b""
        for number, (offset, packed, size) in enumerate(entry["members"]):
            assert offset == at
            at += packed
            piece = way.unpack(content[offset:at], size)
            raw += piece if number else b""
        expected = CONTENTS[entry["name"][len("juju-backup/") :]]
        assert raw[: entry["size"]] == expected
        assert raw[entry["size"] :].strip(b"\0") == b""
        assert entry["sha256"] == hashlib.sha256(expected).hexdigest()
    trailer = way.parse_trailer(content[-way.trailer_size :])
    assert trailer is not None
    assert (trailer.offset, trailer.offset + trailer.length) == (at, made.size - way.trailer_size)
    covered = made.size - way.trailer_size + len(way.hashed_of_trailer(content[-way.trailer_size :]))
    assert hashlib.sha256(content[:covered]).digest() == trailer.sha256


def test_tar_reads_it(way: Codec, tmp_path: Path) -> None:
    made = written(tmp_path, way)
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    option = "-xzf" if way.name == "gzip" else "--zstd"
    arguments = [option, made.path] if way.name == "gzip" else [option, "-xf", made.path]
    done = subprocess.run(["tar", *arguments, "-C", str(unpacked)], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    found = {str(p.relative_to(unpacked / "juju-backup")): p.read_bytes() for p in unpacked.rglob("*") if p.is_file()}
    manifest = json.loads(found.pop("juju-dr/manifest.json"))
    assert found == CONTENTS
    assert manifest == json.loads(json.dumps(made.manifest))
    assert {p.stat().st_mode & 0o777 for p in unpacked.rglob("*") if p.is_dir()} == {0o700}


def test_python_s_tarfile_reads_it_and_the_manifest_is_last(way: Codec, tmp_path: Path) -> None:
    made = written(tmp_path, way)
    with tarfile.open(fileobj=io.BytesIO(plain(way, Path(made.path).read_bytes()))) as tar:
        names = [member.name for member in tar]
    assert names[-1] == MANIFEST
    assert len(names) == len(set(names))


def test_all_ways_unpack_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_800_000_000.0)
    seen = set()
    for name, make in WAYS.items():
        (tmp_path / name).mkdir()
        made = written(tmp_path / name, make())
        end = made.manifest["files"][-1]["members"][-1]
        seen.add(hashlib.sha256(plain(make(), Path(made.path).read_bytes()[: end[0] + end[1]])).hexdigest())
    assert len(seen) == 1


def test_another_process_goes_on(way: Codec, tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path / "x.partial", way)
    names = list(CONTENTS)
    for name in names[:3]:
        writer.add(name, blocks(CONTENTS[name]))
    state = json.loads(json.dumps(writer.pause()))
    again = ArchiveWriter.reopen(tmp_path / "x.partial", way, state)
    for name in names[3:]:
        again.add(name, blocks(CONTENTS[name]))
    made = again.finish(HEAD, tmp_path / "juju-backup-1")
    assert hashlib.sha256(Path(made.path).read_bytes()).hexdigest() == made.sha256
    with tarfile.open(fileobj=io.BytesIO(plain(way, Path(made.path).read_bytes()))) as tar:
        for name, content in CONTENTS.items():
            stream = tar.extractfile("juju-backup/" + name)
            assert stream is not None
            assert stream.read() == content


def test_a_file_that_changed_meanwhile_is_not_gone_on_with(tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())
    writer.add("metadata.json", [b"{}"])
    state = writer.pause()
    with open(tmp_path / "x.partial", "ab") as stream:
        stream.write(b"x")
    with pytest.raises(JujuDrError, match="is not the archive that was begun"):
        ArchiveWriter.reopen(tmp_path / "x.partial", Gzip(), state)


def test_facts_are_asked_after_the_last_block(tmp_path: Path) -> None:
    seen: list[int] = []

    def counted() -> Iterator[bytes]:
        for number in range(3):
            seen.append(number)
            yield b"x"

    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())
    entry = writer.add("dump/juju/x.bson", counted(), lambda: {"documents": len(seen)})
    assert (entry["documents"], entry["size"]) == (3, 3)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_one_sentence_and_leaves_the_old_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").write_text("old", encoding="utf-8")
    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())
    with pytest.raises(JujuDrError, match="File exists"):
        ArchiveWriter(tmp_path / "x.partial", Gzip())
    writer.add("a", [b"x"])
    for name in ("a", "juju-backup/a", "b/../c"):
        with pytest.raises(JujuDrError, match="cannot be added"):
            writer.add(name, [b"x"])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JujuDrError, match="No space left on device"):
        writer.finish(HEAD, tmp_path / "old")
    writer.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text(encoding="utf-8") == "old"


def test_what_the_disk_says_while_it_is_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells an error of a file once: whoever asks next is told that all is well."""
    told = [OSError(5, "Input/output error")]

    def once(_: int) -> None:
        if told:
            raise told.pop()

    monkeypatch.setattr(os, "fdatasync", once)
    monkeypatch.setattr(archive_write, "_SYNC", CHUNK)
    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())

    def write() -> None:
        writer.add("dump/a.bson", [os.urandom(4 * CHUNK)])
        writer.finish(HEAD, tmp_path / "x")

    with pytest.raises(JujuDrError, match="Input/output error"):
        write()
    writer.discard()
    assert not told
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_under_the_writer_is_noticed(tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())
    state = writer.pause()
    state["end"] = 0
    again = ArchiveWriter.reopen(tmp_path / "x.partial", Gzip(), state)
    again._behind.shutdown()
    with pytest.raises(JujuDrError, match="became shorter"):
        again._hash_region(0, 10)


def test_sizes_of_8_gib_and_more_keep_the_header_s_length(tmp_path: Path) -> None:
    writer = ArchiveWriter(tmp_path / "x.partial", Gzip())
    for size in (0, 8 * 2**30 - 1, 8 * 2**30, 50 * 2**40):
        header = writer._header("juju-backup/dump/x.bson", size)
        assert len(header) == BLOCK
        assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == size
    writer.discard()


def test_root_tar_keeps_what_a_host_has(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 700)
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("/lib/systemd/system/x.service")
    os.link(tmp_path / "a", tmp_path / "hard")
    os.mkdir(tmp_path / "folder", 0o750)
    odd = os.fsdecode(b"n\xe4me")
    (tmp_path / odd).write_bytes(b"")
    (tmp_path / "out").symlink_to("/etc/shadow")
    (tmp_path / "set-uid").write_bytes(b"")
    (tmp_path / "set-uid").chmod(0o4755)
    names = ["a", "link", "hard", "folder", odd, "set-uid", "gone", "out"]
    listed: list[dict[str, Any]] = []
    made = b"".join(root_tar([(tmp_path / name, "l" * 120 + "/" + name) for name in names], listed))
    with tarfile.open(fileobj=io.BytesIO(made)) as tar:
        members = {member.name.rpartition("/")[2]: member for member in tar}
    assert list(members) == names[:-2]
    assert members["set-uid"].mode == 0o755
    assert "left_out" in listed.pop()
    assert (members["a"].mode, members["folder"].mode) == (0o640, 0o750)
    assert members["link"].linkname == "/lib/systemd/system/x.service"
    assert members["hard"].isreg()
    assert [one.get("size", one.get("link")) for one in listed] == [700, "/lib/systemd/system/x.service", 700, None, 0, 0]
    assert json.loads(json.dumps(listed)) == listed


def test_a_file_that_shrinks_or_grows_keeps_its_size_in_root_tar(tmp_path: Path) -> None:
    for change in (b"", b"x" * 9000):
        (tmp_path / "log").write_bytes(b"x" * 3000)
        stream = root_tar([(tmp_path / "log", "log")], [])
        header = next(stream)
        (tmp_path / "log").write_bytes(change)
        with tarfile.open(fileobj=io.BytesIO(header + b"".join(stream))) as tar:
            assert [member.size for member in tar] == [3000]


@settings(deadline=None)
@given(raw=st.binary(max_size=5000), junk=st.binary(min_size=1, max_size=20), name=st.sampled_from(sorted(WAYS)))
def test_one_member_is_exactly_one_member(raw: bytes, junk: bytes, name: str) -> None:
    way: Codec = WAYS[name]()
    for packed in (way.pack(raw), way.stored(raw)):
        assert way.unpack(packed, len(raw)) == raw
        assert plain(way, packed) == raw if len(raw) < 64 else True
        for wrong, size in (
            (packed, len(raw) + 1),
            (packed, max(len(raw) - 1, 0) or 1 + len(raw)),
            (packed + junk, len(raw)),
            (packed[:-1], len(raw)),
            (packed[: len(packed) // 2], len(raw)),
            (b"", len(raw)),
        ):
            with pytest.raises(Unpackable):
                way.unpack(wrong, size)
    assert len(way.stored(raw)) == len(way.stored(b"\0" * len(raw)))


@pytest.mark.parametrize("size", [1, BLOCK, 65_535, 65_536, 3 * 65_535, CHUNK])
def test_what_is_packed_already_is_stored_and_any_reader_reads_it(way: Codec, size: int) -> None:
    raw = random.Random(size).randbytes(size)
    packed = way.pack(raw)
    assert len(packed) <= size + 128 + size // 8192
    assert way.unpack(packed, size) == plain(way, packed) == raw
    if way.name == "gzip" and size == CHUNK:
        # One of its samples is worth packing.
        worth = bytes(CHUNK // 2) + raw[CHUNK // 2 :]
        assert len(way.pack(worth)) < 0.6 * CHUNK
        assert way.pack(raw) == way.stored(raw)


@given(offset=st.integers(0, 2**64 - 1), length=st.integers(0, 2**64 - 1), digest=st.binary(min_size=32, max_size=32))
def test_a_trailer_has_one_form(offset: int, length: int, digest: bytes) -> None:
    for make in (Gzip, Zstd):
        way: Codec = make()
        data = way.trailer(Trailer(offset, length, digest))
        assert way.parse_trailer(data) == Trailer(offset, length, digest)
        assert way.parse_trailer(data[1:]) is None
        if make is Gzip:
            assert gzip.decompress(data) == b""


def test_another_reader_sees_nothing_in_a_trailer(way: Codec) -> None:
    assert plain(way, way.pack(b"x") + way.trailer(Trailer(1, 2))) == b"x"


def test_a_bomb_makes_no_more_than_it_may(way: Codec) -> None:
    bomb = way.pack(bytes(64 * 2**20))
    with pytest.raises(Unpackable):
        way.unpack(bomb, 1000)


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JujuDrError, match="no compression 'xz'"):
        codec.codec("xz")
    with pytest.raises(JujuDrError, match="python3-zstandard"):
        Zstd(None)
    assert codec.codec("gzip").name == "gzip"


@pytest.mark.parametrize("chunks", [8, 32])
def test_memory_stays_bounded(way: Codec, tmp_path: Path, chunks: int) -> None:
    """The largest growth over what was there before, in a process of its own."""
    script = f"""
import resource, sys
import ansible.module_utils
ansible.module_utils.__path__.append({str(Path(__file__).resolve().parents[2] / "module_utils")!r})
from pathlib import Path
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec
piece = bytes(range(256)) * 4096
writer = ArchiveWriter(Path({str(tmp_path / "x")!r}), codec({way.name!r}))
writer.add("first", [piece] * 40)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
writer.add("x", (piece for _ in range({chunks * 4})))
writer.finish({{}}, Path({str(tmp_path / "y")!r}))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 24 * 1024, f"grew by {after - before} KiB over {chunks} chunks"


def test_threads_end(tmp_path: Path) -> None:
    before = threading.active_count()
    written(tmp_path, Gzip(), {"a": b"x"})
    assert threading.active_count() == before
