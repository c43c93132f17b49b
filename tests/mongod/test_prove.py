"""Proofs against a real member, and what they say when they do not hold."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.juju_dr.controller_host import controller_client
from ansible.module_utils.juju_dr.leftovers import scan
from ansible.module_utils.juju_dr.presence import Watch, expected_agents, in_documents, machine_addresses
from ansible.module_utils.juju_dr.prove import Restored, agents_back, prove, prove_agents
from pymongo.errors import AutoReconnect
from support import NEW, Controller, prepare

from lab.modules import call
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


def test_the_modules_of_re_pointing_do_only_the_rest(
    controller: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """List, tell, keep, prove, and list again: with the machine's side and ssh left out."""
    folders = {"data_dir": str(controller.folder / "controller"), "mongo_common": str(controller.folder / "common")}
    ledger = {"ledger_folder": str(tmp_path / "ledger")}
    everywhere = {**folders, **ledger, "log_dir": str(controller.folder)}
    monkeypatch.setattr(AnsibleModule, "run_command", lambda _, command: running(command))

    answer = {"agents": [], "refused": [], "changed": ["x"], "failed": [], "elsewhere": "", "controller": ""}
    said = json.dumps({**answer, "clock": datetime.now(timezone.utc).timestamp()})
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, said, ""))
    listed = call(capsys, "juju_machines", lost_controllers=["1"], **everywhere)
    assert [one["machine"] for one in listed["machines"]] == ["2", "0"]
    assert listed["lost_agents"] == [f"machine-1@{controller.conf.require('model')[len('model-') :]}"]
    assert listed["order"]["addresses"] == controller.conf.sequence("apiaddresses")
    for check in (True, False):
        told = call(
            capsys, "juju_repoint", machines=listed["machines"], order=listed["order"], _ansible_check_mode=check, **ledger
        )
        assert [one["outcome"] for one in told["entries"]] == ["done", "done"]
        assert (tmp_path / "ledger" / "repoint-journal.jsonl").exists() is not check
    call(capsys, "juju_repoint", machines=listed["machines"], order=listed["order"], journal=False, identity="/id", **ledger)
    # A run that was ended before it kept its ledger: whoever is back by now is not told again.
    log = controller.folder / "machine-0.log"
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    names = ("machine-0", "unit-front-0", "unit-back-0")
    log.write_text("".join(f"{now} INFO juju.apiserver.connection x.go:1 agent login: {one} for {UUID}\n" for one in names))
    again = call(capsys, "juju_machines", **everywhere)
    assert ([one["machine"] for one in again["machines"]], again["whole"]) == (["2"], 1)
    assert again["lost_agents"] == listed["lost_agents"]
    assert len(call(capsys, "juju_machines", force=True, _ansible_check_mode=True, **everywhere)["machines"]) == 2
    kept = call(capsys, "juju_ledger", entries=told["entries"], **ledger)
    assert (kept["changed"], len(kept["ledger"]), kept["not_pointed"]) == (True, 2, [])
    proved = call(
        capsys, "juju_prove", address=NEW, machine_id="0", proofs=["agents-logged-in", "api-answers"], deadline=0, **folders,
        log_dir=str(controller.folder),
    )  # fmt: skip
    assert "Not proved: api-answers" in proved["msg"]
    fine = call(capsys, "juju_prove", address=NEW, machine_id="0", proofs=["mongo-primary"], deadline=0, **folders)
    assert (fine["changed"], [one["ok"] for one in fine["proofs"]]) == (False, [True])
    assert set(proved["agents"]) == {f"{one}@{UUID}" for one in names}
    seen = call(capsys, "juju_ledger", seen=proved["agents"], **ledger)
    assert [one["seen"].get(f"unit-front-0@{UUID}", "") for one in seen["ledger"]] == ["log: its login", ""]
    assert call(capsys, "juju_ledger", _ansible_check_mode=True, **ledger)["changed"] is False
    for name in ("juju_machines", "juju_prove"):
        wrong = {"address": NEW, "machine_id": "0", "proofs": []} if name == "juju_prove" else {}
        assert "controller machine agents below" in call(capsys, name, data_dir=str(tmp_path), **wrong)["msg"]
    probed = {"endpoints": ["127.0.0.1:1"], "ca_cert": controller.conf.require("cacert")}
    assert call(capsys, "juju_probe", **probed)["answers"] == []
    assert "cannot be read" in call(capsys, "juju_probe", **{**probed, "ca_cert": "-----BEGIN CERTIFICATE-----\nA"})["msg"]


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
    for proof in prove(gone, ["mongo-primary", "peergrouper-keeps-member"], 0.6, systemctl("")):  # type: ignore[arg-type]
        assert not proof.ok
        assert "controller machine agents below" in proof.evidence


def test_an_agent_that_fails_shows_the_end_of_its_log(controller: Controller) -> None:
    one = restored(controller)
    one.log_file.write_text("first\nsecond\nagent should be terminated\nlast\n", encoding="utf-8")
    (proof,) = prove(one, ["jujud-active"], 0, systemctl("ActiveState=failed\n"))  # type: ignore[arg-type]
    assert proof.evidence.endswith("its log ends: second | agent should be terminated | last")


def test_a_database_that_steps_down_meanwhile_is_asked_again(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peergrouper may make the member step down for a moment; that is no failure of the proof."""
    one, looks = restored(controller), []

    def look(watch: Watch) -> dict[str, str]:
        looks.append(watch)
        if len(looks) == 1:
            raise AutoReconnect("not primary")
        watch.seen.update({agent.agent: "log: its login" for agent in watch.expected})
        return watch.seen

    monkeypatch.setattr(Watch, "look", look)
    proof, seen = prove_agents(one, 5, running)
    assert proof.ok
    assert len(seen) == len(looks[0].expected)
    looks.clear()
    assert "does not answer: not primary" in prove_agents(one, 0, running)[0].evidence
