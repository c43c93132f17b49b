"""Archives that others made, on a real mongod: loaded, rewritten, and looked at as Juju would."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.archive import inspect, unpack
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.leftovers import in_database, pattern
from ansible.module_utils.juju_dr.load import load
from ansible.module_utils.juju_dr.readdress import readdress
from ansible.module_utils.juju_dr.rehearse import Scratch, rehearse
from ansible.module_utils.juju_dr.rewriting import Live, Wanted, plan_files, plan_from_archive, refuse_unsafe, rewrite_database
from ansible.module_utils.juju_dr.rules import move_from
from pymongo import MongoClient

from lab.foreign import Environment, api, create_backup, documents, plugin
from lab.mongod import Mongod

NEW, CIDR = "10.99.0.21", "10.99.0.0/24"
Client = MongoClient[dict[str, Any]]


def restored(path: Path, client: Client, folder: Path, machine_id: str) -> list[str]:
    """Everything a restore does to documents and files; the places that still name an old address."""
    info = inspect(str(path))
    unpacked = unpack(str(path), str(folder / "unpacked"), info.sha256)
    report = load(client, str(folder / "unpacked"), [])
    assert report.documents == sum(1 for one in report.collections for _ in range(one["documents"]))
    move = move_from(Live(client.juju), machine_id, NEW, CIDR)
    wanted = Wanted(machine_id, NEW, CIDR)
    planned = plan_from_archive(str(path), wanted)
    done = rewrite_database(client.juju, wanted)
    if report.oplog_applied == 0:
        assert done.to_json()["by_rule"].items() <= planned.to_json()["by_rule"].items()
    refuse_unsafe(client, move, info.state_port)
    agents = {str(p): p.read_text(encoding="utf-8") for p in Path(unpacked["root"]).rglob("agent.conf")}
    for _, text, _ in plan_files(agents, machine_id, NEW):
        assert not any(old in line for old in move.old_addresses for line in text.splitlines() if "nonce" not in line)
    sought = pattern(sorted(move.old_addresses | move.lost_addresses))
    return [str(one) for one in in_database(client, sought, move.lost_addresses) if one.kind == "live"]


@pytest.mark.parametrize("release", ["2.9", "3.6"])
@pytest.mark.parametrize("number", [0, 1])
def test_each_format_of_create_backup_comes_back(release: str, number: int, standalone: Client, tmp_path: Path) -> None:
    path = create_backup(tmp_path / "archive", release, number)
    assert restored(path, standalone, tmp_path, "0") == []


@pytest.mark.parametrize(
    "environment",
    [Environment("1.18.4"), Environment("1.20.14", 3), Environment("1.21.3", provider="manual")],
    ids=lambda one: str(one.version),
)
def test_the_plugin_s_archive_comes_back(environment: Environment, standalone: Client, tmp_path: Path) -> None:
    assert restored(plugin(tmp_path / "archive", environment), standalone, tmp_path, "0") == []
    assert standalone.juju.machines.count_documents({}) == len(documents(environment)["machines"])
    assert sorted(standalone.juju.units.index_information()) == ["_id_", "principal_1"]
    assert standalone.juju["txns.log"].options()["capped"]
    assert "system.users" not in standalone.juju.list_collection_names()


@pytest.mark.parametrize(
    ("environment", "machine"),
    [(Environment("1.22.9", 3), 1), (Environment("1.24.7"), 0), (Environment("1.25.10", 3, "manual", True), 2)],
    ids=["1.22", "1.24", "1.25"],
)
def test_the_api_s_archive_comes_back_with_its_oplog(
    environment: Environment, machine: int, standalone: Client, tmp_path: Path
) -> None:
    assert restored(api(tmp_path / "archive", environment, machine), standalone, tmp_path, str(machine)) == []
    # What happened while it was dumped has happened: insert, update, removal, index; not the user.
    assert standalone.juju.cleanups.count_documents({"kind": "units"}) == 1
    assert all(one["clean"] for one in standalone.juju.machines.find({"machineid": "0", "jobs": [2, 1]}))
    assert standalone.juju.txns.count_documents({}) == 0
    assert "kind_1" in standalone.juju.cleanups.index_information()
    assert standalone.presence["presence.pings"].find_one({}) == {
        "_id": "6f5d8a3e-1c11-4a4e-8f0f-0a3b5c7d9e21:1456826400",
        "slot": 1456826400,
        "alive": {"0": 7},
    }


def test_what_contradicts_itself_after_the_rewrite_is_refused(standalone: Client, tmp_path: Path) -> None:
    environment = Environment("1.22.9", 3)
    path = api(tmp_path / "archive", environment)
    unpack(str(path), str(tmp_path / "unpacked"), "")
    load(standalone, str(tmp_path / "unpacked"), [])
    move = move_from(Live(standalone.juju), "0", NEW, CIDR)
    with pytest.raises(JujuDrError, match=r"places still name an old controller address"):
        refuse_unsafe(standalone, move, 37017)
    rewrite_database(standalone.juju, Wanted("0", NEW, CIDR, skip_rules=("has-vote",)))
    with pytest.raises(JujuDrError, match=r"state servers are \['0'\] by id"):
        refuse_unsafe(standalone, move, 37017)
    rewrite_database(standalone.juju, Wanted("0", NEW, CIDR))
    refuse_unsafe(standalone, move, 37017)
    standalone.juju.machines.update_one({"machineid": "0"}, {"$set": {"addresses": [], "machineaddresses": []}})
    standalone.juju.machines.update_one(
        {"machineid": "0"}, {"$set": {"addresses": [{"value": "192.0.2.9", "networkscope": "local-cloud"}]}}
    )
    with pytest.raises(JujuDrError, match=r"would not keep 10\.99\.0\.21:37017"):
        refuse_unsafe(standalone, move, 37017)


def test_a_readdressed_archive_loads_as_it_is(standalone: Client, tmp_path: Path) -> None:
    old = str(api(tmp_path / "old.tgz", Environment("1.22.9", 3), 1))
    done = readdress(old, str(tmp_path / "new.tgz"), Wanted("1", NEW, CIDR))
    unpack(done.path, str(tmp_path / "unpacked"), done.sha256)
    load(standalone, str(tmp_path / "unpacked"), [])
    refuse_unsafe(standalone, move_from(Live(standalone.juju), "1", NEW, CIDR), 37017)
    assert rewrite_database(standalone.juju, Wanted("1", NEW, CIDR)).edits == []


@pytest.mark.parametrize("number", [0, 2])
def test_documents_without_files_are_rehearsed(number: int, mongod_binary: Mongod, tmp_path: Path) -> None:
    path = create_backup(tmp_path / "archive", "2.9", number, root_tar=False)
    # A unix socket's path is short.
    with tempfile.TemporaryDirectory() as folder:
        done = rehearse(str(path), Scratch(str(mongod_binary.binary), folder, mongod_binary.environment))
        assert list(Path(folder).iterdir()) == []
    assert "no root.tar" in done.cannot_restore
    assert done.by_rule["api-host-ports"] == 1
    assert "agent-conf-addresses" not in done.by_rule
