"""What is dumped and loaded is what was there, byte for byte and instant for instant."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.load import MongoUser, load, make_users, stored_credentials
from ansible.module_utils.juju_dr.mongo import MongoAccess, connect
from pymongo import MongoClient

Client = MongoClient[dict[str, Any]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_uuid(text: bytes) -> bytes:
    import re

    return re.sub(rb'"uuid":"[0-9a-f]{32}"', b'"uuid":""', text)


def test_a_juju_archive_loads_and_dumps_again_byte_for_byte(standalone: Client, fixture_archive: Path, tmp_path: Path) -> None:
    # Without its oplog: what is compared is the dump itself.
    (fixture_archive / "dump" / "oplog.bson").unlink()
    report = load(standalone, str(fixture_archive), [])
    assert report.documents > 1000
    dump(standalone, str(tmp_path / "again"), "offline")
    before, after = files(fixture_archive / "dump"), files(tmp_path / "again" / "dump")
    assert sorted(before) == sorted(after)
    for name in before:
        if name.endswith(".bson"):
            assert after[name] == before[name], name
        elif name != "prelude.json":
            assert without_uuid(after[name]) == without_uuid(before[name]), name


def test_what_a_dump_writes_is_closed_to_others(standalone: Client, tmp_path: Path) -> None:
    standalone.juju.machines.insert_one({"_id": 1})
    dump(standalone, str(tmp_path / "dump"), "offline")
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
    dump(plain_replica_set, str(tmp_path / "dump"), "hot")
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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_hot_dump_restores_the_state_of_one_instant(
    plain_replica_set: Client, standalone: Client, tmp_path: Path, seed: int
) -> None:
    """Money moves between accounts in transactions, a ledger counts, and other things come and go meanwhile."""
    database = plain_replica_set.bank
    database.accounts.insert_many([{"_id": n, "sum": 100, "pad": "x" * 2000} for n in range(2000)])
    database.create_collection("ledger")
    database.create_collection("big")
    database.create_collection("capped", capped=True, size=100_000)
    stop = threading.Event()
    trouble: list[BaseException] = []

    def mover(seed: int) -> None:
        random_ = random.Random(seed)
        moved = 0
        try:
            while not stop.is_set():
                one, other = random_.sample(range(2000), 2)
                with plain_replica_set.start_session() as session:

                    def move(session: Any, one: int = one, other: int = other, moved: int = moved) -> None:
                        database.accounts.update_one({"_id": one}, {"$inc": {"sum": -7}}, session=session)
                        database.accounts.update_one({"_id": other}, {"$inc": {"sum": 7}}, session=session)
                        database.ledger.insert_one({"_id": f"{seed}-{moved}"}, session=session)

                    session.with_transaction(move)
                moved += 1
        except BaseException as error:
            trouble.append(error)

    def comer(seed: int) -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                database.capped.insert_one({"_id": turn})
                name = f"passing{turn % 3}"
                database[name].create_index("key")
                database[name].insert_one({"_id": turn, "key": turn})
                database[name].delete_one({"_id": turn - 3})
                if turn % 5 == 0:
                    database[name].drop()
                # More than one oplog entry's worth: a chain of applyOps.
                if turn % 20 == 0:
                    with plain_replica_set.start_session() as session, session.start_transaction():
                        database.big.insert_many(
                            [{"_id": f"{turn}-{n}", "pad": "y" * 3_000_000} for n in range(7)], session=session
                        )
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=mover, args=(seed * 10 + n,)) for n in range(2)]
    threads.append(threading.Thread(target=comer, args=(seed,)))
    for thread in threads:
        thread.start()
    try:
        report = dump(plain_replica_set, str(tmp_path / "dump"), "hot")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert trouble == []
    assert report.oplog["entries"] > 0
    load(standalone, str(tmp_path / "dump"), [])
    accounts = list(standalone.bank.accounts.find({}, {"sum": 1}))
    assert len(accounts) == 2000
    assert sum(account["sum"] for account in accounts) == 200_000
    for name in {str(entry["_id"]).split("-")[0] for entry in standalone.bank.ledger.find()}:
        numbers = sorted(int(e["_id"].split("-")[1]) for e in standalone.bank.ledger.find({"_id": {"$regex": f"^{name}-"}}))
        assert numbers == list(range(len(numbers)))
    # Each account is what the ledger of its transactions makes it: replaying the seeds gives the same sums.
    expected = dict.fromkeys(range(2000), 100)
    for number in range(2):
        random_ = random.Random(seed * 10 + number)
        prefix = f"^{seed * 10 + number}-"
        for _ in range(standalone.bank.ledger.count_documents({"_id": {"$regex": prefix}})):
            one, other = random_.sample(range(2000), 2)
            expected[one] -= 7
            expected[other] += 7
    assert {account["_id"]: account["sum"] for account in accounts} == expected
    assert standalone.bank.big.count_documents({}) % 7 == 0
    numbers = [document["_id"] for document in standalone.bank.capped.find()]
    assert numbers == sorted(set(numbers))
    assert all(bson.encode(d) for d in standalone.bank.capped.find())


def test_a_renamed_collection_in_the_window_is_named(plain_replica_set: Client, tmp_path: Path) -> None:
    plain_replica_set.juju.before.insert_one({"_id": 1})
    from ansible.module_utils.juju_dr import dump as module

    renamed = {"renameCollection": "juju.before", "to": "juju.after", "writeConcern": {"w": "majority"}}
    plain_replica_set.admin.command(renamed)
    start = plain_replica_set.local["oplog.rs"].find_one({})
    assert start is not None
    (tmp_path / "x").mkdir()
    with pytest.raises(JujuDrError, match=r"juju\.before was renamed"):
        module._dump_oplog(plain_replica_set, tmp_path / "x" / "oplog.bson", start["ts"])
