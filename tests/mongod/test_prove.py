"""Proofs against a real member, and what they say when they do not hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.controller_host import controller_client
from ansible.module_utils.juju_dr.leftovers import scan
from ansible.module_utils.juju_dr.presence import Watch, expected_agents, in_documents, machine_addresses
from ansible.module_utils.juju_dr.prove import Restored, agents_back, prove, prove_agents
from support import NEW, Controller, prepare

from lab.mongod import Mongod

UUID = "901f082c-b330-49e3-8f56-5fffb4a9c190"


@pytest.fixture(scope="module")
def controller(mongod_binary: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """The 2.9 fixture, not rewritten: its documents still name the old address."""
    prepared = prepare(mongod_binary, "2.9", tmp_path_factory.mktemp("prepared"))
    with Controller(mongod_binary, prepared, tmp_path_factory.mktemp("case")) as one:
        one.start_mongod()
        yield one


def restored(one: Controller, address: str = NEW, **more: object) -> Restored:
    conf = one.conf
    return Restored(
        address,
        "0",
        one.prepared.api_port,
        one.prepared.mongo_port,
        conf.require("cacert"),
        str(one.folder / "controller"),
        str(one.folder / "common"),
        one.folder / "machine-0.log",
        **more,  # type: ignore[arg-type]
    )


def systemctl(shown: str) -> object:
    return lambda command: (0, shown, "")


def test_the_primary_is_proved_by_its_own_word(controller: Controller) -> None:
    (proof,) = prove(restored(controller), ["mongo-primary"], 1, systemctl(""))  # type: ignore[arg-type]
    assert (proof.ok, proof.evidence) == (True, f"primary is {NEW}:{controller.prepared.mongo_port}")
    (proof,) = prove(restored(controller, "127.0.0.9"), ["mongo-primary"], 0, systemctl(""))  # type: ignore[arg-type]
    assert not proof.ok


def test_stale_documents_do_not_keep_the_member(controller: Controller) -> None:
    (proof,) = prove(restored(controller), ["peergrouper-keeps-member"], 0, systemctl(""))  # type: ignore[arg-type]
    assert not proof.ok
    assert "10.99.0.11" in proof.evidence


def test_an_api_that_does_not_answer_is_no_proof(controller: Controller) -> None:
    (proof,) = prove(restored(controller), ["api-answers"], 0, systemctl(""))  # type: ignore[arg-type]
    assert not proof.ok


@pytest.mark.parametrize(
    ("shown", "ok"),
    [
        ("ActiveState=active\nNRestarts=0\n", True),
        ("ActiveState=active\nNRestarts=3\n", False),
        ("ActiveState=failed\n", False),
    ],
)
def test_an_agent_that_restarts_is_not_at_work(controller: Controller, shown: str, ok: bool) -> None:
    (proof,) = prove(restored(controller), ["jujud-active"], 0, systemctl(shown))  # type: ignore[arg-type]
    assert proof.ok is ok


NOW = datetime.now(timezone.utc)


def running(command: list[str]) -> tuple[int, str, str]:
    """systemctl's answer for a service whose main process is this one."""
    return 0, f"MainPID={os.getpid()}\n", ""


def test_agents_are_expected_from_the_documents_and_seen_in_the_log(controller: Controller) -> None:
    one = restored(controller)
    with controller_client(one.data_dir, one.mongo_common) as client:
        expected = {agent.agent for agent in expected_agents(client.juju)}
    assert {f"unit-front-0@{UUID}", f"unit-back-0@{UUID}", f"machine-0@{UUID}"} <= expected
    old, new = "2026-11-24 02:15:07", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    line = "{} INFO juju.apiserver.connection x.go:1 agent login: {} for " + UUID + "\n"
    one.log_file.write_text(line.format("1999-01-01 00:00:00", "unit-front-0") + line.format(new, "machine-0"))
    proof, seen = prove_agents(one, 0, running)
    assert (proof.ok, seen) == (False, {f"machine-0@{UUID}": "log: its login"}), old
    assert f"1 of {len(expected)} agents logged in (1 by log); not yet: " in proof.evidence
    others = restored(controller, without=frozenset(expected - {f"machine-0@{UUID}"}))
    assert prove_agents(others, 0, running)[0].ok
    # Of a service that does not run, no login counts.
    assert not prove_agents(others, 0, lambda _: (0, "MainPID=0\n", ""))[0].ok


def test_a_quiet_log_hides_no_agent(controller: Controller) -> None:
    """What a started agent writes through the API is seen, too; what the old controller wrote does not count."""
    one, since = restored(controller), NOW.timestamp() - 60
    with controller_client(one.data_dir, one.mongo_common) as client:
        database = client.juju
        expected = expected_agents(database)
        assert in_documents(database, expected, since) == set()
        front, machine = ({"_id": f"{UUID}:{what}"} for what in ("u#front/0", "0"))
        kept = (database.statuses.find_one(front) or {}, database.machines.find_one(machine) or {})
        for when, there in ((NOW, True), (NOW + timedelta(days=9), False)):
            database.statuses.update_one(front, {"$set": {"updated": int(when.timestamp()) * 10**9}})
            database.machines.update_one(machine, {"$set": {"agent-started-at": when}})
            found = in_documents(database, expected, since)
            assert found == ({f"unit-front-0@{UUID}", f"machine-0@{UUID}"} if there else set())
            if there:
                watch = Watch(database, one.log_file.with_name("no.log"), 1, since)
                others = frozenset({agent.agent for agent in expected} - found)
                assert agents_back(watch, others).evidence == "2 of 2 agents logged in (2 by documents)"
        assert in_documents(database, expected, float("inf")) == set()
        database.statuses.replace_one(front, kept[0])
        database.machines.replace_one(machine, kept[1])
        assert machine_addresses(database)[UUID, "0"] == ["10.99.0.14"]


def test_leftovers_are_told_apart(controller: Controller) -> None:
    folders = (str(controller.folder / "controller"), str(controller.folder / "common"))
    found = scan(["10.99.0.11"], [], *folders)
    assert {one.split(" ")[0] for one in found["live"]} >= {
        "juju.controllers",
        "juju.machines",
        "juju.clouds",
        "juju.ip.addresses",
    }
    assert any("agent.conf" in one for one in found["live"])
    assert {name.partition("-")[0] for name in found["history"]} >= {"juju.txns", "juju.txns.log", "logs.logs.36c3711f"}
    assert any("bootstrap-params" in name for name in found["history"])
    assert scan([], [], *folders) == {"live": [], "history": {}, "lost": []}
    assert scan(["10.99.0.1"], [], *folders)["live"] == [
        one for one in scan(["10.99.0.1"], [], *folders)["live"] if "gateway-address" in one
    ]


def test_a_dead_database_is_named_and_not_raised(tmp_path: Path, controller: Controller) -> None:
    one = restored(controller)
    gone = Restored(one.address, "0", 1, 1, one.ca_cert, str(tmp_path), one.mongo_common, one.log_file)
    (proof,) = prove(gone, ["mongo-primary"], 0, systemctl(""))  # type: ignore[arg-type]
    assert not proof.ok
    assert "controller machine agents below" in proof.evidence
