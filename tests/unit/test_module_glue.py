"""Modules are glue: what they are given reaches the code, errors become one sentence, check mode changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
from pathlib import Path

import pytest

from lab.modules import call

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
ARCHIVE = str(FIXTURES / "juju-2.9.61-single.tar.gz")


def test_archive_info(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "juju_archive_info", path=ARCHIVE)
    assert (result["changed"], result["machine_id"], result["format"]) == (False, "0", "create-backup 2")


def test_a_folder_of_archives_is_judged_one_by_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "holds no archive" in call(capsys, "juju_judge", path=str(tmp_path))["msg"]
    shutil.copy(ARCHIVE, tmp_path / "b.tar.gz")
    (tmp_path / "a.tgz").write_bytes(Path(ARCHIVE).read_bytes()[:9000])
    (tmp_path / ".partial.tar.gz").write_bytes(b"")
    (tmp_path / "b.tar.gz.json").write_text("{}")
    refused, good = call(capsys, "juju_judge", path=str(tmp_path))["verdicts"]
    assert (refused["path"], refused["ok"], refused["code"]) == (str(tmp_path / "a.tgz"), False, "cut")
    assert (good["ok"], good["info"]["machine_id"]) == (True, "0")
    assert good["seconds"] >= 0
    other = call(capsys, "juju_judge", path=ARCHIVE, expected_controller_uuid="another")["verdicts"]
    assert [one["code"] for one in other] == ["other-controller"]


def test_an_error_is_one_sentence_with_its_cure(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "juju_archive_info", path="/nowhere")
    assert result["failed"]
    assert result["code"] == "not-found"
    assert result["msg"] == "There is no archive at /nowhere. Check the path; it is looked up on the control machine."


def test_unpack_refuses_a_folder_that_is_there_and_leaves_none_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    assert "exists already" in call(capsys, "juju_archive_unpack", path=ARCHIVE, dest=str(tmp_path / "x"), sha256="")["msg"]
    assert call(capsys, "juju_archive_unpack", path=ARCHIVE, dest=str(tmp_path / "y"), sha256="0")["failed"]
    assert not (tmp_path / "y").exists()
    done = call(capsys, "juju_archive_unpack", path=ARCHIVE, dest=str(tmp_path / "y"), sha256="")
    assert done["changed"]
    assert Path(done["dump"], "prelude.json").exists()


def test_unpack_takes_the_place_of_what_a_killed_run_left(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    came, dest = tmp_path / "incoming", tmp_path / "restore-1" / "unpacked"
    for folder in (came, dest):
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"")
    asked = {"path": ARCHIVE, "dest": str(dest), "sha256": "", "replace": True, "remove": str(came)}
    assert call(capsys, "juju_archive_unpack", **{**asked, "sha256": "0"})["failed"]
    assert came.is_dir()
    shutil.rmtree(dest.parent)
    assert call(capsys, "juju_archive_unpack", **asked)["changed"]
    assert not came.exists()
    assert dest.parent.stat().st_mode & 0o777 == 0o700
    came.mkdir()
    (dest / "half").write_bytes(b"")
    assert call(capsys, "juju_archive_unpack", **asked)["changed"]
    assert not (dest / "half").exists()


def test_check_mode_of_unpack_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = call(capsys, "juju_archive_unpack", path=ARCHIVE, dest=str(tmp_path / "x"), sha256="", _ansible_check_mode=True)
    assert done["changed"]
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_read_from_the_archive_with_a_diff(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, "juju_rewrite_documents", archive=ARCHIVE, address="10.99.0.21", machine_id="0")
    assert result["by_rule"]["api-host-ports"] == 1
    assert {one["model"] for one in result["harvest_before"]} == {"admin/controller", "admin/default", "admin/prod"}
    assert 'clouds manual endpoint: "ubuntu@10.99.0.11"' in result["diff"]["before"]
    assert 'clouds manual endpoint: "ubuntu@10.99.0.21"' in result["diff"]["after"]
    assert "PRIVATE KEY" not in json.dumps(result)


def test_files_are_rewritten_once_and_check_mode_tells_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(FIXTURES / "juju-3.6.26-controller-files.tar.gz") as tar:
        tar.extractall(tmp_path, filter="fully_trusted")
    data = tmp_path / "var/lib/juju"
    shutil.rmtree(data / "agents/unit-controller-0")
    arguments = {"address": "10.99.0.21", "machine_id": "0", "data_dir": str(data)}
    before = (data / "agents/machine-0/agent.conf").read_text(encoding="utf-8")
    told = call(capsys, "juju_rewrite_files", **arguments, _ansible_check_mode=True)
    assert (data / "agents/machine-0/agent.conf").read_text(encoding="utf-8") == before
    done = call(capsys, "juju_rewrite_files", **arguments)
    assert told["edits"] == done["edits"]
    assert {edit["rule"] for edit in done["edits"]} == {"agent-conf-addresses", "agent-conf-units"}
    assert not call(capsys, "juju_rewrite_files", **arguments)["changed"]
    after = (data / "agents/machine-0/agent.conf").read_text(encoding="utf-8")
    assert "deployed-units" not in after
    assert "- 10.99.0.21:17070" in after


def test_a_host_that_is_no_controller_is_described_without_failing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    result = call(capsys, "juju_controller_info", data_dir=str(tmp_path / "juju"), mongo_common=str(tmp_path / "common"))
    assert (result["is_controller"], result["replica_set"]["available"], result["has_dqlite"]) == (False, False, False)
    assert "0 controller machine agents" in result["reason"]
    assert result["pymongo"]


def test_a_set_aside_in_check_mode_only_tells(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "juju").mkdir()
    arguments = {"data_dir": str(tmp_path / "juju"), "mongo_common": str(tmp_path / "common")}
    result = call(capsys, "juju_set_aside", state="aside", **arguments, _ansible_check_mode=True)
    assert {"from": str(tmp_path / "juju"), "to": str(tmp_path / "juju.aside-STAMP")} in result["moved"]
    assert (tmp_path / "juju").is_dir()


def test_leftovers_of_nothing_and_of_no_controller(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nothing = call(capsys, "juju_leftovers", addresses=[])
    assert (nothing["live"], nothing["history"], nothing["lost"], nothing["changed"]) == ([], {}, [], False)
    where = {"data_dir": str(tmp_path), "mongo_common": str(tmp_path)}
    assert "controller machine agents" in call(capsys, "juju_leftovers", addresses=["10.99.0.11"], **where)["msg"]


def test_rewriting_where_there_is_no_controller(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = {"data_dir": str(tmp_path), "address": "10.99.0.21", "machine_id": "0"}
    assert "no agent.conf of machine 0" in call(capsys, "juju_rewrite_files", **where)["msg"]
    missing = call(capsys, "juju_rewrite_documents", mongo_common=str(tmp_path), **where)
    assert "juju-db.config is missing" in missing["msg"]


def test_fetch_says_what_lies_on_the_host_and_cuts_out_what_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    archive, window = tmp_path / "a.tar.gz", tmp_path / "a.tar.gz.window"
    archive.write_bytes(b"0123456789")
    asked = {"src": str(archive), "dest": str(tmp_path / "here")}
    told = call(capsys, "juju_fetch", **asked, ask={"prefix": 4})
    assert (told["size"], told["prefix_sha256"]) == (10, hashlib.sha256(b"0123").hexdigest())
    me = pwd.getpwuid(os.getuid()).pw_name
    cut = {"window": str(window), "ranges": [[2, 3], [8, 2]], "owner": me}
    assert call(capsys, "juju_fetch", **asked, ask=cut)["written"] == 5
    assert (window.read_bytes(), window.stat().st_mode & 0o777) == (b"23489", 0o600)
    assert call(capsys, "juju_fetch", src=str(tmp_path / "gone"), dest="/x")["msg"].startswith("There is no archive at")


def test_upload_says_how_much_is_there_already(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"0123")
    there = {"src": "/archive", "dest": str(tmp_path / "part")}
    assert call(capsys, "juju_upload", **there, ask={"prefix": True})["prefix_sha256"] == hashlib.sha256(b"0123").hexdigest()
    dest = tmp_path / "incoming" / "new"
    assert call(capsys, "juju_upload", src="/archive", dest=str(dest), ask={"prefix": True})["size"] == -1
    assert dest.parent.stat().st_mode & 0o777 == 0o700


def test_a_report_is_two_private_files_written_when_they_differ(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    asked = {"dest": str(folder), "name": "restore-1", "data": {"kind": "restore"}, "text": "It runs.\n"}
    assert call(capsys, "juju_report", **asked, _ansible_check_mode=True)["changed"]
    assert not folder.exists()
    done = call(capsys, "juju_report", **asked)
    assert (done["changed"], json.loads(Path(done["path"]).read_text())) == (True, {"kind": "restore"})
    assert (folder / "restore-1.txt").read_text() == "It runs.\n"
    assert [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())] == [0o700, 0o600, 0o600]
    assert not call(capsys, "juju_report", **asked)["changed"]
    refused = call(capsys, "juju_report", **{**asked, "dest": "/proc/nowhere"})
    assert refused["msg"].startswith("The report cannot be written: ")
