"""Nothing that is wrong with an archive's bytes passes: every bit, every length, and every promise of its manifest."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.age import encrypt
from ansible.module_utils.juju_dr.archive import files_of, inspect, unpack
from ansible.module_utils.juju_dr.archive_source import Inflate
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import Codec, Gzip, Trailer, Zstd
from ansible.module_utils.juju_dr.verdict import CAUSES, Refused, judge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.scale import rounds
from lab.small_archive import files, foreign, listed, ours

WAYS: dict[str, Callable[[], Codec]] = {"gzip": Gzip, "zstd": Zstd}


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> Codec:
    return WAYS[request.param]()


@pytest.fixture
def whole(way: Codec, tmp_path: Path) -> Path:
    path = ours(tmp_path / ("x" + way.suffix), way)
    assert judge(str(path)).ok, judge(str(path))
    return path


def flips(size: int, every: int, always: int = 0) -> Iterator[tuple[int, int]]:
    """Byte and mask of every so-many-th bit, and of all of the last bytes."""
    for bit in range(size * 8):
        if bit % every == 0 or bit >= (size - always) * 8:
            yield bit // 8, 1 << bit % 8


@pytest.mark.torture
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with its digest beside"])
def test_no_flipped_bit_passes(whole: Path, way: Codec, beside: bool) -> None:
    if not beside:
        whole.with_name(whole.name + ".sha256").unlink()
    content, tried = whole.read_bytes(), 0
    with open(whole, "r+b", buffering=0) as stream:
        for byte, mask in flips(len(content), rounds(29, 1), way.trailer_size):
            os.pwrite(stream.fileno(), bytes([content[byte] ^ mask]), byte)
            verdict = judge(str(whole))
            os.pwrite(stream.fileno(), content[byte : byte + 1], byte)
            assert not verdict.ok, f"byte {byte}, mask {mask}"
            assert verdict.code in CAUSES
            assert verdict.code != "unexpected", verdict.cause
            tried += 1
    assert tried >= way.trailer_size * 8
    assert whole.read_bytes() == content


@pytest.mark.torture
def test_no_length_but_its_own_passes(whole: Path) -> None:
    size = whole.stat().st_size
    whole.with_name(whole.name + ".sha256").unlink()
    for length in range(size - 1, -1, -rounds(23, 1)):
        os.truncate(whole, length)
        verdict = judge(str(whole))
        assert not verdict.ok, length
        assert verdict.code != "unexpected", verdict.cause


def test_what_is_cut_at_a_member_s_end_is_missed(whole: Path) -> None:
    """Another reader would see a shorter archive there, and nothing wrong with it."""
    manifest = inspect(str(whole)).manifest
    assert manifest["format"] == "juju-dr"
    content = whole.read_bytes()
    whole.with_name(whole.name + ".sha256").unlink()
    for cut in {len(content) - Gzip().trailer_size, len(content) - Zstd().trailer_size}:
        whole.write_bytes(content[:cut])
        assert judge(str(whole)).code in ("trailer", "cut")
    whole.write_bytes(content + b"x")
    assert judge(str(whole)).code in ("trailer", "damaged", "cut")
    whole.write_bytes(content + content)
    assert not judge(str(whole)).ok


@pytest.mark.torture
def test_flips_in_an_archive_of_others_pass_only_where_they_mean_nothing(tmp_path: Path) -> None:
    """gzip covers what is packed, not its own header, nor which of two ways the same bytes are packed."""
    path = foreign(tmp_path / "x.tar.gz")
    content, chosen = path.read_bytes(), random.Random(11)
    assert judge(str(path)).ok
    for _ in range(rounds(300, 10_000)):
        byte = chosen.randrange(len(content))
        flipped = bytearray(content)
        flipped[byte] ^= 1 << chosen.randrange(8)
        path.write_bytes(flipped)
        verdict = judge(str(path))
        assert verdict.code != "unexpected", verdict.cause
        if verdict.ok:
            # A field of the header, or another way to write the same bytes: the same archive.
            assert gzip.decompress(bytes(flipped)) == gzip.decompress(content)
    # Something must have passed, or this proves nothing about the rule above.
    flipped = bytearray(content)
    flipped[4] ^= 1
    path.write_bytes(flipped)
    assert judge(str(path)).ok


@pytest.mark.torture
def test_no_length_of_an_archive_of_others_passes(tmp_path: Path) -> None:
    path = foreign(tmp_path / "x.tar.gz")
    for length in range(path.stat().st_size - 1, -1, -rounds(41, 1)):
        os.truncate(path, length)
        assert not judge(str(path)).ok, length


def crooked(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """An archive whose trailer vouches for a manifest that is wrong."""
    original = json.dumps

    def dumps(value: Any, **options: Any) -> str:
        if isinstance(value, dict) and "files" in value:
            value = json.loads(original(value))
            change(value)
        return original(value, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ansible.module_utils.juju_dr.archive_write.json.dumps", dumps)
        return ours(path, Gzip())


def entry(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in manifest["files"] if one["name"].endswith(name))
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a digest": (lambda m: entry(m, "machines.bson").update(sha256="0" * 64), "manifest"),
    "a size": (lambda m: entry(m, "machines.bson").update(size=5), "manifest"),
    "a mode": (lambda m: entry(m, "machines.bson").update(mode=0o644), "manifest"),
    "an owner": (lambda m: entry(m, "machines.bson").update(uid=1), "manifest"),
    "a count": (lambda m: entry(m, "machines.bson").update(documents=99), "manifest"),
    "a name": (lambda m: entry(m, "machines.bson").update(name="juju-backup/other"), "manifest"),
    "a file too few": (lambda m: m["files"].pop(), "manifest"),
    "two files exchanged": (lambda m: m["files"].insert(0, m["files"].pop()), "manifest"),
    "a file of root.tar": (lambda m: m["root"][0].update(sha256="0" * 64), "manifest"),
    "a file of root.tar too few": (lambda m: m["root"].clear(), "manifest"),
    "a member's offset": (lambda m: m["files"][1]["members"][0].__setitem__(0, 7), "manifest"),
    "a member's length": (lambda m: m["files"][-1]["members"][-1].__setitem__(1, 7), "manifest"),
    "a member's content": (lambda m: m["files"][1]["members"][0].__setitem__(2, 1024), "damaged"),
    "a huge member": (lambda m: m["files"][1]["members"][0].__setitem__(2, 2**40), "manifest"),
    "members that are none": (lambda m: m["files"][1].update(members=[1, 2]), "manifest"),
    "a size that is none": (lambda m: m["files"][1].update(size="x"), "manifest"),
    "no files": (lambda m: m.update(files=3), "manifest"),
    "no root": (lambda m: m.pop("root"), "manifest"),
    "another format": (lambda m: m.update(format="x"), "manifest"),
    "a newer version": (lambda m: m.update(format_version=99), "unknown-format"),
    "entries that are none": (lambda m: m.update(files=[1]), "manifest"),
    "no digest": (lambda m: entry(m, "machines.bson").pop("sha256"), "damaged"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_a_manifest_that_lies_is_found_out(case: str, tmp_path: Path) -> None:
    change, code = WRONG[case]
    assert judge(str(crooked(tmp_path / "x.tar.gz", lambda manifest: None))).ok
    (tmp_path / "x.tar.gz").unlink()
    verdict = judge(str(crooked(tmp_path / "x.tar.gz", change)))
    assert (verdict.ok, verdict.code) == (False, code), verdict.cause


def test_a_manifest_that_is_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ours(tmp_path / "x.tar.gz", Gzip())
    monkeypatch.setattr("ansible.module_utils.juju_dr.archive_source.MANIFEST_BYTES", 1000)
    assert judge(str(path)).code == "too-large"


def test_a_trailer_of_another_version_or_place_is_refused(tmp_path: Path) -> None:
    way, path = Gzip(), ours(tmp_path / "x.tar.gz", Gzip())
    path.with_name("x.tar.gz.sha256").unlink()
    content, size = path.read_bytes(), way.trailer_size
    found = way.parse_trailer(content[-size:])
    assert found is not None

    def sealed(body: bytes, offset: int, length: int, version: int = 1) -> bytes:
        head = way.hashed_of_trailer(way.trailer(Trailer(offset, length, version=version)))
        digest = hashlib.sha256(body + head).digest()
        return body + way.trailer(Trailer(offset, length, digest, version))

    body, empty = content[:-size], way.pack(bytes(1024))
    assert sealed(body, found.offset, found.length) == content
    for changed, code in (
        (sealed(body, found.offset, found.length, 2), "unknown-format"),
        (sealed(body, found.offset - 1, found.length), "damaged"),
        (sealed(body, found.offset - 1, found.length + 1), "damaged"),
        (sealed(body, 0, found.length + found.offset), "manifest"),
        # No manifest where it should be, or behind another end.
        (sealed(body[: found.offset] + empty, found.offset, len(empty)), "trailer"),
        (sealed(empty + body, found.offset + len(empty), found.length), "manifest"),
    ):
        path.write_bytes(changed)
        assert judge(str(path)).code == code


@pytest.fixture
def encrypted(whole: Path, tmp_path: Path) -> tuple[Path, str]:
    """An encrypted archive, and the identity that opens it."""
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    told = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True)
    return encrypt(whole, [told.stdout.strip()]), str(key)


def test_an_encrypted_archive_is_judged_without_lying_on_a_disk(
    encrypted: tuple[Path, str], tmp_path: Path, way: Codec
) -> None:
    path, key = encrypted
    plain = ours(tmp_path / "again", way)
    info = inspect(str(path), identity=key)
    assert (info.encrypted, info.format, info.controller_uuid) == (True, "juju-dr", inspect(str(plain)).controller_uuid)
    assert info.manifest == inspect(str(plain)).manifest
    assert not any("sha256" in sentence for sentence in info.unproven)
    unpack(str(path), str(tmp_path / "out"), info.sha256, identity=key)
    assert (tmp_path / "out" / "dump" / "juju" / "machines.bson").read_bytes() == files()["dump/juju/machines.bson"]
    with pytest.raises(Refused, match="changed on its way"):
        unpack(str(path), str(tmp_path / "other"), "0" * 64, identity=key)
    assert not (tmp_path / "other").exists()
    assert judge(str(path)).code == "no-identity"
    assert dict(files_of(str(path), key))
    path.with_name(path.name + ".sha256").write_text("0" * 64, encoding="utf-8")
    assert judge(str(path), key).code == "digest"


@pytest.mark.torture
def test_no_flipped_bit_and_no_cut_of_an_encrypted_archive_passes(encrypted: tuple[Path, str]) -> None:
    path, key = encrypted
    path.with_name(path.name + ".sha256").unlink()
    content = path.read_bytes()
    for byte, mask in flips(len(content), len(content) * 8 // rounds(40, 20_000)):
        flipped = bytearray(content)
        flipped[byte] ^= mask
        path.write_bytes(flipped)
        verdict = judge(str(path), key)
        assert not verdict.ok, (byte, mask)
        assert verdict.code != "unexpected", verdict.cause
    for length in range(len(content) - 1, -1, -len(content) // rounds(25, len(content))):
        path.write_bytes(content[:length])
        assert not judge(str(path), key).ok, length


def test_an_encrypted_archive_is_still_asked_for_its_trailer(tmp_path: Path, way: Codec) -> None:
    """age vouches for what was encrypted, not for its being whole before."""
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    told = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True).stdout.strip()
    path = ours(tmp_path / "x", way)
    content = path.read_bytes()
    last = -way.trailer_size - 9
    for number, (changed, codes) in enumerate(
        (
            (content[: -way.trailer_size], ("trailer",)),
            (content[: len(content) // 2], ("cut", "damaged", "trailer")),
            (content[:3000] + b"\0" * 9 + content[3009:], ("damaged",)),
            (content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :], ("damaged",)),
        )
    ):
        plain = tmp_path / f"y{number}"
        plain.write_bytes(changed)
        assert judge(str(encrypt(plain, [told])), str(key)).code in codes
    others = foreign(tmp_path / "z")
    assert judge(str(encrypt(others, [told])), str(key)).info["format"].startswith("create-backup")


def test_the_digest_beside_it_is_believed_over_the_file(whole: Path) -> None:
    beside = whole.with_name(whole.name + ".sha256")
    beside.write_text("0" * 64 + "  x\n", encoding="utf-8")
    assert judge(str(whole)).code == "digest"
    beside.write_text("", encoding="utf-8")
    assert judge(str(whole)).code == "digest"


def test_judge_never_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(str(tmp_path / "none")).code == "not-found"
    assert judge(str(tmp_path)).code == "is-folder"
    (tmp_path / "empty").write_bytes(b"")
    assert judge(str(tmp_path / "empty")).code == "no-archive"
    path = ours(tmp_path / "x.tar.gz", Gzip())
    assert judge(str(path), expected_controller_uuid="nobody").code == "other-controller"
    monkeypatch.setattr("ansible.module_utils.juju_dr.archive._walk", lambda *_: 1 / 0)
    assert judge(str(path)).code == "unexpected"
    assert "ZeroDivisionError" in judge(str(path)).cause

    def failing(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ansible.module_utils.juju_dr.archive_source.is_encrypted", failing)
    assert judge(str(path)).code == "unreadable"


def test_zstd_without_its_library_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ours(tmp_path / "x.tar.zst", Zstd())

    def missing() -> Codec:
        return Zstd(None)

    monkeypatch.setattr("ansible.module_utils.juju_dr.archive_source.Zstd", missing)
    assert judge(str(path)).code == "no-zstd"


def test_random_bytes_are_never_an_archive(tmp_path: Path) -> None:
    @settings(max_examples=rounds(150, 5000), deadline=None, suppress_health_check=list(HealthCheck))
    @given(head=st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd"]), rest=st.binary(max_size=300))
    def check(head: bytes, rest: bytes) -> None:
        (tmp_path / "x").write_bytes(head + rest)
        verdict = judge(str(tmp_path / "x"))
        assert not verdict.ok
        assert verdict.code != "unexpected", verdict.cause

    check()


def test_any_content_of_files_survives(tmp_path: Path) -> None:
    """Round trip: what was added is what is unpacked, whatever it is."""

    @settings(max_examples=rounds(25, 1000), deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        contents=st.dictionaries(st.text("abc é\udcff", min_size=1, max_size=130), st.binary(max_size=2000), max_size=4),
        name=st.sampled_from(sorted(WAYS)),
    )
    def check(contents: dict[str, bytes], name: str) -> None:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        way = WAYS[name]()
        writer = ArchiveWriter(folder / "y", way)
        for one, content in files().items():
            writer.add(one, [content + (bytes(1024) if one == "root.tar" else b"")])
        for one, content in contents.items():
            writer.add(f"notes/{one}", [content])
        made = writer.finish({"root": listed(), "controller_uuid": "u"}, folder / "x")
        unpack(made.path, str(folder / "out"), made.sha256)
        for one, content in contents.items():
            assert (folder / "out" / "notes" / one).read_bytes() == content
        shutil.rmtree(folder)

    check()


@pytest.mark.parametrize("library", ["isal", "zlib"])
@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_members_are_unpacked_in_order_whatever_the_pieces(library: str, size: int) -> None:
    """A piece may end inside a checksum, with content still to come out."""
    way = Gzip() if library == "isal" else Gzip(zlib)
    chosen = random.Random(size)
    contents = [chosen.randbytes(chosen.choice((0, 1, 100, 3000))) for _ in range(40)] + [bytes(200_000)]
    packed = b"".join(way.pack(content) for content in contents)

    class Dripping:
        at = 0

        def read(self, _: int) -> bytes:
            data = packed[self.at : self.at + chosen.randrange(1, 2000)]
            self.at += len(data)
            return data

    reader, found = Inflate(Dripping(), way, "x"), b""
    for piece in iter(lambda: reader.read(size if size > 7 else 64 * size), b""):
        found += piece
    assert found == b"".join(contents)


def test_unpack_leaves_nothing_of_what_it_refuses(tmp_path: Path) -> None:
    path = crooked(tmp_path / "x.tar.gz", WRONG["a digest"][0])
    with pytest.raises(Refused, match="does not hold what its manifest says"):
        unpack(str(path), str(tmp_path / "out"), "")
    assert not (tmp_path / "out").exists()
    good = ours(tmp_path / "y.tar.gz", Gzip())
    with pytest.raises(Refused, match="exists already"):
        unpack(str(good), str(tmp_path), "")
    with pytest.raises(Refused, match="cannot be read or written"):
        unpack(str(good), str(tmp_path / "no" / "such"), "")


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ours(tmp_path / "x.tar.gz", Gzip())
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(Refused, match="0 MiB are free"):
        unpack(str(path), str(tmp_path / "out"), "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("megabytes", [24, 96])
def test_the_reader_s_memory_stays_bounded(way: Codec, tmp_path: Path, megabytes: int) -> None:
    script = f"""
import resource, sys
import ansible.module_utils
ansible.module_utils.__path__.append({str(Path(__file__).resolve().parents[2] / "module_utils")!r})
from pathlib import Path
from ansible.module_utils.juju_dr.archive_source import opened
from ansible.module_utils.juju_dr.archive_tar import LIMITS, members
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec
def read(path):
    with opened(path) as source:
        for _, body in members(source.stream, path, LIMITS, "juju-backup"):
            for _ in body.blocks():
                pass
def write(path, size):
    writer = ArchiveWriter(Path(path + ".partial"), codec({way.name!r}))
    writer.add("x", (bytes(range(256)) * 4096 for _ in range(size)))
    writer.finish({{"root": []}}, Path(path))
write({str(tmp_path / "a")!r}, 20)
write({str(tmp_path / "b")!r}, {megabytes})
read({str(tmp_path / "a")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read({str(tmp_path / "b")!r})
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 24 * 1024, f"grew by {after - before} KiB"
