"""Archives travel whole or not at all: cut lines, foreign parts, full disks, and what is not sent twice."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import codec

from lab import faults
from lab.hosts import inside
from tests.hosts.transfer.playing import Ansible, Run

SIZE = 24 << 20
MEGABITS = 60
FAR = "/var/lib/juju-dr/backups/juju-backup-20261124-101500.tar.gz"
NAME = Path(FAR).name
SENT = "/var/lib/juju-dr/incoming/archive"
# Shorter than any test waits for a host that stays away.
PATIENCE = 4


def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def far(command: str) -> str:
    return inside("n0", ["sh", "-c", command]).strip()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def archive(spare: str) -> str:
    """A file on the host that could be an archive; its digest."""
    far(f"install -d -m 0711 {Path(FAR).parent} {Path(FAR).parent.parent} && install -d -m 0700 {Path(SENT).parent}")
    far(f"umask 077; head -c {SIZE} /dev/urandom > {FAR}; cd {Path(FAR).parent} && sha256sum {NAME} > {NAME}.sha256")
    return far(f"cut -c 1-64 {FAR}.sha256")


@pytest.fixture
def line(spare: str) -> Iterator[str]:
    """A line slow enough to be cut, whole again afterwards."""
    faults.slow(spare, MEGABITS)
    yield spare
    faults.plug(spare)
    faults.slow(spare, 0)


def fetching(dest: Path, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "fetch", "juju_fetch": {"src": FAR, "dest": str(dest), **more}}]


def untouched_there() -> bool:
    """The host's copy is root's alone, and nothing lies beside it."""
    listed = far(f"stat -c '%U %a %n' {Path(FAR).parent}/*").splitlines()
    return [one.split(" ")[::2] for one in listed] == [["root", FAR], ["root", f"{FAR}.sha256"]] and listed[0].split()[
        1
    ] == "600"


def test_a_fetch_that_is_cut_goes_on_when_the_line_is_back(line: str, archive: str, ansible: Ansible, tmp_path: Path) -> None:
    dest = tmp_path / NAME
    run = ansible.start("n0", fetching(dest))
    until(lambda: size(dest) > 8 << 20, "the first bytes")
    faults.unplug(line)
    time.sleep(3.5)  # Until the connection is seen to be dead.
    faults.plug(line)
    assert run.wait().code == 0, run.output
    assert digest(dest) == archive
    assert dest.stat().st_mode & 0o777 == 0o600
    assert run.results["fetch"]["sha256"] == archive
    assert untouched_there()


def test_a_fetch_that_stays_cut_fails_and_the_next_one_goes_on(
    line: str, archive: str, ansible: Ansible, tmp_path: Path
) -> None:
    dest = tmp_path / NAME
    run = ansible.start("n0", fetching(dest), juju_dr_reconnect_seconds=PATIENCE)
    until(lambda: size(dest) > 8 << 20, "the first bytes")
    faults.unplug(line)
    run.wait()
    faults.plug(line)
    message = run.results["fetch"]["msg"]
    assert run.code != 0
    assert message.startswith("n0 cannot be reached for 0:")
    assert f"of 24.0 MiB are kept in {dest}" in message
    assert message.endswith("ansible-playbook playbooks/fetch.yml --limit n0.")
    kept = size(dest)
    assert kept >= 4 << 20
    assert dest.stat().st_mode & 0o777 == 0o600
    again = ansible.run("n0", fetching(dest))
    result = again.results["fetch"]
    assert (result["resumed_at"], result["fetched"]) == (kept, SIZE - kept)
    assert digest(dest) == archive
    assert untouched_there()


def test_a_part_of_something_else_is_not_gone_on_with(archive: str, ansible: Ansible, tmp_path: Path) -> None:
    dest = tmp_path / NAME
    dest.write_bytes(os.urandom(1 << 20))
    result = ansible.run("n0", fetching(dest)).results["fetch"]
    assert (result["resumed_at"], result["fetched"]) == (0, SIZE)
    assert digest(dest) == archive
    dest.write_bytes(os.urandom(SIZE + 1))
    result = ansible.run("n0", fetching(dest)).results["fetch"]
    assert (result["resumed_at"], digest(dest)) == (0, archive)


def test_check_mode_fetches_nothing(archive: str, ansible: Ansible, tmp_path: Path) -> None:
    task = {**fetching(tmp_path / NAME)[0], "check_mode": True}
    result = ansible.run("n0", [task]).results["fetch"]
    assert (result["changed"], result["size"], result["sha256"]) == (True, SIZE, archive)
    assert not (tmp_path / NAME).exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of this machine with room for the archive and a little more."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE * 2 + (20 << 20)}", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_is_refused_ahead(archive: str, ansible: Ansible, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(b"\0" * SIZE)
    run = ansible.run("n0", fetching(small_disk / NAME))
    assert f"{small_disk} on this machine has 44.0 MiB free, and 64.0 MiB are needed" in run.results["fetch"]["msg"]
    assert size(small_disk / NAME) == 0
    assert untouched_there()


def test_a_disk_that_becomes_full_is_left_as_it_was(line: str, archive: str, ansible: Ansible, small_disk: Path) -> None:
    run = ansible.start("n0", fetching(small_disk / NAME))
    until(lambda: size(small_disk / NAME) > 4 << 20, "the first bytes")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "other").write_bytes(b"\0" * SIZE * 3)
    run.wait()
    assert f"The disk that holds {small_disk} became full while {NAME} was written" in run.results["fetch"]["msg"]
    assert [path.name for path in small_disk.iterdir()] == ["other"]
    assert untouched_there()


def packed(path: Path, files: dict[str, bytes]) -> Path:
    writer = ArchiveWriter(path.with_suffix(".partial"), codec("gzip"))
    for name, content in files.items():
        writer.add(name, [content])
    writer.finish({"root": []}, path)
    return path


def test_what_an_older_archive_holds_is_not_fetched_again(spare: str, ansible: Ansible, tmp_path: Path) -> None:
    files = {f"dump/juju/{number}.bson": os.urandom(1 << 20) for number in range(12)}
    packed(tmp_path / "juju-backup-20261101-000000.tar.gz", {"dump/x": b"older"})
    packed(tmp_path / "juju-backup-20261123-101500.tar.gz", files)
    fresh = {**dict(reversed(files.items())), "dump/juju/3.bson": os.urandom(1 << 20), "dump/new": b"new"}
    source = packed(tmp_path / "new.tar.gz", fresh)
    there = "/var/lib/juju-dr/juju-backup-20261124-999999.tar.gz"
    inside("n0", ["sh", "-c", f"install -d -m 0711 {Path(there).parent} && umask 077 && cat > {there}"], source.read_bytes())
    dest = tmp_path / "incoming"
    task = {"name": "fetch", "juju_fetch": {"src": there, "dest": str(dest), "reuse": str(tmp_path)}}
    result = ansible.run("n0", [task]).results["fetch"]
    assert dest.read_bytes() == source.read_bytes()
    assert result["fetched"] + result["reused"] == result["size"]
    assert (1 << 20) <= result["fetched"] < (1 << 20) + (64 << 10)


# --- the other way -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("local") / "archive"
    path.write_bytes(os.urandom(SIZE))
    return path


def uploading(local: Path, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "upload", "juju_upload": {"src": str(local), "dest": SENT, **more}}]


def arrived() -> int:
    return int(far(f"stat -c %s {SENT} 2>/dev/null || echo 0"))


def check_arrival(local: Path) -> None:
    assert far(f"sha256sum {SENT} | cut -c 1-64; stat -c '%U %a' {SENT}") == f"{digest(local)}\nroot 600"


def test_an_upload_that_is_cut_goes_on_when_the_line_is_back(line: str, archive: str, ansible: Ansible, local: Path) -> None:
    far(f"rm -f {SENT}")
    run = ansible.start("n0", uploading(local))
    until(lambda: arrived() > 2 << 20, "the first bytes")
    faults.unplug(line)
    time.sleep(3.5)  # Until the connection is seen to be dead.
    faults.plug(line)
    assert run.wait().code == 0, run.output
    check_arrival(local)


def test_an_upload_that_stays_cut_fails_and_the_next_one_goes_on(
    line: str, archive: str, ansible: Ansible, local: Path
) -> None:
    far(f"rm -f {SENT}")
    run = ansible.start("n0", uploading(local), juju_dr_reconnect_seconds=PATIENCE)
    until(lambda: arrived() > 2 << 20, "the first bytes")
    faults.unplug(line)
    run.wait()
    faults.plug(line)
    message = run.results["upload"]["msg"]
    assert f"of the archive are kept there in {SENT}" in message
    assert message.endswith("run the restore again: it goes on there.")
    kept = arrived()
    again = ansible.run("n0", uploading(local)).results["upload"]
    # What was on its way when the line was cut may still have been written.
    assert again["resumed_at"] >= kept > 2 << 20
    assert again["sent"] == SIZE - again["resumed_at"]
    check_arrival(local)


def test_an_upload_over_something_else_begins_anew(archive: str, ansible: Ansible, local: Path) -> None:
    far(f"head -c {SIZE + 5} /dev/zero > {SENT}")
    result = ansible.run("n0", uploading(local)).results["upload"]
    assert (result["resumed_at"], result["sent"]) == (0, SIZE)
    check_arrival(local)
    assert ansible.run("n0", uploading(local)).results["upload"]["sent"] == 0


def test_a_target_without_room_is_refused_ahead_and_emptied_when_it_fills(
    line: str, archive: str, ansible: Ansible, local: Path
) -> None:
    folder = Path(SENT).parent
    far(f"rm -f {SENT}")
    faults.small_disk(line, str(folder), SIZE + (20 << 20))
    try:
        refused = ansible.run("n0", uploading(local, space=10 << 20))
        assert f"{folder} on n0 has 44.0 MiB free, and 50.0 MiB are needed" in refused.results["upload"]["msg"]
        run: Run = ansible.start("n0", uploading(local))
        until(lambda: arrived() > 1 << 20, "the first bytes")
        far(f"head -c {SIZE * 3} /dev/zero > {folder}/other || true")
        run.wait()
        assert f"The disk that holds {folder} on n0 became full" in run.results["upload"]["msg"]
        assert far(f"ls {folder}") == "other"
    finally:
        faults.no_small_disk(line, str(folder))
