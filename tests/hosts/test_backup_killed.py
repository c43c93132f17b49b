"""A backup that is killed at any moment leaves whole archives only, and juju-db running; the next one removes what it left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosts import inside
from lab.scale import rounds

ROOT = Path(__file__).resolve().parent.parent.parent
KILLER = Path(__file__).resolve().parent / "killer.py"
ON_HOST = "/var/lib/juju-dr"


@pytest.fixture(scope="module")
def controller() -> Iterator[str]:
    """A lab controller of 2.9."""
    lab = [sys.executable, "-m", "lab"]
    subprocess.run([*lab, "up", "single-2.9", "--documents", "20000"], cwd=ROOT, check=True)
    yield "c0"
    subprocess.run([*lab, "down"], cwd=ROOT, check=True)


def backup(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "playbooks/backup.yml",
        "-e",
        f"backup_dest={folder}",
        *more,
    ]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def on_host(controller: str) -> list[str]:
    return sorted(inside(controller, ["find", ON_HOST, "-mindepth", "1", "!", "-name", "step.lock"]).split())


@pytest.mark.torture
@pytest.mark.parametrize(("mode", "number"), [("hot", rounds(6, 150)), ("offline", rounds(3, 60))])
def test_whatever_is_killed_what_is_listed_is_whole(controller: str, mode: str, number: int) -> None:
    told = {"seed": f"{mode} 1", "rounds": number, "mode": mode}
    script = KILLER.read_text(encoding="utf-8")
    inside(controller, ["sh", "-c", "cat > /root/killer.py"], script)
    said = inside(controller, ["python3", "/root/killer.py"], json.dumps(told))
    print(said)
    assert said.rstrip().endswith("all is as it must be")
    assert on_host(controller) == [f"{ON_HOST}/backups"]


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, rounds(1, 10) + 1))
def test_a_killed_control_process_is_followed_by_a_backup_that_succeeds(controller: str, tmp_path: Path, seed: int) -> None:
    first = backup(tmp_path)
    # Once it works on the host, at any moment of that.
    while "lock.json" not in " ".join(on_host(controller)):
        assert first.poll() is None
    time.sleep(random.Random(seed).uniform(0, 6))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list(tmp_path.glob("juju-backup-*.tar.gz")) == [] or first.returncode == 0
    second = backup(tmp_path)
    said, _ = second.communicate(timeout=240)
    assert second.returncode == 0, said[-3000:]
    whole = [path.name for path in sorted(tmp_path.glob("juju-backup-*.tar.gz"))]
    assert whole
    left = [name for name in on_host(controller) if "/backups/juju-backup-" not in name]
    assert left == [f"{ON_HOST}/backups"]


def test_a_second_backup_at_the_same_time_is_refused_by_name(controller: str, tmp_path: Path) -> None:
    first = backup(tmp_path)
    while "lock.json" not in " ".join(on_host(controller)):
        assert first.poll() is None
    second = backup(tmp_path)
    refused, _ = second.communicate(timeout=240)
    said, _ = first.communicate(timeout=240)
    assert first.returncode == 0, said[-3000:]
    assert second.returncode != 0
    assert f":{first.pid} does a backup on this host" in refused
    assert len(list(tmp_path.glob("juju-backup-*.tar.gz"))) == 1


def test_a_full_disk_is_named_and_nothing_is_left(controller: str, tmp_path: Path) -> None:
    """Ahead, from real sizes; and when it happens all the same."""
    small = "/dev/shm/backups"
    fill = "df --output=avail -k /dev/shm | tail -1 | { read n; fallocate -l $((n - 300))K /dev/shm/filler; }"
    inside(controller, ["sh", "-c", fill])
    try:
        ahead = backup(tmp_path, "-e", f"fs_archive_dest={small}")
        said, _ = ahead.communicate(timeout=240)
        assert ahead.returncode != 0
        assert f"0 MiB are free at {small}, up to" in said
        assert "needed for the archive" in said
        assert inside(controller, ["ls", "-A", small]) == ""
        # The same without the look ahead.
        full = (
            "from pathlib import Path; from ansible.module_utils.juju_dr import backup as b\n"
            "from ansible.module_utils.juju_dr.errors import JujuDrError\n"
            "b.RESERVE_BYTES = -10**12\n"
            "h = b.Host('/var/lib/juju', '/var/snap/juju-db/common', None)\n"
            f"s = Path('{small}/.unfinished')\n"
            "try:\n  b.dump_host(s, 'hot', 'gzip', [], h, None)\n"
            "except JujuDrError as error:\n  print(error)\n"
        )
        assert "cannot be written: No space left on device" in inside(controller, ["python3", "-"], full)
        assert inside(controller, ["ls", "-A", small]) == ""
    finally:
        inside(controller, ["rm", "-rf", "/dev/shm/filler", small])
    assert list(tmp_path.glob("juju-backup-*")) == []
    assert inside(controller, ["systemctl", "is-active", "snap.juju-db.daemon"]).strip() == "active"
