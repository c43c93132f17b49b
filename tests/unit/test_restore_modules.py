"""The modules of a restore's journal: what they are given reaches the code, check mode changes nothing."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import journal as journals
from ansible.module_utils.juju_dr import lock, set_aside
from ansible.module_utils.testing import patch_module_args

from lab import modules

ARCHIVE = {"path": "/a.tar.gz", "sha256": "ab" * 32, "controller_uuid": "cu", "machine_id": "0", "more": 1}
SYSTEMCTL = "#!/bin/sh\necho inactive\nexit 3\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host in a folder: what the modules look at by themselves, and a systemctl that says that nothing runs."""
    (tmp_path / "juju/agents").mkdir(parents=True)
    (tmp_path / "common/db").mkdir(parents=True)
    for name in ("units", "homes", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL, encoding="utf-8")
    (tmp_path / "bin/systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    real: Any = set_aside.Host

    def moved(*arguments: Any, **_: Any) -> Any:
        return real(*arguments, tmp_path / "work", tmp_path / "units", tmp_path / "homes")

    monkeypatch.setattr(set_aside, "Host", moved)
    for name in ("juju_journal", "juju_set_aside"):
        monkeypatch.setattr(importlib.import_module(name), "Host", moved)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], host: Path, name: str, **arguments: Any) -> dict[str, Any]:
    told = {"data_dir": str(host / "juju"), "mongo_common": str(host / "common"), **arguments}
    return modules.call(capsys, name, **told)


def opened(capsys: pytest.CaptureFixture[str], host: Path, **more: Any) -> dict[str, Any]:
    return call(capsys, host, "juju_journal", state="opened", archive=ARCHIVE, address="10.99.0.21", run="r1", **more)


def test_a_restore_from_begin_to_finalize(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert call(capsys, host, "juju_journal", state="looked")["journal"] == {}
    assert call(capsys, host, "juju_journal", state="looked", archive=ARCHIVE)["verb"] == "begin"
    lock.take(lock.Run("me", "restore"), 60, folder=host / "work")
    begun = opened(capsys, host, lock_run="me")
    assert (begun["verb"], begun["todo"][0], begun["running_before"]) == ("begin", "upload", [])
    told = {"todo": begun["todo"], "lock_run": "me"}
    ended = call(capsys, host, "juju_journal", state="ended", step="upload", result={"fact": 1}, **told)
    assert ended["journal"]["steps"]["upload"]["result"] == {"fact": 1}
    aside = call(capsys, host, "juju_set_aside", state="aside")
    assert aside["moved"][0]["to"] == str(host / "juju.aside-r1")
    assert "did not end" in call(capsys, host, "juju_journal", state="looked", archive={**ARCHIVE, "sha256": "x"})["msg"]
    assert "has not ended" in call(capsys, host, "juju_set_aside", state="deleted")["msg"]
    assert call(capsys, host, "juju_journal", state="closed", outcome="restored")["journal"]["state"] == "restored"
    assert call(capsys, host, "juju_set_aside", state="deleted", _ansible_check_mode=True)["deleted"][0]["bytes"] == 0
    assert (host / "juju.aside-r1").exists()
    deleted = call(capsys, host, "juju_set_aside", state="deleted")
    assert deleted["changed"]
    assert not (host / "juju.aside-r1").exists()
    assert "There is no journal" in call(capsys, host, "juju_set_aside", state="back")["msg"]


def test_a_restore_that_is_undone_may_begin_again(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    opened(capsys, host)
    call(capsys, host, "juju_set_aside", state="aside")
    told = call(capsys, host, "juju_set_aside", state="back", _ansible_check_mode=True)["moved"]
    assert call(capsys, host, "juju_set_aside", state="back")["moved"] == told
    call(capsys, host, "juju_journal", state="closed", outcome="rolled back", cause="why")
    assert opened(capsys, host, lock_run="")["verb"] == "begin"
    assert json.loads((host / "work/journal-r1.json").read_text(encoding="utf-8"))["cause"] == "why"


def test_check_mode_writes_no_journal(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert opened(capsys, host, lock_run="me", _ansible_check_mode=True)["changed"]
    assert not (host / "work").exists()
    assert call(capsys, host, "juju_set_aside", state="back", _ansible_check_mode=True)["moved"] == []
    assert call(capsys, host, "juju_set_aside", state="deleted", _ansible_check_mode=True)["deleted"] == []


def test_a_run_without_the_lock_or_the_journal_is_refused(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    assert "was taken over by nobody" in opened(capsys, host, lock_run="me")["msg"]
    assert "is gone" in call(capsys, host, "juju_journal", state="ended", step="upload", todo=["upload"])["msg"]


def test_a_full_disk_is_a_sentence(capsys: pytest.CaptureFixture[str], host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/var/lib/juju-dr/journal.json")

    monkeypatch.setattr(journals, "write_whole", full)
    assert opened(capsys, host)["msg"] == (
        "The disk that holds /var/lib/juju-dr/journal.json is full. Make room there, then run this again."
    )
    monkeypatch.setattr(journals, "write_whole", lambda *_: shutil.rmtree("/nowhere"))
    assert "/nowhere: No such file or directory. Look at that file" in opened(capsys, host)["msg"]


def test_the_lock_is_taken_refused_and_given_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("juju_lock")
    for name in ("take", "release", "read"):
        real = getattr(lock, name)
        monkeypatch.setattr(
            module, name, lambda *a, _real=real, **k: _real(*a, **{**k, "folder": tmp_path}) if a else _real(tmp_path)
        )

    def ask(**arguments: Any) -> dict[str, Any]:
        with patch_module_args({"control": {"pid": "1"}, **arguments}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    assert ask(state="taken", run="a", purpose="restore")["changed"]
    refused = ask(state="taken", run="b", control={"pid": "2"})
    assert (refused["failed"], refused["holder"]["name"]) == (True, "a")
    assert "was taken over" in ask(state="taken", run="b", control={"pid": "2"}, instead_of="a")["notes"][0]
    assert not ask(state="released", run="a")["changed"]
    assert ask(state="released", run="b", control={"pid": "2"})["changed"]


def ask(capsys: pytest.CaptureFixture[str], name: str, **arguments: Any) -> dict[str, Any]:
    with patch_module_args(arguments), pytest.raises(SystemExit):
        importlib.import_module(name).main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_every_obstacle_of_a_host_is_named(capsys: pytest.CaptureFixture[str], host: Path) -> None:
    archive = {"version": "2.9.61.1", "generation": "2.9", "controller_uuid": "cu", "addresses": [], "has_agent_binary": True}
    archive.update(size=1, unpacked_bytes=2**60, root_bytes=1)
    places = {"data_dir": str(host / "juju"), "mongo_common": str(host / "common/none")}
    monkey = host / "bin/ip"
    monkey.write_text('#!/bin/sh\necho \'[{"addr_info": [{"local": "10.99.0.21", "prefixlen": 24}]}]\'\n', encoding="utf-8")
    monkey.chmod(0o755)
    told = {"host": {"pymongo": "", "juju_db_installed": True}, "address": "10.99.0.21", **places}
    refused = ask(capsys, "juju_target_check", archive=archive, **told)
    assert len(refused["obstacles"]) >= 2
    assert refused["msg"].startswith("This host cannot become the controller. python3-pymongo is missing there")
    archive.update(unpacked_bytes=1)
    told["host"] = {"pymongo": "3.11", "juju_db_installed": True}
    assert ask(capsys, "juju_target_check", archive=archive, resumed=True, **told)["cidr"] == "10.99.0.0/24"


def test_placing_and_the_member_refuse_what_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = {"root": str(tmp_path), "machine_id": "0", "version": "2.9.61.1"}
    assert ask(capsys, "juju_place_files", **place, _ansible_check_mode=True)["changed"]
    assert "has no agent.conf of machine 0" in ask(capsys, "juju_place_files", **place)["msg"]
    member = {"address": "10.99.0.21", "machine_id": "0", "data_dir": str(tmp_path)}
    assert "0 controller machine agents" in ask(capsys, "juju_replica_set", **member)["msg"]
