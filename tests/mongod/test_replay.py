"""What a replay meets on a real mongod when the dump was read after, or before, an operation of the window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr import replay as replaying
from ansible.module_utils.juju_dr.oplog import Transactions, UniqueIndexes
from ansible.module_utils.juju_dr.replay import build, replay
from pymongo import MongoClient
from pymongo.errors import OperationFailure

Client = MongoClient[dict[str, Any]]


def replayed(client: Client, folder: Path, entries: list[dict[str, Any]], loaded: dict[str, bool]) -> int:
    path = folder / "oplog.bson"
    path.write_bytes(b"".join(bson.encode({"ts": number, **one}) for number, one in enumerate(entries)))
    unique = UniqueIndexes()
    number = replay(client, path, loaded, unique, Transactions())
    build(client, unique)
    return number


def document(op: str, o: dict[str, Any], ns: str = "juju.m", **more: Any) -> dict[str, Any]:
    return {"op": op, "ns": ns, "ui": "its collection", "o": o, **more}


def command(o: dict[str, Any]) -> dict[str, Any]:
    return {"op": "c", "ns": "juju.$cmd", "o": o}


def test_an_index_that_was_made_anew_later_gives_way_until_its_turn(standalone: Client, tmp_path: Path) -> None:
    collection = standalone.juju.m
    collection.insert_one({"_id": 1, "a": 1})
    collection.create_index("a", name="a_1", sparse=True)
    old = {"v": 2, "key": {"a": 1}, "name": "a_1"}
    unique = {"v": 2, "key": {"b": 1}, "name": "b_1", "unique": True}
    entries = [
        command({"createIndexes": "m", **old}),
        command({"createIndexes": "m", **unique}),
        document("i", {"_id": 2, "a": 2, "b": 1}),
    ]
    assert replayed(standalone, tmp_path, entries, {"juju.m": False}) == 3
    indexes = {one["name"]: dict(one) for one in collection.list_indexes()}
    assert "sparse" not in indexes["a_1"]
    assert indexes["b_1"]["unique"]
    assert collection.count_documents({}) == 2


def test_what_is_done_already_is_passed_over_and_what_cannot_be_done_is_not(standalone: Client, tmp_path: Path) -> None:
    standalone.juju.create_collection("m")
    passed = [command({"create": "m"}), command({"dropIndexes": "m", "index": "gone"}), command({"drop": "never-there"})]
    assert replayed(standalone, tmp_path, passed, {"juju.m": False, "juju.never-there": False}) == 3
    with pytest.raises(OperationFailure):
        replayed(standalone, tmp_path, [command({"create": "n", "capped": True, "size": -1})], {"juju.m": False})


def test_large_operations_are_sent_in_several_commands(
    standalone: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "BATCH_BYTES", 1000)
    standalone.juju.create_collection("m")
    entries = [document("i", {"_id": number, "a": "x" * 400}) for number in range(9)]
    assert replayed(standalone, tmp_path, entries, {"juju.m": False}) == 9
    assert standalone.juju.m.count_documents({}) == 9


def test_an_update_of_what_a_capped_collection_lost_since_brings_nothing_back(standalone: Client, tmp_path: Path) -> None:
    standalone.juju.create_collection("log", capped=True, size=4096)
    standalone.juju.log.insert_many([{"_id": number, "n": 0} for number in (3, 4)])
    entries = [
        document("u", {"$set": {"seen": 1}}, "juju.log", o2={"_id": 1}),
        document("u", {"_id": 4, "n": 1}, "juju.log", o2={"_id": 4}),
    ]
    replayed(standalone, tmp_path, entries, {"juju.log": True})
    assert [one["_id"] for one in standalone.juju.log.find()] == [3, 4]
