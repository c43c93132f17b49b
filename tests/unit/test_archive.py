"""Archives are read to their last byte; each thing that can be wrong is one sentence with its cure."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.archive import inspect, unpack
from ansible.module_utils.juju_dr.archive_write import MANIFEST, ArchiveWriter, Written, root_tar
from ansible.module_utils.juju_dr.backup_metadata import BackupMetadata, format_metadata, parse
from ansible.module_utils.juju_dr.bson_stream import split
from ansible.module_utils.juju_dr.codec import Gzip
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.verdict import judge

from lab.scale import rounds

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
SINGLE = {version: FIXTURES / f"juju-{version}-single.tar.gz" for version in ("2.9.61", "3.6.26")}


def staged(version: str, folder: Path) -> tuple[Path, list[tuple[Path, str]], BackupMetadata]:
    """A staging folder and host files, as a backup has them, from a fixture."""
    unpacked = folder / "unpacked"
    unpack(str(SINGLE[version]), str(unpacked), "")
    staging = folder / "staging"
    staging.mkdir()
    shutil.move(str(unpacked / "dump"), staging / "dump")
    metadata = parse((unpacked / "metadata.json").read_text(encoding="utf-8"))
    root = unpacked / "root"
    files = [(path, str(path.relative_to(root))) for path in sorted(root.rglob("*"))]
    return staging, files, metadata


def write(staging: Path, files: list[tuple[Path, str]], metadata: BackupMetadata, folder: Path, name: str) -> Written:
    """One archive of a staging folder and a host's files."""
    root: list[dict[str, Any]] = []
    writer = ArchiveWriter(folder / (name + ".partial"), Gzip())
    writer.add("metadata.json", [format_metadata(metadata).encode("utf-8")])
    writer.add("root.tar", root_tar(files, root))
    for path in sorted(p for p in (staging / "dump").rglob("*") if p.is_file()):
        writer.add(path.relative_to(staging).as_posix(), [path.read_bytes()])
    return writer.finish({"controller_uuid": metadata.controller_uuid, "root": root}, folder / name)


@pytest.fixture(scope="module", params=sorted(SINGLE))
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of our own making."""
    folder = tmp_path_factory.mktemp("ours")
    staging, files, metadata = staged(request.param, folder)
    return Path(write(staging, files, metadata, folder, "juju-backup-20261124-101500.tar.gz").path)


def rebuilt(
    path: Path, target: Path, change: Callable[[str, tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]
) -> str:
    """A copy with members changed or left out, as of others: without manifest and trailer."""
    with tarfile.open(path) as old, tarfile.open(target, "w:gz") as new:
        for member in old:
            if member.name == MANIFEST:
                continue
            content = old.extractfile(member)
            changed = change(member.name, member, content.read() if content else b"")
            if changed:
                changed[0].size = len(changed[1])
                new.addfile(changed[0], io.BytesIO(changed[1]))
    return str(target)


@pytest.mark.parametrize(("version", "machine"), [("2.9.61", "0"), ("3.6.26", "0")])
def test_juju_s_own_archives_are_read(version: str, machine: str) -> None:
    info = inspect(str(SINGLE[version]))
    assert (info.format, info.version, info.machine_id) == ("create-backup 2", f"{version}.1", machine)
    assert info.addresses == [{"2.9.61": "10.99.0.11", "3.6.26": "10.99.0.15"}[version]]
    assert info.sha256 == hashlib.sha256(SINGLE[version].read_bytes()).hexdigest()
    assert not info.has_agent_binary
    assert any("1 of" in sentence and "blobs" in sentence for sentence in info.unproven)


def test_ours_says_the_same_and_proves_more(ours: Path) -> None:
    info = inspect(str(ours))
    theirs = inspect(str(SINGLE[info.version[:-2]]))
    assert info.format == "juju-dr"
    for name in ("controller_uuid", "model_uuid", "machine_id", "version", "addresses", "documents", "collections", "ca_cert"):
        assert getattr(info, name) == getattr(theirs, name)
    assert not any("manifest" in sentence or "sha256" in sentence for sentence in info.unproven)


def test_what_is_unpacked_is_what_was_packed(ours: Path, tmp_path: Path) -> None:
    info = inspect(str(ours))
    unpack(str(ours), str(tmp_path / "again"), info.sha256)
    unpack(str(SINGLE[info.version[:-2]]), str(tmp_path / "theirs"), "")
    for part in ("dump", "root"):
        one, other = (
            {str(p.relative_to(tmp_path / w / part)): p for p in (tmp_path / w / part).rglob("*")} for w in ("again", "theirs")
        )
        assert sorted(one) == sorted(other)
        for name, path in one.items():
            if path.is_symlink():
                assert path.readlink() == other[name].readlink()
            elif path.is_file():
                assert path.read_bytes() == other[name].read_bytes()
                if part == "root":
                    assert path.stat().st_mode == other[name].stat().st_mode
    assert (tmp_path / "again").stat().st_mode & 0o777 == 0o700


def test_metadata_is_what_juju_restore_accepts(ours: Path) -> None:
    """juju-restore refuses format 2 and wants Series on 2.9 and none on 3.x."""
    with tarfile.open(ours) as tar:
        content = tar.extractfile("juju-backup/metadata.json")
        assert content is not None
        read = json.load(content)
    assert read["FormatVersion"] == 1
    assert ("Series" in read) == read["Version"].startswith("2.9")
    assert parse(format_metadata(parse(json.dumps(read)))) == parse(json.dumps(read))


def test_juju_restore_s_reader_accepts_it(ours: Path) -> None:
    """Its rules, in the words of its code: gzip when the name ends so, all below juju-backup/, a root.tar that is a tar,
    metadata of format 0 or 1, and two collections that are raw documents end to end."""
    assert ours.name.endswith(".gz")
    kept: dict[str, bytes] = {}
    # One gzip stream after the other, as Go's reader takes them; one tar, to its first empty block.
    with gzip.open(ours) as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
        for member in tar:
            assert member.name.startswith("juju-backup/") or (member.isdir() and member.name == "juju-backup")
            assert member.isreg() or member.isdir()
            assert not member.isdir() or member.mode & 0o700 == 0o700
            content = tar.extractfile(member)
            if content is not None:
                kept[member.name[len("juju-backup/") :]] = content.read()
    with tarfile.open(fileobj=io.BytesIO(kept["root.tar"]), mode="r:") as root:
        assert all(member.isreg() or member.isdir() or member.issym() for member in root)
    metadata = json.loads(kept["metadata.json"])
    assert metadata["FormatVersion"] in (0, 1)
    for collection in ("models", "clouds"):
        assert len(list(split(io.BytesIO(kept[f"dump/juju/{collection}.bson"])))) >= 1


def test_members_are_closed_to_others(ours: Path) -> None:
    with tarfile.open(ours) as tar:
        assert {m.mode for m in tar if m.isfile()} == {0o600}
    assert ours.stat().st_mode & 0o077 == 0


def test_a_file_that_grows_or_vanishes_does_not_stop_a_backup(tmp_path: Path) -> None:
    staging, files, metadata = staged("2.9.61", tmp_path)
    files.append((tmp_path / "gone.log", "var/log/juju/gone.log"))
    written = write(staging, files, metadata, tmp_path, "juju-backup-1.tar.gz")
    assert inspect(written.path).format == "juju-dr"
    assert list(tmp_path.glob("*.partial")) == []


WRONG: list[tuple[str, Callable[[Path, Path], str], str]] = [
    ("no file", lambda ours, tmp: str(tmp / "nothing.tar.gz"), "There is no archive at"),
    ("a folder", lambda ours, tmp: str(tmp), "is a folder"),
    ("no gzip", lambda ours, tmp: _file(tmp, b"hello"), "is not a tar.gz"),
    ("an empty file", lambda ours, tmp: _file(tmp, b""), "is not a tar.gz"),
    ("gzip of no tar", lambda ours, tmp: _file(tmp, gzip.compress(b"hello" * 999)), "no whole tar inside"),
    ("cut", lambda ours, tmp: _file(tmp, ours.read_bytes()[:-100]), "ends early"),
    ("cut in the middle", lambda ours, tmp: _file(tmp, ours.read_bytes()[: ours.stat().st_size // 2]), "ends early"),
    ("another file's digest beside it", lambda ours, tmp: _sidecar(tmp, ours), "is not what"),
    ("no metadata", lambda ours, tmp: rebuilt(ours, tmp / "x", _without("metadata.json")), "no metadata.json"),
    ("no dump", lambda ours, tmp: rebuilt(ours, tmp / "x", _without("dump")), "no dump/juju/controllers.bson"),
    (
        "a cut collection",
        lambda ours, tmp: rebuilt(ours, tmp / "x", _cut("machines.bson")),
        r"machines.bson is damaged at byte",
    ),
    (
        "a cut root.tar",
        lambda ours, tmp: rebuilt(ours, tmp / "x", _cut("root.tar")),
        "root.tar in the archive|no agent.conf",
    ),
    ("a newer format", lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(FormatVersion=3)), "FormatVersion 3"),
    ("Juju 1", lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(Version="1.25.6")), "are of different controllers"),
    ("Juju 2.8", lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(Version="2.8.1")), "Juju 2.8.1 is not supported"),
    ("Juju 4", lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(Version="4.0.1")), "Juju 4.0.1 is not supported"),
    (
        "another machine",
        lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(ControllerMachineID="9")),
        "no agent.conf of controller machine 9",
    ),
    (
        "another controller",
        lambda ours, tmp: rebuilt(ours, tmp / "x", _metadata(ControllerUUID="u")),
        "are of different controllers",
    ),
    ("a name that leads out", lambda ours, tmp: rebuilt(ours, tmp / "x", _renamed("juju-backup/../evil")), "leads out of it"),
    ("an absolute name", lambda ours, tmp: rebuilt(ours, tmp / "x", _renamed("/etc/evil")), "leads out of it"),
    ("another top folder", lambda ours, tmp: rebuilt(ours, tmp / "x", _renamed("other/evil")), "leads out of it"),
    ("a name twice", lambda ours, tmp: rebuilt(ours, tmp / "x", _renamed("juju-backup/metadata.json")), "twice"),
    ("a device", lambda ours, tmp: rebuilt(ours, tmp / "x", _typed(tarfile.CHRTYPE)), "no plain file or folder"),
    ("a link", lambda ours, tmp: rebuilt(ours, tmp / "x", _typed(tarfile.SYMTYPE)), "no plain file or folder"),
]


def _file(folder: Path, content: bytes) -> str:
    (folder / "x.tar.gz").write_bytes(content)
    return str(folder / "x.tar.gz")


def _sidecar(folder: Path, ours: Path) -> str:
    shutil.copy(ours, folder / "x.tar.gz")
    (folder / "x.tar.gz.sha256").write_text("0" * 64 + "  x.tar.gz\n", encoding="utf-8")
    return str(folder / "x.tar.gz")


def _without(part: str) -> Any:
    return lambda name, info, content: None if name.split("/")[1:2] == [part] else (info, content)


def _cut(part: str) -> Any:
    return lambda name, info, content: (
        (info, content[:-5] if "bson" in part else content[:5000]) if name.endswith("/" + part) else (info, content)
    )


def _emptied(part: str) -> Any:
    return lambda name, info, content: (info, b"") if name.endswith("/" + part) else (info, content)


def _metadata(**values: Any) -> Any:
    def change(name: str, info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        return info, json.dumps({**json.loads(content), **values}).encode() if name.endswith(
            "-backup/metadata.json"
        ) else content

    return change


def _renamed(new: str) -> Any:
    def change(name: str, info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        info.name = new if name.endswith("prelude.json") else name
        return info, content

    return change


def _typed(kind: bytes) -> Any:
    def change(name: str, info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
        if name.endswith("prelude.json"):
            info.type, info.linkname = kind, "/etc/passwd"
            return info, b""
        return info, content

    return change


@pytest.mark.parametrize(("make", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_is_one_sentence_with_its_cure(ours: Path, tmp_path: Path, make: Any, words: str) -> None:
    path = make(ours, tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(JujuDrError, match=words) as seen:
        inspect(path)
    assert seen.value.cure
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_another_controller_s_archive_is_refused_by_name(ours: Path) -> None:
    with pytest.raises(JujuDrError, match="expected was nobody"):
        inspect(str(ours), expected_controller_uuid="nobody")


@pytest.mark.torture
def test_flips_in_a_whole_archive_are_seen(ours: Path, tmp_path: Path) -> None:
    """Single bits anywhere in an archive made of a real controller's data, without the digest beside it."""
    content, chosen = ours.read_bytes(), random.Random(7)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    assert judge(str(path)).ok
    for _ in range(rounds(200, 10_000)):
        position, mask = chosen.randrange(len(content)), 1 << chosen.randrange(8)
        with open(path, "r+b", buffering=0) as stream:
            os.pwrite(stream.fileno(), bytes([content[position] ^ mask]), position)
            assert not judge(str(path)).ok, (position, mask)
            os.pwrite(stream.fileno(), content[position : position + 1], position)


def test_what_changed_on_its_way_is_not_unpacked(ours: Path, tmp_path: Path) -> None:
    with pytest.raises(JujuDrError, match="changed on its way"):
        unpack(str(ours), str(tmp_path / "x"), "0" * 64)
    assert not (tmp_path / "x").exists()
