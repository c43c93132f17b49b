"""What may happen to a member under a dump: each has a named cause, none leaves a silent gap."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr import raw_find
from ansible.module_utils.juju_dr import window as window_module
from ansible.module_utils.juju_dr.dump import dump, packed_at_most, sizes
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.load import load
from ansible.module_utils.juju_dr.mongo import MongoAccess
from ansible.module_utils.juju_dr.oplog import DumpInterrupted
from ansible.module_utils.juju_dr.window import Window
from bson.timestamp import Timestamp
from conftest import Server, free_port, until_primary
from pymongo import MongoClient
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from lab.mongod import Mongod

Client = MongoClient[dict[str, Any]]


class Disturbed(Folder):
    """A folder during whose filling something happens, once, after the first block of a collection."""

    def __init__(self, path: Path, name: str, happens: Callable[[], object]) -> None:
        super().__init__(path)
        self._name, self._happens = name, happens
        self.taken: list[str] = []

    def add(self, name: str, blocks: Iterable[bytes], facts: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        self.taken.append(name)
        return super().add(name, self._disturbed(blocks) if name == self._name else blocks, facts)

    def _disturbed(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for number, block in enumerate(blocks):
            yield block
            if number == 0:
                self._happens()


class Trio:
    """Three members of one replica set."""

    def __init__(self, binary: Mongod, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        self.servers = []
        for port in ports:
            (folder / str(port)).mkdir()
            arguments = [
                "--dbpath",
                str(folder / str(port)),
                "--port",
                str(port),
                "--bind_ip",
                "127.0.0.1",
                "--replSet",
                "juju",
            ]
            self.servers.append(Server(binary, [*arguments, "--oplogSize", "100"], MongoAccess(port=port)))
            self.servers[-1].start()
        for server in self.servers:
            server.wait().close()
        members = [{"_id": n, "host": f"127.0.0.1:{port}", "priority": 5 if n == 0 else 1} for n, port in enumerate(ports)]
        with self.servers[0].wait() as client:
            client.admin.command(
                "replSetInitiate", {"_id": "juju", "members": members, "settings": {"electionTimeoutMillis": 2000}}
            )
            until_primary(client)
            client.juju.get_collection("machines").insert_many([{"_id": n, "pad": "x" * 1000} for n in range(5000)])
        for server in self.servers[1:]:
            with server.wait() as client:
                wait_for(lambda client=client: client.admin.command("isMaster").get("secondary"))  # type: ignore[misc]
                # As a majority has them: that is what a dump reads.
                machines = client.juju.get_collection("machines", read_concern=ReadConcern("majority"))
                wait_for(lambda machines=machines: machines.count_documents({}) == 5000)  # type: ignore[misc]

    def stop(self) -> None:
        for server in self.servers:
            if server.process:
                server.process.kill()
                server.process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture
def trio(mongod_binary: Mongod, tmp_path: Path) -> Iterator[Trio]:
    made = Trio(mongod_binary, tmp_path)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _small_and_watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    # One batch at a time, and a look after each.
    monkeypatch.setattr("ansible.module_utils.juju_dr.dump.AHEAD_BYTES", 1)
    monkeypatch.setattr(raw_find, "MOST_DOCUMENTS", 100)
    monkeypatch.setattr(window_module, "WATCH_SECONDS", 0)


def test_an_election_ends_the_dump_at_the_next_look(trio: Trio, tmp_path: Path) -> None:
    with trio.servers[1].wait() as secondary, trio.servers[0].wait() as primary:
        until_primary(primary)

        def term() -> int:
            return int(secondary.admin.command("replSetGetStatus")["optimes"]["lastCommittedOpTime"]["t"])

        def elect() -> None:
            before = term()
            primary.admin.command({"replSetStepDown": 30, "force": True, "secondaryCatchUpPeriodSecs": 0})
            wait_for(lambda: term() > before)

        sink = Disturbed(tmp_path / "dump", "dump/juju/machines.bson", elect)
        with pytest.raises(DumpInterrupted, match=r"Another primary was elected while the database was dumped \(term \d+, now"):
            dump(secondary, sink, "hot")
        # It did not read on to the end of the database first.
        assert (tmp_path / "dump/dump/juju/machines.bson").stat().st_size < 4_000_000
        assert "dump/oplog.bson" not in sink.taken


def test_a_member_that_is_killed_is_named_and_another_one_can_be_dumped(trio: Trio, tmp_path: Path) -> None:
    killed = trio.servers[2]
    assert killed.process is not None
    with killed.wait() as client, trio.servers[1].wait() as other:
        with pytest.raises(DumpInterrupted, match="The member went away while it was dumped"):
            dump(client, Disturbed(tmp_path / "dump", "dump/juju/machines.bson", killed.process.kill), "hot")
        report = dump(other, Folder(tmp_path / "other"), "hot")
    assert {one.ns: one.documents for one in report.collections} == {"juju.machines": 5000}


def test_a_member_cut_off_from_the_majority_is_named(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "MAJORITY_SECONDS", 0.5)
    with trio.servers[0].wait() as primary:

        def cut_off() -> None:
            for server in trio.servers[1:]:
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
            primary.juju.get_collection("machines").insert_one({"_id": "unconfirmed"})

        with pytest.raises(DumpInterrupted, match=r"A majority of the replica set has not confirmed .* for 0 s|went away"):
            dump(primary, Disturbed(tmp_path / "dump", "dump/juju/machines.bson", cut_off), "hot")


@pytest.fixture
def tiny(mongod_binary: Mongod, tmp_path: Path) -> Iterator[Server]:
    """A primary of one whose oplog holds a megabyte or so."""
    port = free_port()
    (tmp_path / "tiny").mkdir()
    arguments = ["--dbpath", str(tmp_path / "tiny"), "--port", str(port), "--bind_ip", "127.0.0.1", "--replSet", "juju"]
    server = Server(mongod_binary, [*arguments, "--oplogSize", "1", "--syncdelay", "1"], MongoAccess(port=port))
    server.start()
    with server.wait() as client:
        client.admin.command("replSetInitiate", {"_id": "juju", "members": [{"_id": 1, "host": f"127.0.0.1:{port}"}]})
        until_primary(client)
        # A dump reads what a majority has.
        for name in ("machines", "after"):
            filled = client.juju.get_collection(name, write_concern=WriteConcern("majority"))
            filled.insert_many([{"_id": n, "pad": "x" * 1000} for n in range(2000)])
    yield server
    server.stop()
    shutil.rmtree(tmp_path / "tiny")


@pytest.mark.parametrize("watchful", [True, False])
def test_an_overrun_oplog_is_named_while_it_dumps_and_at_the_end(
    tiny: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watchful: bool
) -> None:
    monkeypatch.setattr(window_module, "WATCH_SECONDS", 0 if watchful else 10**9)
    with tiny.wait() as client:

        def overrun() -> None:
            committed = client.admin.command("replSetGetStatus")["optimes"]["lastCommittedOpTime"]["ts"]
            wait_for(lambda: _oldest_after_more_writes(client) > committed)

        sink = Disturbed(tmp_path / "dump", "dump/juju/after.bson", overrun)
        with pytest.raises(DumpInterrupted, match="The oplog rolled over while the database was dumped: changes are missing"):
            dump(client, sink, "hot")
        assert ("dump/oplog.bson" in sink.taken) is not watchful


def _oldest_after_more_writes(client: Client) -> Timestamp:
    client.passing.noise.insert_many([{"pad": "n" * 100_000} for _ in range(40)])
    client.passing.noise.delete_many({})
    oldest: Timestamp = next(client.local["oplog.rs"].find({}, {"ts": 1}).sort("$natural", 1).limit(1))["ts"]
    return oldest


def test_a_restarted_member_is_noticed(tiny: Server, tmp_path: Path) -> None:
    with tiny.wait() as client:

        def restart() -> None:
            tiny.stop()
            tiny.start()
            until_primary(tiny.wait())

        with pytest.raises(DumpInterrupted, match=r"Another primary was elected|The member went away|MongoDB stopped the dump"):
            dump(client, Disturbed(tmp_path / "dump", "dump/juju/after.bson", restart), "hot")


def test_a_renamed_collection_in_the_window_is_named_and_the_next_dump_succeeds(
    plain_replica_set: Client, tmp_path: Path
) -> None:
    client = plain_replica_set
    client.juju.before.insert_many([{"_id": n, "pad": "x" * 1000} for n in range(500)])
    sink = Disturbed(tmp_path / "dump", "dump/juju/before.bson", lambda: client.juju.before.rename("after"))
    with pytest.raises(DumpInterrupted, match=r"Collection juju\.before was renamed to juju\.after while"):
        dump(client, sink, "hot")
    report = dump(client, Folder(tmp_path / "again"), "hot")
    assert {one.ns: one.documents for one in report.collections} == {"juju.after": 500}


@pytest.mark.parametrize("whole_database", [False, True])
def test_a_collection_dropped_while_it_is_read_is_not_there_afterwards(
    plain_replica_set: Client, standalone: Client, tmp_path: Path, whole_database: bool
) -> None:
    client = plain_replica_set
    client.passing.goes.insert_many([{"_id": n, "pad": "x" * 1000} for n in range(2000)])
    client.juju.stays.insert_one({"_id": 1})

    def drop() -> None:
        if whole_database:
            client.drop_database("passing")
        else:
            client.passing.goes.drop()

    report = dump(client, Disturbed(tmp_path / "dump", "dump/passing/goes.bson", drop), "hot")
    read = {one.ns: one.documents for one in report.collections}
    assert 0 < read["passing.goes"] < 2000
    load(standalone, str(tmp_path / "dump"), [])
    assert set(standalone.list_database_names()) - {"admin", "config", "local"} == {"juju"}


def test_a_collection_that_vanishes_without_a_drop_is_named(plain_replica_set: Client) -> None:
    window = Window(plain_replica_set)
    window.dropped_under_us("juju", "machines")
    window.close()
    with pytest.raises(DumpInterrupted, match=r"juju\.machines went away while it was dumped, and the oplog does not say how"):
        list(window.blocks())


def test_the_window_reaches_back_to_the_first_entry_of_a_transaction(plain_replica_set: Client) -> None:
    client = plain_replica_set
    client.juju.create_collection("big")
    with client.start_session() as session, session.start_transaction():
        for number in range(7):
            client.juju.big.insert_one({"_id": number, "pad": "y" * 3_000_000}, session=session)
    chain = list(client.local["oplog.rs"].find({"lsid": {"$exists": True}, "o.applyOps": {"$exists": True}}, {"ts": 1}))
    assert len(chain) > 1
    window = Window(client)
    # As if the window had been opened between two entries of one transaction.
    window.start = chain[-1]["ts"]
    window._opened = chain[0]["ts"]
    window.close()
    assert window.start == chain[0]["ts"]
    assert len(b"".join(window.blocks())) > 20_000_000


def test_a_server_that_is_no_member_cannot_be_dumped_hot(standalone: Client, tmp_path: Path) -> None:
    with pytest.raises(DumpInterrupted, match="neither PRIMARY nor SECONDARY"):
        dump(standalone, Folder(tmp_path / "dump"), "hot")


def test_a_user_who_may_not_read_is_told_so_without_a_retry(plain_replica_set: Client, tmp_path: Path) -> None:
    class Forbidding(Folder):
        def add(self, *_: object) -> dict[str, Any]:
            plain_replica_set.admin.command("nonsense")
            return {}

    plain_replica_set.juju.machines.insert_one({"_id": 1})
    with pytest.raises(DumpInterrupted, match="MongoDB stopped the dump: no such command"):
        dump(plain_replica_set, Forbidding(tmp_path / "dump"), "hot")


def test_sizes_are_told_before_anything_is_read(plain_replica_set: Client) -> None:
    plain_replica_set.juju.get_collection("machines").insert_many([{"_id": n, "pad": "x" * 1000} for n in range(1000)])
    found = sizes(plain_replica_set)
    assert found["juju"].documents == 1000
    assert found["juju"].data > 1_000_000
    assert packed_at_most(found) >= found["juju"].data // 4


def test_the_stamp_is_the_database_s_own_time(plain_replica_set: Client, tmp_path: Path) -> None:
    plain_replica_set.juju.machines.insert_one({"_id": 1})
    report = dump(plain_replica_set, Folder(tmp_path / "dump"), "hot")

    end = Timestamp(*report.oplog["end"])
    assert datetime.fromisoformat(report.finished).timestamp() == end.time
