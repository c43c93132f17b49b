"""One run at a time on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import lock
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import (
    Holder,
    Run,
    is_gone,
    read,
    release,
    sign_of_life,
    step,
    step_process,
    take,
    this_run,
)

ONE = Run("root@a:1", "restore", {"host": "a", "pid": "1"})
OTHER = Run("root@b:2", "backup", {"host": "b", "pid": "2"})
HOUR = 3600.0
# A process that holds a step until it is ended.
WORK = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import ansible.module_utils
ansible.module_utils.__path__.append({root!r} + "/module_utils")
from ansible.module_utils.juju_dr.lock import step
with step(Path({folder!r})):
    print("working", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    script = WORK.format(root=str(Path(__file__).resolve().parent.parent.parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    yield process
    process.kill()
    process.communicate()


def held_by_one(folder: Path) -> None:
    lock._write(Holder(ONE, time.time(), lock._boot(), lock._uptime()), folder)


def test_one_run_has_it_until_it_gives_it_back(tmp_path: Path) -> None:
    assert take(ONE, HOUR, folder=tmp_path).changed
    assert not take(ONE, HOUR, folder=tmp_path).changed
    with pytest.raises(
        JujuDrError, match=r"root@a:1 does a restore on this host, begun .* last sign of life 0 s ago.*lock_override=root@a:1"
    ):
        take(OTHER, HOUR, folder=tmp_path)
    assert not release(OTHER, folder=tmp_path)
    assert release(ONE, folder=tmp_path)
    assert not release(ONE, folder=tmp_path)
    assert take(OTHER, HOUR, folder=tmp_path).notes == ()


def test_the_file_is_private_and_readable(tmp_path: Path) -> None:
    take(ONE, HOUR, folder=tmp_path)
    assert (tmp_path / lock.NAME).stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / lock.NAME).read_text(encoding="utf-8"))["run"]["purpose"] == "restore"


def test_looking_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert take(ONE, HOUR, folder=folder, apply=False).changed
    assert not release(ONE, folder=folder, apply=False)
    assert not folder.exists()


def test_age_is_uptime_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 4e9)
    take(ONE, HOUR, folder=tmp_path)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    with pytest.raises(JujuDrError, match="last sign of life 0 s ago"):
        take(OTHER, HOUR, folder=tmp_path)
    up = lock._uptime()
    monkeypatch.setattr(lock, "_uptime", lambda: up + HOUR + 1)
    assert "last sign of life 3601 s ago" in take(OTHER, HOUR, folder=tmp_path).notes[0]


def test_a_sign_of_life_makes_it_young_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(ONE, HOUR, folder=tmp_path)
    up = lock._uptime()
    monkeypatch.setattr(lock, "_uptime", lambda: up + HOUR + 1)
    sign_of_life(ONE.name, tmp_path)
    with pytest.raises(JujuDrError, match="does a restore"):
        take(OTHER, HOUR, folder=tmp_path)


def test_a_host_started_anew_ends_every_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(ONE, HOUR, folder=tmp_path)
    monkeypatch.setattr(lock, "_boot", lambda: "another boot")
    assert "before this host was started anew" in take(OTHER, HOUR, folder=tmp_path).notes[0]


def test_a_run_whose_lock_was_taken_over_does_not_go_on(tmp_path: Path) -> None:
    with pytest.raises(JujuDrError, match="taken over by nobody"):
        sign_of_life(ONE.name, tmp_path)
    take(ONE, HOUR, folder=tmp_path)
    take(OTHER, HOUR, instead_of=ONE.name, folder=tmp_path)
    with pytest.raises(JujuDrError, match="taken over by root@b:2"):
        sign_of_life(ONE.name, tmp_path)


def test_a_damaged_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text("{}", encoding="utf-8")
    with pytest.raises(JujuDrError, match="cannot be read"):
        read(tmp_path)


def test_two_at_once_one_wins(tmp_path: Path) -> None:
    won, refused = [], []

    def try_it(number: int) -> None:
        try:
            take(Run(f"r{number}", "x", {"pid": str(number)}), HOUR, folder=tmp_path)
            won.append(number)
        except JujuDrError:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 15)


def test_a_step_is_refused_while_another_works(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    assert step_process(tmp_path) == worker.pid
    with pytest.raises(JujuDrError, match=f"Process {worker.pid} changes this host already"), step(tmp_path):
        pass


def test_a_step_ends_with_its_process(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    assert step_process(tmp_path) is None
    with step(tmp_path):
        assert step_process(tmp_path) == os.getpid()
    assert step_process(tmp_path) is None


def test_the_working_step_of_a_dead_run_is_ended(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    held_by_one(tmp_path)
    notes = take(OTHER, HOUR, instead_of=ONE.name, folder=tmp_path).notes
    assert f"process {worker.pid}, still worked here and was ended" in notes[1]
    assert worker.wait(5) != 0


def test_a_working_step_is_a_sign_of_life(
    tmp_path: Path, worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by_one(tmp_path)
    up = lock._uptime()
    monkeypatch.setattr(lock, "_uptime", lambda: up + HOUR + 1)
    with pytest.raises(JujuDrError, match=f"and process {worker.pid} works here for it"):
        take(OTHER, HOUR, folder=tmp_path)


def test_a_step_without_a_run_is_not_ended(tmp_path: Path, worker: subprocess.Popen[str]) -> None:
    with pytest.raises(JujuDrError, match=f"Process {worker.pid} of an earlier run still works"):
        take(ONE, HOUR, folder=tmp_path)
    assert worker.poll() is None


def test_a_step_that_does_not_end_is_named(
    tmp_path: Path, worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by_one(tmp_path)
    monkeypatch.setattr(lock, "STEP_SECONDS", 0.2)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(JujuDrError, match="does not end"):
        take(OTHER, HOUR, instead_of=ONE.name, folder=tmp_path)


def test_only_the_control_machine_of_a_run_knows_that_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "60"])
    control = this_run("root", "here", process.pid)["control"]
    assert not is_gone(control, "here")
    process.kill()
    # A process that nobody waited for has ended all the same.
    while Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z":
        pass
    assert is_gone(control, "here")
    process.wait()
    assert is_gone(control, "here")
    assert not is_gone(control, "elsewhere")
    assert not is_gone({**control, "space": "pid:[1]"}, "here")
    assert is_gone({**control, "boot": "before"}, "here")
    assert not is_gone({**control, "start": ""}, "here")
    monkeypatch.setattr(lock, "_BOOT", Path("/nowhere"))
    assert this_run("root", "here", 1)["control"]["start"] == ""
