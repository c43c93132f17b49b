"""A backup by its modules, one after the other, on a real controller."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import json
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest
from ansible.module_utils.juju_dr.age import decrypting
from ansible.module_utils.juju_dr.backup import Host, archive_host, dump_host
from ansible.module_utils.juju_dr.load import load_into_juju_db
from ansible.module_utils.juju_dr.oplog import DumpInterrupted
from ansible.module_utils.juju_dr.replica_set import make_member
from test_loading_server import SERVICE, JujuDb, juju_db

from lab.modules import call

__all__ = ["juju_db"]


def contents(stream: IO[bytes]) -> dict[str, bytes]:
    # tarfile's own gzip stream ends with the first member.
    with gzip.open(stream) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as tar:
        found = {one.name: tar.extractfile(one).read() for one in tar if one.isreg()}  # type: ignore[union-attr]
    while stream.read(1 << 20):
        pass
    return {name[len("juju-backup/") :]: content for name, content in found.items()}


def test_a_backup_from_discovery_to_the_archive(
    juju_db: JujuDb,
    fixture_archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Nothing of the machine that tests: its locks, its keys.
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("juju_mongo_dump", "juju_archive"):
        monkeypatch.setattr(importlib.import_module(name), "step", contextlib.nullcontext)
    where = {"data_dir": str(juju_db.data), "mongo_common": str(juju_db.common)}
    load_into_juju_db(str(fixture_archive), str(juju_db.conf_path), "0", where["mongo_common"], SERVICE, juju_db.run)
    juju_db.run(["systemctl", "start"])
    make_member(where["data_dir"], where["mongo_common"], "0", "127.0.0.1", apply=True)
    backups, staging = tmp_path / "backups", tmp_path / "backups/.unfinished"

    info = call(capsys, "juju_controller_info", **where)
    assert (info["machine_id"], info["replica_set"]["members"][0]["state"]) == ("0", "PRIMARY")
    chosen = call(capsys, "juju_choose_member", candidates=[{**info, "inventory_hostname": "c0"}])
    assert [(one["host"], one["rank"], one["last"]) for one in chosen["chosen"]] == [("c0", 0, True)]
    assert call(capsys, "juju_choose_member", candidates=[])["failed"]

    told = call(capsys, "juju_mongo_dump", staging=str(staging), **where, _ansible_check_mode=True)
    assert told["changed"]
    assert not staging.exists()
    # What a killed run left goes.
    staging.mkdir(parents=True)
    dumped = call(capsys, "juju_mongo_dump", staging=str(staging), logs=False, **where)
    assert (dumped["mode"], dumped["healed"], dumped["waiting"]) == ("hot", [str(staging)], [])
    assert sorted(path.name for path in staging.iterdir()) == ["archive.partial", "dump-report.json"]
    finish = {"staging": str(staging), "dest_dir": str(backups), "logs": False, **where}
    assert call(capsys, "juju_archive", **finish, _ansible_check_mode=True)["changed"]
    done = call(capsys, "juju_archive", notes="by hand", **finish)
    assert done["path"].endswith(f"-{info['controller_uuid'][:8]}.tar.gz")
    assert hashlib.sha256(Path(done["path"]).read_bytes()).hexdigest() == done["sha256"]
    with open(done["path"], "rb") as stream:
        held = contents(stream)
    metadata = json.loads(held["metadata.json"])
    assert (metadata["ControllerUUID"], metadata["HANodes"], metadata["Notes"]) == (info["controller_uuid"], 1, "by hand")
    assert {"root.tar", "dump/oplog.bson", "dump/juju/machines.bson", "juju-dr/admin/system.users.bson"} <= set(held)
    assert sorted(path.name for path in backups.iterdir()) == [Path(done["path"]).name, Path(done["path"]).name + ".sha256"]

    # Offline, and encrypted.
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    recipient = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True, text=True).stdout.strip()
    host = Host(where["data_dir"], where["mongo_common"], None, SERVICE)
    begun = dump_host(staging, "offline", "gzip", [recipient], host, juju_db.run)
    assert juju_db.as_found()
    secret = archive_host(staging, backups, "", [recipient], host)
    assert secret["path"].endswith(".tar.gz.age")
    with decrypting(Path(secret["path"]), str(key)) as plain:
        again = contents(plain)
    assert set(held) - set(again) == {"dump/oplog.bson"}
    assert again["dump/juju/machines.bson"] == held["dump/juju/machines.bson"]
    assert begun.report.oplog == {}
    assert not staging.exists()

    # A failure is one sentence, and says whether to try again.
    def interrupted(*_: object) -> Any:
        raise DumpInterrupted("It went away", "Run again")

    monkeypatch.setattr(importlib.import_module("juju_mongo_dump"), "dump_host", interrupted)
    failed = call(capsys, "juju_mongo_dump", staging=str(staging), **where)
    assert (failed["msg"], failed["retry"]) == ("It went away. Run again.", True)
    (juju_db.data / "server.pem").unlink()
    monkeypatch.undo()
    monkeypatch.setattr(importlib.import_module("juju_mongo_dump"), "step", contextlib.nullcontext)
    monkeypatch.setattr(importlib.import_module("juju_archive"), "step", contextlib.nullcontext)
    assert "0 controller machine agents" in call(capsys, "juju_mongo_dump", staging=str(staging), data_dir="/nowhere")["msg"]
    call(capsys, "juju_mongo_dump", staging=str(staging), **where)
    refused = call(capsys, "juju_archive", staging=str(staging), dest_dir=str(backups), **where)
    assert "cannot be restored from its backup" in refused["msg"]
    assert not staging.exists()
