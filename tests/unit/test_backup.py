"""A backup's ends: what killed runs left goes, what fails leaves nothing, and whoever stopped juju-db has a guard."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import backup, mongo, offline
from ansible.module_utils.juju_dr.backup import Host, archive_host, dump_host, heal, metadata_of
from ansible.module_utils.juju_dr.dump import Size
from ansible.module_utils.juju_dr.ends import Ended, tidily
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.mongo import MongoAccess

from lab.podman import ROOT


def test_what_killed_runs_left_goes_and_archives_stay(tmp_path: Path) -> None:
    staging = tmp_path / ".unfinished"
    (staging / "dqlite").mkdir(parents=True)
    (staging / "archive.partial").write_bytes(b"half")
    whole, window, lone = (tmp_path / f"juju-backup-{name}" for name in ("1.tar.gz", "1.tar.gz.window", "2.tar.gz.sha256"))
    for path in (whole, tmp_path / f"{whole.name}.sha256", window, lone, tmp_path / "other.sha256"):
        path.touch()
    assert heal(staging) == ([str(staging), str(window), str(lone)], [str(whole)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [whole.name, whole.name + ".sha256", "other.sha256"]
    assert heal(staging) == ([], [str(whole)])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A 2.9 controller's files, and a database of a size that a test sets."""
    data = tmp_path / "juju"
    fixture = ROOT / "tests/data/fixtures/juju-2.9.61-controller-files.tar.gz"
    subprocess.run(["tar", "-xzf", str(fixture), "-C", str(tmp_path)], check=True)
    shutil.copytree(tmp_path / "var/lib/juju", data, symlinks=True)
    monkeypatch.setattr(backup, "sizes", lambda _: {"juju": Size(10**9, 10**8, 10)})
    monkeypatch.setattr(backup, "controller_client", lambda *_: contextlib.nullcontext())
    return Host(str(data), str(tmp_path / "common"), None, "juju-db")


def run(_: list[str]) -> tuple[int, str, str]:
    raise AssertionError("nothing is run here")


def test_without_room_nothing_is_done(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 300 * 2**20})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(JujuDrError, match=r"300 MiB are free at .*/backups, up to 30\d MiB are needed .*\(238 MiB database"):
        dump_host(tmp_path / "backups/.unfinished", "hot", "gzip", [], host, run)
    monkeypatch.setattr(usage, "free", 400 * 2**20)
    monkeypatch.setattr(backup, "check_recipients", lambda _: None)
    with pytest.raises(JujuDrError, match="twice to encrypt it"):
        dump_host(tmp_path / "backups/.unfinished", "hot", "gzip", ["age1x"], host, run)
    assert list((tmp_path / "backups").iterdir()) == []


def test_an_offline_dump_of_a_dead_database_goes_by_its_files(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(*_: object) -> Any:
        raise JujuDrError("it does not answer", "start it")

    monkeypatch.setattr(backup, "controller_client", dead)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 0}))
    with pytest.raises(JujuDrError, match="0 MiB database"):
        dump_host(tmp_path / "backups/.unfinished", "offline", "gzip", [], host, run)


@pytest.mark.parametrize(
    ("error", "seen", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), JujuDrError, "The disk became full while the archive was written"),
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output error"),
        (KeyboardInterrupt("by hand"), KeyboardInterrupt, "by hand"),
    ],
)
def test_whatever_happens_nothing_is_left(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, seen: type[BaseException], words: str
) -> None:
    def failing(*_: object) -> Any:
        raise error

    monkeypatch.setattr(backup, "dump", failing)
    with pytest.raises(seen, match=words):
        dump_host(tmp_path / "backups/.unfinished", "hot", "gzip", [], host, run)
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_run_ended_as_it_makes_its_folder_leaves_nothing(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def ended(path: Path, *arguments: Any, **named: Any) -> None:
        make(path, *arguments, **named)
        if path.name == ".unfinished":
            raise Ended("by a signal")

    monkeypatch.setattr(Path, "mkdir", ended)
    with pytest.raises(Ended):
        dump_host(tmp_path / "backups/.unfinished", "hot", "gzip", [], host, run)
    assert list((tmp_path / "backups").iterdir()) == []


def test_an_archive_that_was_never_begun_is_not_finished(host: Host, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        archive_host(tmp_path / "nothing", tmp_path / "backups", "", [], host)


def test_names_and_metadata_tell_the_database_s_time(host: Host) -> None:
    begun = {
        "report": {"finished": "2026-11-24T10:15:00+00:00"},
        "machine": {"series": "jammy", "base": "", "instance_id": "i-1", "ha_nodes": 3},
    }
    made = metadata_of(begun, host.data_dir, "by hand")
    assert (made.started, made.operating_system, made.ha_nodes, made.notes) == ("2026-11-24T10:15:00Z", "jammy", 3, "by hand")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_raises_an_error(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with tidily(), pytest.raises(Ended, match=f"ended by {number.name}"):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


# A host's systemd in a folder: systemd-run starts what it is told, systemctl notes what it is told.
_SYSTEMD_RUN = '#!/bin/sh\nwhile case $1 in --*) true;; *) false;; esac; do shift; done\nsetsid "$@" > /dev/null 2>&1 &\n'
_HOLDER = """
import subprocess, sys
from pathlib import Path
import ansible.module_utils
ansible.module_utils.__path__.append(sys.argv[1])
from ansible.module_utils.juju_dr.offline import guarded
def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
with guarded(sys.argv[2], "juju-db", run, Path(sys.argv[3])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_the_guard_puts_back_what_a_killed_run_left(tmp_path: Path, killed: bool) -> None:
    common, tools, noted = tmp_path / "common", tmp_path / "tools", tmp_path / "noted"
    (common / "juju-dr-socket").mkdir(parents=True)
    tools.mkdir()
    (tools / "systemd-run").write_text(_SYSTEMD_RUN)
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {noted}\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    (common / "juju-db.config").write_text("for loading")
    (common / "juju-db.config.juju-dr-aside").write_text("real")
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", _HOLDER, str(ROOT / "module_utils"), str(common), str(tmp_path / "run")]
    holder = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert (common / "juju-db.config").read_text() == "for loading"
    if killed:
        holder.kill()
        holder.wait()
        deadline = time.monotonic() + 20
        while not noted.exists() or "start" not in noted.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert noted.read_text().splitlines() == ["stop juju-db", "reset-failed juju-db", "start juju-db"]
        assert (common / "juju-db.config").read_text() == "real"
        assert not (common / "juju-db.config.juju-dr-aside").exists()
        assert not (common / "juju-dr-socket").exists()
    else:
        holder.communicate("")
        assert noted.read_text().splitlines()[0] == f"stop juju-dr-guard-{holder.pid}.service"


class Systemd:
    """One that stops juju-db or not, and starts a unit only so often in a short time, as systemd does."""

    def __init__(self, starts: int, stops: bool = True) -> None:
        self.limit, self.starts, self.stops, self.runs = starts, 0, stops, True

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        verb = command[1] if command[0] == "systemctl" else ""
        if verb == "reset-failed":
            self.starts = 0
        elif verb == "start":
            if self.starts == self.limit:
                return 1, "", "Start request repeated too quickly.\n"
            self.starts, self.runs = self.starts + 1, True
        elif verb == "stop" and command[2] == "juju-db":
            if not self.stops:
                return 1, "", "Job canceled.\n"
            self.runs = False
        return 0, "", ""


@pytest.fixture
def resting(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Systemd], None]:
    """An offline dump of nothing, on a host whose mongod is always there."""
    monkeypatch.setattr(offline, "guarded", functools.partial(offline.guarded, folder=tmp_path / "run"))
    monkeypatch.setattr(offline, "_wait_member", lambda _: None)
    monkeypatch.setattr("ansible.module_utils.juju_dr.loading_server.wait_for", lambda *_: Server())
    common = Path(host.mongo_common)
    common.mkdir(exist_ok=True)
    (common / "juju-db.config").write_text("port = 37017\n")

    def rest(systemd: Systemd) -> None:
        with offline.at_rest(host.data_dir, host.mongo_common, "juju-db", systemd):
            pass

    return rest


class Server(contextlib.nullcontext["Server"]):
    """A client whose commands do nothing."""

    admin = type("Admin", (), {"command": staticmethod(lambda _: {})})

    def __enter__(self) -> Server:
        return self


def test_juju_db_starts_again_however_often_it_was_started(resting: Callable[[Systemd], None]) -> None:
    systemd = Systemd(starts=1)
    for _ in range(3):
        resting(systemd)
        assert systemd.runs


def test_a_unit_that_does_not_start_is_named(resting: Callable[[Systemd], None]) -> None:
    with pytest.raises(JujuDrError, match=r"juju-db does not start: Start request repeated too quickly"):
        resting(Systemd(starts=0))


def test_a_juju_db_that_does_not_stop_is_named_and_runs(resting: Callable[[Systemd], None]) -> None:
    systemd = Systemd(starts=1, stops=False)
    with pytest.raises(JujuDrError, match=r"juju-db does not stop: Job canceled"):
        resting(systemd)
    assert systemd.runs


@pytest.mark.parametrize("answers", [True, False])
def test_a_member_that_does_not_come_back_is_named(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    class Recovering:
        admin = type("Admin", (), {"command": staticmethod(lambda _: {"ismaster": False, "secondary": False})})

    def connect(*_: object, **__: object) -> Any:
        if answers:
            return contextlib.nullcontext(Recovering())
        raise JujuDrError("it does not answer", "wait")

    monkeypatch.setattr(offline, "connect", connect)
    monkeypatch.setattr(offline, "BACK_SECONDS", 0.3)
    with pytest.raises(JujuDrError, match="started after the dump, but is no PRIMARY or SECONDARY"):
        offline._wait_member(MongoAccess())


def test_the_driver_s_wait_at_the_end_of_a_process_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(atexit, "unregister", lambda hook: waits.append(f"{hook.__module__}.{hook.__name__}"))
    mongo._end_without_waiting()
    assert waits == ["pymongo.synchronous.monitor._shutdown_resources"]


def test_a_driver_or_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JujuDrError, match=r"MongoDB at /nowhere/load\.sock does not answer"):
        mongo.connect(MongoAccess(socket_path="/nowhere/load.sock", direct=False), timeout_seconds=0.2)
    monkeypatch.setitem(sys.modules, "pymongo", None)
    assert mongo.driver_version() == ""
    with pytest.raises(JujuDrError, match="pymongo is missing on this host"):
        mongo.connect(MongoAccess())
