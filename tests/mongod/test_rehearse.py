"""A restore rehearsed in a real mongod: what it counts, what it refuses, and that nothing of it stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import juju_rehearse
import pytest
from ansible.module_utils.juju_dr.age import encrypt
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.load import LoadReport
from ansible.module_utils.juju_dr.rehearse import INVENTED, Scratch, compare_counts, rehearse, scratch_server
from ansible.module_utils.juju_dr.rules import rules_for
from ansible.module_utils.testing import patch_module_args
from conftest import FIXTURES, VERSIONS

from lab.foreign import Environment, api, plugin
from lab.mongod import Mongod

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = "ansible.module_utils.juju_dr"
# A rehearsal in a process of its own, that signals can end.
RUN = """
import signal, sys
import ansible.module_utils
# A run in the background of a shell begins with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
ansible.module_utils.__path__.append({root!r} + "/module_utils")
from ansible.module_utils.juju_dr.rehearse import Scratch, rehearse
rehearse({archive!r}, Scratch({mongod!r}, {folder!r}))
"""


@pytest.fixture
def scratch(mongod_binary: Mongod) -> Iterator[Scratch]:
    # A socket's path must be short.
    with tempfile.TemporaryDirectory() as folder:
        yield Scratch(str(mongod_binary.binary), folder, mongod_binary.environment)


def archive(generation: str) -> str:
    return str(FIXTURES / f"juju-{VERSIONS[generation]}-single.tar.gz")


def left(scratch: Scratch) -> list[str]:
    return sorted(os.listdir(scratch.folder))


def test_a_rehearsal_restores_counts_and_leaves_nothing(generation: str, scratch: Scratch) -> None:
    done = rehearse(archive(generation), scratch)
    assert done.address == INVENTED[0][0]
    assert done.member == "192.0.2.10:37017"
    assert (done.collections, done.documents) == {"2.9": (101, 1955), "3.x": (103, 1652)}[generation]
    assert {"agent-conf-addresses", "machine-observed-addresses"} <= set(done.by_rule)
    assert done.edits == sum(done.by_rule.values())
    assert done.history
    assert set(done.seconds) == {"inspect", "unpack", "start", "load", "rewrite", "leftovers", "remove", "all"}
    assert done.seconds["all"] == pytest.approx(sum(v for k, v in done.seconds.items() if k != "all"), abs=0.1)
    assert left(scratch) == []


def test_the_module_rehearses_an_encrypted_archive(
    scratch: Scratch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    recipient = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(archive("2.9"), tmp_path / "archive.tar.gz")
    path = str(encrypt(tmp_path / "archive.tar.gz", [recipient]))
    given = {"path": path, "mongod": scratch.mongod, "environment": dict(scratch.environment), "folder": scratch.folder}

    def run(**more: Any) -> dict[str, Any]:
        with patch_module_args({**given, **more}), pytest.raises(SystemExit):
            juju_rehearse.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    assert "no identity was given" in run()["msg"]
    assert "documents" not in run(identity=str(key), _ansible_check_mode=True)
    done = run(identity=str(key))
    assert (done["changed"], done["documents"], done["cannot_restore"]) == (False, 1955, "")
    assert left(scratch) == []


def test_a_rule_that_is_missing_is_found(generation: str, scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules_for
    named = [rule.name for rule in real(generation, ()) if rule.name.startswith("machine")]
    monkeypatch.setattr(f"{CODE}.rewriting.rules_for", lambda which, skipped: real(which, (*skipped, *named)))
    with pytest.raises(JujuDrError, match="still name an old controller address"):
        rehearse(archive(generation), scratch)
    assert left(scratch) == []


def test_an_agent_that_keeps_an_old_address_is_found(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{CODE}.rehearse.rewrite_files", lambda *args, **more: [])
    with pytest.raises(JujuDrError, match=r"agent\.conf line .* still names"):
        rehearse(archive("2.9"), scratch)
    assert left(scratch) == []


def test_the_scratch_server_is_private_and_on_no_network(scratch: Scratch) -> None:
    folder = Path(scratch.folder) / "private"
    folder.mkdir(mode=0o700)
    with scratch_server(folder, scratch.mongod, scratch.environment) as client:
        pid = client.admin.command("serverStatus")["pid"]
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        network = "".join(Path(f"/proc/net/{kind}").read_text() for kind in ("tcp", "tcp6", "udp", "udp6"))
        assert not [line for line in network.splitlines() if len(line.split()) > 9 and f"socket:[{line.split()[9]}]" in held]
        assert (folder / "load.sock").stat().st_mode & 0o077 == 0
        assert (folder / "db").stat().st_mode & 0o777 == 0o700
    assert not Path(f"/proc/{pid}").exists()


def fake(folder: Path, script: str) -> str:
    path = folder / "mongod"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_what_stands_in_the_way_is_named(scratch: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(why: str, mongod: str = scratch.mongod, folder: str = scratch.folder) -> None:
        with pytest.raises(JujuDrError, match=why):
            rehearse(archive("2.9"), Scratch(mongod, folder, scratch.environment))
        assert left(scratch) == []

    refused("There is no program nowhere-mongod", mongod="nowhere-mongod")
    refused("There is no folder", folder=str(tmp_path / "missing"))
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    refused("too long for a unix socket", folder=str(deep))
    refused("mongod ended for loading; its log ends: it says why", mongod=fake(tmp_path, LOGS_AND_ENDS))
    monkeypatch.setattr("shutil.disk_usage", lambda path: FullDisk())
    refused("0 are free")


LOGS_AND_ENDS = 'echo "it says why" > "$(sed -n "s/^logpath = //p" "$2")"; exit 1'


class FullDisk:
    free = 0


@pytest.mark.parametrize("number", [0, 1])
def test_the_database_of_another_age_is_rehearsed_too(scratch: Scratch, tmp_path: Path, number: int) -> None:
    """Juju 1.x: no host runs it any more, but what the archive holds can be shown."""
    make, environment = [(plugin, Environment("1.18.4", 1)), (api, Environment("1.25.13", 1))][number]
    done = rehearse(str(make(tmp_path / "archive", environment)), scratch)
    assert "1." in done.cannot_restore
    assert done.documents
    assert done.edits


def run_apart(scratch: Scratch, folder: Path, pids: Path) -> subprocess.Popen[bytes]:
    """A rehearsal whose mongod tells its pid and never answers."""
    mongod = fake(folder, f"echo $$ > {pids}.new; mv {pids}.new {pids}; exec sleep 600")
    script = RUN.format(root=str(ROOT), archive=archive("2.9"), mongod=mongod, folder=scratch.folder)
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    until(pids.exists)
    return process


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(scratch: Scratch, tmp_path: Path, number: signal.Signals) -> None:
    process = run_apart(scratch, tmp_path, tmp_path / "pid")
    (name,) = left(scratch)
    assert (Path(scratch.folder) / name).stat().st_mode & 0o777 == 0o700
    process.send_signal(number)
    process.wait(30)
    assert left(scratch) == []
    assert not alive(int((tmp_path / "pid").read_text()))


def test_after_a_kill_no_mongod_is_left_and_the_next_run_removes_the_folder(scratch: Scratch, tmp_path: Path) -> None:
    process = run_apart(scratch, tmp_path, tmp_path / "pid")
    # Another run in the same folder leaves one that is in use alone.
    rehearse(archive("2.9"), scratch)
    assert len(left(scratch)) == 1
    process.kill()
    process.wait()
    until(lambda: not alive(int((tmp_path / "pid").read_text())))
    assert len(left(scratch)) == 1
    rehearse(archive("2.9"), scratch)
    assert left(scratch) == []


def test_counts_are_compared_by_collection(tmp_path: Path) -> None:
    report = LoadReport([{"ns": "juju.machines", "documents": 3, "bytes": 300}])
    assert compare_counts(report, tmp_path).startswith("nothing")
    (tmp_path / "juju-dr").mkdir()
    statement = tmp_path / "juju-dr" / "dump-report.json"

    def said(**more: Any) -> None:
        machines = {"ns": "juju.machines", "documents": 3, "bytes": 300, **more}
        admin = {"ns": "admin.system.users", "documents": 9, "bytes": 9}
        statement.write_text(json.dumps({"collections": [machines, admin]}))

    said()
    assert compare_counts(report, tmp_path).startswith("the backup's own count")
    for differs in ({"documents": 4}, {"bytes": 301}, {"ns": "juju.units"}):
        said(**differs)
        with pytest.raises(JujuDrError, match="after loading, the backup counted"):
            compare_counts(report, tmp_path)
