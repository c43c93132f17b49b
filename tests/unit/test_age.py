"""Encrypted files: what goes in comes out, to a recipient only, and no damage passes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import age
from ansible.module_utils.juju_dr.age import AgeError, check_recipients, decrypting, encrypt, is_encrypted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.scale import rounds

PLAIN = random.Random(1).randbytes(200_000)


def age_key(path: Path) -> str:
    """Makes a key and returns its recipient."""
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    path.chmod(0o600)
    return subprocess.run(["age-keygen", "-y", str(path)], check=True, capture_output=True, text=True).stdout.strip()


def ssh_key(path: Path, kind: str, passphrase: str = "") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Identity and recipient by kind; ``other`` is no recipient."""
    folder = tmp_path_factory.mktemp("keys")
    made = {name: (folder / name, age_key(folder / name)) for name in ("age", "other")}
    for kind in ("ed25519", "rsa"):
        made[kind] = (folder / kind, ssh_key(folder / kind, kind))
    made["locked"] = (folder / "locked", ssh_key(folder / "locked", "ed25519", "secret"))
    return made


@pytest.fixture(scope="module")
def recipients(keys: dict[str, tuple[Path, str]]) -> list[str]:
    return [recipient for name, (_, recipient) in keys.items() if name != "other"]


@pytest.fixture
def packed(tmp_path: Path, recipients: list[str]) -> Path:
    return encrypted(tmp_path / "juju-backup.tar.gz", PLAIN, recipients)


def encrypted(path: Path, content: bytes, recipients: list[str]) -> Path:
    path.write_bytes(content)
    return encrypt(path, recipients)


def plain(path: Path, identity: Path | str) -> bytes:
    with decrypting(path, str(identity)) as stream:
        return stream.read()


def refused(path: Path, identity: Path | str) -> AgeError:
    with pytest.raises(AgeError) as caught:
        plain(path, identity)
    return caught.value


@pytest.mark.parametrize("kind", ["age", "ed25519", "rsa"])
def test_each_recipient_reads_it(packed: Path, keys: dict[str, tuple[Path, str]], kind: str) -> None:
    assert plain(packed, keys[kind][0]) == PLAIN


def test_only_the_encrypted_file_stays_with_its_digest(tmp_path: Path, recipients: list[str]) -> None:
    source = tmp_path / "juju-backup.tar.gz"
    source.with_name(source.name + ".sha256").write_text("of the plain file")
    packed = encrypted(source, PLAIN, recipients)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["juju-backup.tar.gz.age", "juju-backup.tar.gz.age.sha256"]
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    digest = hashlib.sha256(packed.read_bytes()).hexdigest()
    assert packed.with_name(packed.name + ".sha256").read_text() == f"{digest}  {packed.name}\n"
    assert is_encrypted(packed)
    assert PLAIN[1000:1032] not in packed.read_bytes()


@settings(max_examples=rounds(15, 300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300_000), piece=st.integers(1, 100_000))
def test_round_trip(tmp_path: Path, keys: dict[str, tuple[Path, str]], content: bytes, piece: int) -> None:
    packed = encrypted(tmp_path / "any", content, [keys["age"][1]])
    with decrypting(packed, str(keys["age"][0])) as stream:
        assert b"".join(iter(lambda: stream.read(piece), b"")) == content


def test_armoured_files_are_read_too(tmp_path: Path, keys: dict[str, tuple[Path, str]]) -> None:
    packed = tmp_path / "armoured"
    command = ["age", "--armor", "-r", keys["age"][1], "-o", str(packed)]
    subprocess.run(command, input=PLAIN, check=True)
    assert is_encrypted(packed)
    assert plain(packed, keys["age"][0]) == PLAIN


@pytest.mark.torture
def test_no_flipped_bit_passes(tmp_path: Path, keys: dict[str, tuple[Path, str]]) -> None:
    content = encrypted(tmp_path / "small", PLAIN[:900], [keys["age"][1]]).read_bytes()
    flipped = tmp_path / "flipped"
    every = range(len(content) * 8)
    for bit in sorted(random.Random(4).sample(every, rounds(300, len(every)))):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(changed)
        assert refused(flipped, keys["age"][0]).code in ("damaged", "wrong-identity"), f"bit {bit}"


@pytest.mark.torture
def test_no_cut_passes(tmp_path: Path, keys: dict[str, tuple[Path, str]]) -> None:
    content = encrypted(tmp_path / "small", PLAIN[:70_000], [keys["age"][1]]).read_bytes()
    cut = tmp_path / "cut"
    every = range(len(content))
    for length in sorted({0, 1, len(content) - 1, 65536, *random.Random(4).sample(every, rounds(150, len(every)))}):
        cut.write_bytes(content[:length])
        assert refused(cut, keys["age"][0]).code == "damaged", f"cut at {length}"


def test_what_is_behind_the_end_is_damage(packed: Path, keys: dict[str, tuple[Path, str]]) -> None:
    packed.write_bytes(packed.read_bytes() + b"\n")
    assert refused(packed, keys["age"][0]).code == "damaged"


def test_damage_behind_what_was_read_is_told_when_the_context_ends(packed: Path, keys: dict[str, tuple[Path, str]]) -> None:
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    with pytest.raises(AgeError, match="damaged"), decrypting(packed, str(keys["age"][0])) as stream:
        assert stream.read(10) == PLAIN[:10]


def test_a_reader_that_fails_ends_age(packed: Path, keys: dict[str, tuple[Path, str]]) -> None:
    with pytest.raises(KeyError), decrypting(packed, str(keys["age"][0])):
        raise KeyError
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_identities(packed: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path) -> None:
    assert refused(packed, "").code == "no-identity"
    assert "-e identity=" in refused(packed, "").cure
    assert refused(packed, keys["other"][0]).code == "wrong-identity"
    assert refused(packed, tmp_path / "missing").code == "bad-identity"
    assert "no file" in refused(packed, tmp_path).problem
    assert "passphrase" in refused(packed, keys["locked"][0]).problem
    junk = tmp_path / "junk"
    junk.write_text("hello\n")
    junk.chmod(0o600)
    assert "no secret key" in refused(packed, junk).problem
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    assert "no file" in refused(packed, fifo).problem


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o700, 0o660])
def test_an_identity_that_others_may_use_is_refused(
    packed: Path, keys: dict[str, tuple[Path, str]], tmp_path: Path, mode: int
) -> None:
    copy = tmp_path / "identity"
    copy.write_bytes(keys["age"][0].read_bytes())
    copy.chmod(mode)
    assert f"{mode:04o}" in refused(packed, copy).problem
    copy.chmod(0o400)
    assert plain(packed, copy) == PLAIN


def test_an_identity_of_somebody_else_is_refused(
    packed: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "belongs to" in refused(packed, keys["age"][0]).problem


def test_recipients_are_checked_before_anything_is_written(
    tmp_path: Path, keys: dict[str, tuple[Path, str]], recipients: list[str]
) -> None:
    check_recipients(recipients)
    secret = keys["age"][0].read_text(encoding="utf-8").splitlines()[-1]
    source = tmp_path / "plain"
    source.write_bytes(PLAIN)
    good = keys["age"][1]
    for bad in (
        secret,
        "",
        "age1xyz",
        good + "x",
        good[:-1],
        "ssh-rsa foo",
        "ssh-ed25519 AAAA",
        "github:someone",
        "-h",
        f" {good}",
    ):
        with pytest.raises(AgeError) as caught:
            encrypt(source, [good, bad])
        assert caught.value.code == "bad-recipient"
        assert "Recipient 2" in caught.value.problem
        assert secret not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]
    assert source.read_bytes() == PLAIN


def test_without_age_the_cure_is_named(
    packed: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert refused(packed, keys["age"][0]).code == "age-missing"
    with pytest.raises(AgeError, match="apt install age"):
        check_recipients([])


def fake_age(folder: Path, script: str) -> None:
    (folder / "age").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "age").chmod(0o755)


def test_a_failed_age_leaves_the_plain_file(
    tmp_path: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    # Fails only when there is something to encrypt, so after the recipients were checked.
    fake_age(folder, 'if [ -n "$(head -c 1 | tr -d "\\0")" ]; then echo half; echo "age: error: no space" >&2; exit 1; fi')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    source = tmp_path / "plain"
    source.write_bytes(b"x" * 100)
    with pytest.raises(AgeError, match="no space"):
        encrypt(source, [keys["age"][1]])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin", "plain"]


def test_a_full_disk_ends_age_and_leaves_the_plain_file(
    tmp_path: Path, keys: dict[str, tuple[Path, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "plain"
    source.write_bytes(PLAIN)
    full = Path("/dev/full")
    monkeypatch.setattr(age, "_private", lambda path: full.open("wb", buffering=0))
    with pytest.raises(OSError, match="No space left"):
        encrypt(source, [keys["age"][1]])
    assert [p.name for p in tmp_path.iterdir()] == ["plain"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
