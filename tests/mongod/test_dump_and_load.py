"""What is dumped and loaded is what was there, byte for byte and instant for instant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.load import MongoUser, load, make_users, stored_credentials
from ansible.module_utils.juju_dr.mongo import MongoAccess, connect
from pymongo import MongoClient

Client = MongoClient[dict[str, Any]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_uuid(text: bytes) -> bytes:
    return re.sub(rb'"uuid":"[0-9a-f]{32}"', b'"uuid":""', text)


def test_a_juju_archive_loads_and_dumps_again_byte_for_byte(standalone: Client, fixture_archive: Path, tmp_path: Path) -> None:
    # Without its oplog: what is compared is the dump itself.
    (fixture_archive / "dump" / "oplog.bson").unlink()
    report = load(standalone, str(fixture_archive), [])
    assert report.documents > 1000
    dump(standalone, Folder(tmp_path / "again"), "offline")
    before, after = files(fixture_archive / "dump"), files(tmp_path / "again" / "dump")
    assert sorted(before) == sorted(after)
    for name in before:
        if name.endswith(".bson"):
            assert after[name] == before[name], name
        elif name != "prelude.json":
            assert without_uuid(after[name]) == without_uuid(before[name]), name


def test_what_a_dump_writes_is_closed_to_others(standalone: Client, tmp_path: Path) -> None:
    standalone.juju.machines.insert_one({"_id": 1})
    dump(standalone, Folder(tmp_path / "dump"), "offline")
    modes = {p.stat().st_mode & 0o077 for p in [tmp_path / "dump", *(tmp_path / "dump").rglob("*")]}
    assert modes == {0}


def test_a_server_that_is_not_empty_is_refused(standalone: Client, fixture_archive: Path) -> None:
    standalone.juju.machines.insert_one({"_id": 1})
    with pytest.raises(JujuDrError, match="already holds juju"):
        load(standalone, str(fixture_archive), [])
    assert standalone.juju.machines.count_documents({}) == 1


def test_a_cut_collection_is_named_before_it_is_loaded(standalone: Client, fixture_archive: Path) -> None:
    path = fixture_archive / "dump" / "juju" / "machines.bson"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(JujuDrError, match=r"machines\.bson is damaged at byte"):
        load(standalone, str(fixture_archive), [])


def test_users_log_in_and_stored_ones_keep_their_password(
    mongod_binary: Any, standalone: Client, plain_replica_set: Client, tmp_path: Path
) -> None:
    make_users(plain_replica_set, [MongoUser("admin", "old"), MongoUser("machine-0", "gone")])
    dump(plain_replica_set, Folder(tmp_path / "dump"), "hot")
    make_users(standalone, [MongoUser("machine-0", "new")])
    assert stored_credentials(standalone, str(tmp_path / "dump"), "admin")
    assert not stored_credentials(standalone, str(tmp_path / "dump"), "machine-7")
    port = standalone.address[1] if standalone.address else 0
    for name, password in (("machine-0", "new"), ("admin", "old")):
        with connect(MongoAccess(port=port, username=name, password=password)) as client:
            info = client.admin.command({"connectionStatus": 1})
            assert info["authInfo"]["authenticatedUsers"] == [{"user": name, "db": "admin"}]
    with pytest.raises(JujuDrError, match="refused user machine-0"):
        connect(MongoAccess(port=port, username="machine-0", password="gone"))
