"""A restore that forgets any one rewrite fails, rule by rule; with all of them it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.agent_conf import replace_sequence
from ansible.module_utils.juju_dr.controller_host import describe
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.leftovers import in_files, pattern
from ansible.module_utils.juju_dr.peergrouper import desired, documents_from, members_from, read_collections
from ansible.module_utils.juju_dr.presence import Log
from ansible.module_utils.juju_dr.probe import api_answers
from ansible.module_utils.juju_dr.rewriting import Live, Wanted, refuse_unsafe, rewrite_database, rewrite_files
from ansible.module_utils.juju_dr.rules import RULES, move_from
from ansible.module_utils.juju_dr.schema import ENVIRONMENTS
from support import CIDR, NEW, OLD, Client, Controller, Prepared, agent_addresses, eventually, prepare, text_of

from lab.mongod import Mongod
from lab.provision import make_highly_available

Shape = Callable[[Any], None]


@pytest.fixture(scope="module")
def prepared(mongod_binary: Mongod, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    return {one: prepare(mongod_binary, one, tmp_path_factory.mktemp(one)) for one in ("2.9", "3.x")}


@pytest.fixture
def case(mongod_binary: Mongod, prepared: dict[str, Prepared], tmp_path: Path) -> Iterator[Callable[[str], Controller]]:
    made: list[Controller] = []

    def make(generation: str) -> Controller:
        made.append(Controller(mongod_binary, prepared[generation], tmp_path / f"case{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def highly_available(juju: Any) -> None:
    """Machines 1 and 2 were controllers too, and are lost."""
    model = juju.controllers.find_one({"_id": "e"})["model-uuid"]
    hosts = [{"machine_id": str(n), "address": f"10.99.0.1{n + 1}"} for n in range(3)]
    make_highly_available(juju, model, hosts)


def with_ha_space(juju: Any) -> None:
    model = juju.controllers.find_one({"_id": "e"})["model-uuid"]
    juju.controllers.update_one({"_id": "controllerSettings"}, {"$set": {"settings.juju-ha-space": "far"}})
    juju.spaces.insert_one({"_id": f"{model}:9", "spaceid": "9", "name": "far", "model-uuid": model})


def without_vote(juju: Any) -> None:
    juju.controllerNodes.update_many({}, {"$set": {"wants-vote": False}})


def as_machine_with_address(juju: Any) -> None:
    """The controller was added by its address, as HA members of the manual cloud are."""
    address = juju.machines.find_one({"machineid": "0", "jobs": 2})["machineaddresses"][0]["value"]
    model = juju.controllers.find_one({"_id": "e"})["model-uuid"]
    juju.instanceData.update_one({"_id": f"{model}:0"}, {"$set": {"instanceid": f"manual:{address}"}})


# A shape of the data in which the rule has something to do, where the fixtures as they are do not.
SHAPES: dict[str, tuple[str, Shape]] = {
    "controller-ids": ("2.9", highly_available),
    "lost-controller-nodes": ("2.9", highly_available),
    "lost-controller-jobs": ("2.9", highly_available),
    "ha-space": ("3.x", with_ha_space),
    "wants-vote": ("2.9", without_vote),
    "instance-id": ("2.9", as_machine_with_address),
}
# No jujud of Juju 1.x is stood in for.
GENERATION = {
    rule.name: SHAPES.get(rule.name, (rule.generations[0], None))[0]
    for rule in RULES
    if rule.generations[0] not in ENVIRONMENTS
}


def restored(one: Controller, skip: list[str], shape: Shape | None = None, files: bool = True) -> list[str]:
    """What goes wrong between the load and the first login; empty when all is well."""
    wanted = Wanted("0", NEW, CIDR, skip_rules=tuple(skip))
    with one.standalone() as client:
        if shape:
            shape(client.juju)
        move = move_from(Live(client.juju), "0", NEW, CIDR)
        write_cloud(one, client)
        try:
            rewrite_database(client.juju, wanted)
            refuse_unsafe(client, move, one.prepared.mongo_port)
        except JujuDrError as error:
            return [f"before anything is started: {error}"]
    if files:
        rewrite_files(str(one.folder / "controller"), "0", NEW, apply_edits=True)
    point_workload(one)
    client = one.start_mongod()
    one.start_jujud("controller")
    one.start_jujud("workload")
    return list(judged(one, client))


def write_cloud(one: Controller, client: Client) -> None:
    """All known instances run, and one that was made after the backup."""
    known = client.juju.instanceData.find()
    instances = [
        {"id": i["instanceid"], "model": i["model-uuid"], "machine": i["machineid"], "state": "running"} for i in known
    ]
    prod = client.juju.models.find_one({"name": "prod"})
    assert prod is not None
    instances.append({"id": "after-the-backup", "model": prod["_id"], "machine": "77", "state": "running"})
    one.cloud.write_text(json.dumps(instances), encoding="utf-8")


def point_workload(one: Controller) -> None:
    for path in one.folder.glob("workload/agents/*/agent.conf"):
        text = path.read_text(encoding="utf-8")
        path.write_text(replace_sequence(text, "apiaddresses", [f"{NEW}:{one.prepared.api_port}"]), encoding="utf-8")


def judged(one: Controller, client: Client) -> Iterator[str]:
    expected = {"machine-0", "unit-front-0", "unit-back-0"} | (
        {"unit-controller-0"} if one.prepared.generation == "3.x" else set()
    )
    if not eventually(lambda: bool(api_answers(NEW, one.prepared.api_port, one.conf.require("cacert"), 1)), 10):
        yield f"the API does not answer: {text_of(one.log())[-300:]}"
        return
    if not eventually(lambda: {who.split("@")[0] for who in Log(one.log(), 0).read_on()} >= expected, 8):
        yield f"only {Log(one.log(), 0).read_on()} logged in"
    # Three rounds of the workers and of the address updater.
    eventually(lambda: one.processes["controller"].poll() is not None, 5)
    for who, process in one.processes.items():
        if process.poll() is not None:
            yield f"the agent of {who} ended: {text_of(one.log(who))[-300:]}"
    config = client.admin.command("replSetGetConfig")["config"]
    status = client.admin.command("replSetGetStatus")
    decision = desired(documents_from(read_collections(client.juju)), members_from(config, status))
    if not (decision.steady and decision.keeps("0", f"{NEW}:{one.prepared.mongo_port}")):
        yield f"the peergrouper wants {decision}"
    for who in ("controller", "workload"):
        for tag, addresses in agent_addresses(one.folder / who):
            if addresses != [f"{NEW}:{one.prepared.api_port}"]:
                yield f"{tag} of {who} dials {addresses}"
    for instance in json.loads(one.cloud.read_text(encoding="utf-8")):
        if instance["state"] != "running":
            yield f"instance {instance['id']} was stopped"


@pytest.mark.parametrize("generation", ["2.9", "3.x"])
def test_with_all_rules_the_controller_is_whole(case: Callable[[str], Controller], generation: str) -> None:
    assert restored(case(generation), []) == []


@pytest.mark.parametrize("rule", list(GENERATION))
def test_without_this_rule_the_restore_fails(case: Callable[[str], Controller], rule: str) -> None:
    one = case(GENERATION[rule])
    shape = SHAPES.get(rule, ("", None))[1]
    if rule == "ip-address-subnet":

        def shape(juju: Any) -> None:
            juju["ip.addresses"].update_many({"subnet-cidr": "10.99.0.0/24"}, {"$set": {"subnet-cidr": "10.99.0.0/16"}})

    assert restored(one, [rule], shape) != []


@pytest.mark.parametrize("generation", ["2.9", "3.x"])
def test_the_agents_files_name_the_old_address_until_they_are_rewritten(
    case: Callable[[str], Controller], generation: str
) -> None:
    one = case(generation)
    agents, sought = [one.folder / "controller" / "agents"], pattern([OLD[generation]])
    assert [finding.kind for finding in in_files(agents, sought)].count("live") >= 1
    rewrite_files(str(one.folder / "controller"), "0", NEW, apply_edits=True)
    assert list(in_files(agents, sought)) == []
    assert rewrite_files(str(one.folder / "controller"), "0", NEW, apply_edits=True) == []


def test_a_controller_unit_that_did_not_come_back_is_deployed_anew_only_when_it_is_forgotten(
    case: Callable[[str], Controller],
) -> None:
    import shutil

    one, other = case("3.x"), case("3.x")
    for each in (one, other):
        shutil.rmtree(each.folder / "controller/agents/unit-controller-0")
    assert restored(one, []) == []
    assert "deployed controller/0 anew" in text_of(one.log())
    one.stop()
    path = other.folder / "controller/agents/machine-0/agent.conf"
    path.write_text(
        replace_sequence(path.read_text(encoding="utf-8"), "apiaddresses", [f"{NEW}:{other.prepared.api_port}"]),
        encoding="utf-8",
    )
    assert restored(other, [], files=False) != []
    assert 'unable to start unit "controller/0": cannot read agent config' in text_of(other.log())


def test_without_dqlite_the_api_never_opens(case: Callable[[str], Controller]) -> None:
    one = case("3.x")
    (one.folder / "controller/dqlite/controller").unlink()
    (fault,) = restored(one, [])
    assert "the API does not answer" in fault
    assert "cannot open api" in fault


# What jujud compares before it works, and the words with which it ends.
MISMATCHES: list[tuple[str, dict[str, Any], str]] = [
    ("machines", {"nonce": "manual:127.0.0.21:rewritten-by-text"}, "running machine 0 agent on inappropriate instance"),
    ("machines", {"passwordhash": "of another password"}, "invalid entity name or password"),
    ("machines", {"life": 2}, "machine 0 is dead"),
    ("machines", {"jobs": [1]}, "machine 0 is not a controller"),
    ("controllers", {"controller-ids": ["1"]}, "machine 0 is not a controller"),
]


def test_the_stand_in_ends_well_and_stays_down_as_jujud_does(case: Callable[[str], Controller]) -> None:
    one = case("2.9")
    client = one.start_mongod()
    model = one.conf.require("model")[len("model-") :]
    for collection, change, words in MISMATCHES:
        key = f"{model}:0" if collection == "machines" else "e"
        before = client.juju[collection].find_one({"_id": key})
        assert before is not None
        client.juju[collection].update_one({"_id": key}, {"$set": change})
        one.log().unlink(missing_ok=True)
        assert one.start_jujud().wait(15) == 0
        assert words in text_of(one.log())
        assert "agent should be terminated" in text_of(one.log())
        client.juju[collection].replace_one({"_id": key}, before)
    described = describe(str(one.folder / "controller"), str(one.folder / "common"), "none", lambda _: (1, "", ""))
    assert described["replica_set"]["members"][0]["state"] == "PRIMARY"
