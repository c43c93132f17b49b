"""A hot backup among counting writers is exact to one instant: no half transaction, none lost, none twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import raw_find
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.load import load
from ansible.module_utils.juju_dr.mongo import MongoAccess
from bson.timestamp import Timestamp
from conftest import Server, free_port, until_primary
from pymongo import MongoClient
from writers import Writers, differences, prepare, state_at

from lab.mongod import Mongod
from lab.scale import rounds

Client = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def busy(mongod_binary: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A primary of one whose oplog holds all of a test, and whose expired documents go at once."""
    port, folder = free_port(), tmp_path_factory.mktemp("busy")
    arguments = ["--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--replSet", "juju"]
    arguments += ["--oplogSize", "4000", "--setParameter", "ttlMonitorSleepSecs=1"]
    server = Server(mongod_binary, arguments, MongoAccess(port=port))
    server.start()
    with server.wait() as client:
        client.admin.command("replSetInitiate", {"_id": "juju", "members": [{"_id": 1, "host": f"127.0.0.1:{port}"}]})
        until_primary(client)
    with MongoClient[dict[str, Any]]("127.0.0.1", port, replicaSet="juju") as member:
        yield member
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def empty(mongod_binary: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """The server that is loaded, emptied for each case; nothing expires there by itself."""
    port, folder = free_port(), tmp_path_factory.mktemp("empty")
    arguments = ["--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"]
    server = Server(mongod_binary, [*arguments, "--setParameter", "ttlMonitorEnabled=false"], MongoAccess(port=port))
    server.start()
    with server.wait() as client:
        yield client
    server.stop()
    shutil.rmtree(folder)


def emptied(client: Client) -> Client:
    for name in client.list_database_names():
        if name not in ("admin", "config", "local"):
            client.drop_database(name)
    return client


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, rounds(4, 100) + 1))
def test_a_backup_among_writers_is_exact_to_its_stamp(
    busy: Client, empty: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Small batches: many instants, one dump.
    monkeypatch.setattr(raw_find, "MOST_DOCUMENTS", 20)
    nothing = prepare(busy)
    with Writers(busy, seed) as writers:
        time.sleep(0.5)
        before = {number: len(moves) for number, moves in writers.moves.items()}
        report = dump(busy, Folder(tmp_path / "dump"), "hot")
    end = Timestamp(*report.oplog["end"])
    loaded = load(emptied(empty), str(tmp_path / "dump"), [])
    assert loaded.oplog_applied > 0
    assert list(differences(state_at(busy, nothing, end), empty)) == []
    # The same, told by the clients: each transaction is whole, none is lost that was acknowledged before, none is there twice.
    sums = dict.fromkeys(range(600), 100)
    for number, moves in writers.moves.items():
        ledger = [one["_id"] for one in empty.bank.ledger.find({"_id": {"$regex": f"^{number}-"}})]
        assert sorted(ledger) == sorted(f"{number}-{turn}" for turn in range(len(ledger)))
        assert before[number] <= len(ledger) <= len(moves)
        for one, other in moves[: len(ledger)]:
            sums[one] -= 7
            sums[other] += 7
    assert {one["_id"]: one["sum"] for one in empty.bank.accounts.find()} == sums
    numbers = [one["number"] for one in empty.juju["txns.log"].find()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    shutil.rmtree(tmp_path / "dump")
