"""The rules on the data of real controllers: what is rewritten, and that nothing else is."""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bson
import jmespath
import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.leftovers import in_document, lost_controllers, pattern
from ansible.module_utils.juju_dr.peergrouper import Collections, Member, desired, documents_from
from ansible.module_utils.juju_dr.rewrite import Edit, Rule, parts, plan, value_at
from ansible.module_utils.juju_dr.rules import RULES, Move, harvest_before, move_from, rules_for
from ansible.module_utils.juju_dr.schema import ENVIRONMENTS

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
NEW, CIDR = "10.99.0.21", "10.99.0.0/24"
OLD = {"2.9": "10.99.0.11", "3.x": "10.99.0.15"}
Database = dict[str, list[dict[str, Any]]]


class Memory:
    def __init__(self, database: Database) -> None:
        self.database = database

    def find(self, collection: str) -> Iterable[dict[str, Any]]:
        return self.database.get(collection, [])


def read(version: str) -> Database:
    found: Database = {}
    with tarfile.open(FIXTURES / f"juju-{version}-single.tar.gz") as archive:
        for member in archive:
            path = Path(member.name)
            if path.suffix == ".bson" and path.parent.name == "juju":
                content = archive.extractfile(member)
                assert content is not None
                found[path.stem] = bson.decode_all(content.read())
    return found


def highly_available(database: Database) -> Database:
    """The 2.9 fixture with its idle machines 1 and 2 made controllers, as enable-ha does."""
    database = copy.deepcopy(database)
    by_id = {one["_id"]: one for one in database["controllers"]}
    model = by_id["e"]["model-uuid"]
    by_id["e"]["controller-ids"] = ["0", "1", "2"]
    for number in ("1", "2"):
        node = {**database["controllerNodes"][0], "_id": f"{model}:{number}"}
        database["controllerNodes"].append(node)
        address = f"10.99.0.1{int(number) + 1}"
        for which in ("apiHostPorts", "apiHostPortsForAgents"):
            server = copy.deepcopy(by_id[which]["apihostports"][0])
            server[0]["value"] = address
            by_id[which]["apihostports"].append(server)
    for machine in database["machines"]:
        if machine["_id"] in (f"{model}:1", f"{model}:2"):
            machine["jobs"] = [1, 2]
    return database


@pytest.fixture(scope="module", params=["2.9", "3.x", "ha"])
def case(request: pytest.FixtureRequest) -> tuple[str, str, Database]:
    """Generation, machine that is restored, database."""
    if request.param == "ha":
        return "2.9", "1", highly_available(read("2.9.61"))
    return str(request.param), "0", read({"2.9": "2.9.61", "3.x": "3.6.26"}[request.param])


def applied(database: Database, edits: Iterable[Edit]) -> Database:
    database = copy.deepcopy(database)
    for edit in edits:
        documents = database[edit.collection]
        document = next(one for one in documents if one["_id"] == edit.document_id)
        if edit.kind == "delete":
            documents.remove(document)
            continue
        *above, last = edit.field.split(".")
        parent: dict[str, Any] = document
        for key in above:
            parent = parent[key]
        if edit.kind == "unset":
            del parent[last]
        elif edit.kind == "rename":
            database.setdefault("(renamed)", []).append({"from": document, "to": edit.after})
        else:
            parent[last] = edit.after
    for renamed in database.pop("(renamed)", []):
        renamed["from"]["_id"] = renamed["to"]
    return database


def moved(case: tuple[str, str, Database], skip: Iterable[str] = ()) -> tuple[Move, list[Edit], Database]:
    generation, machine, database = case
    repository = Memory(database)
    move = move_from(repository, machine, NEW, CIDR)
    edits = plan(rules_for(generation, list(skip)), repository, move)
    return move, edits, applied(database, edits)


def leftovers(move: Move, database: Database) -> list[str]:
    sought = pattern(sorted(move.old_addresses | move.lost_addresses))
    lost = lost_controllers(move.lost_addresses, move.model_uuid, move.lost, [])
    return [
        str(finding)
        for name, documents in database.items()
        for document in documents
        for finding in in_document("juju", name, bson.encode(document), sought, lost)
        if finding.kind == "live"
    ]


def test_nothing_but_history_names_an_old_address(case: tuple[str, str, Database]) -> None:
    move, _, after = moved(case)
    assert leftovers(move, after) == []


def test_a_second_plan_finds_nothing_to_do(case: tuple[str, str, Database]) -> None:
    move, _, after = moved(case)
    assert plan(rules_for(case[0]), Memory(after), move) == []


def test_the_peergrouper_keeps_the_member(case: tuple[str, str, Database]) -> None:
    _, machine, _ = case
    _, _, after = moved(case)
    documents = documents_from(
        Collections(after["controllers"], after["controllerNodes"], after["machines"], after["statuses"], after["spaces"])
    )
    decision = desired(documents, [Member(1, f"{NEW}:37017", machine, healthy=True, primary=True)])
    assert decision.keeps(machine, f"{NEW}:37017")
    assert decision.steady


def test_nonces_stay(case: tuple[str, str, Database]) -> None:
    _, edits, after = moved(case)
    assert [m["nonce"] for m in after["machines"]] == [m["nonce"] for m in case[2]["machines"]]
    assert [e for e in edits if "nonce" in e.field] == []


def test_what_no_rule_names_is_untouched(case: tuple[str, str, Database]) -> None:
    _, edits, after = moved(case)
    touched = {(e.collection, str(e.document_id)) for e in edits}
    for name, documents in case[2].items():
        survivors = {str(one["_id"]): one for one in after[name]}
        for document in documents:
            if (name, str(document["_id"])) not in touched:
                assert survivors[str(document["_id"])] == document


def test_transaction_fields_stay(case: tuple[str, str, Database]) -> None:
    _, edits, _ = moved(case)
    assert {e.field for e in edits} & {"txn-revno", "txn-queue"} == set()


def test_lost_controllers_are_pruned() -> None:
    _, _, after = moved(("2.9", "1", highly_available(read("2.9.61"))))
    by_id = {one["_id"]: one for one in after["controllers"]}
    assert by_id["e"]["controller-ids"] == ["1"]
    assert [n["_id"].partition(":")[2] for n in after["controllerNodes"]] == ["1"]
    assert [m["jobs"] for m in after["machines"]] == [[1], [1, 2], [1], [1]]
    for which in ("apiHostPorts", "apiHostPortsForAgents"):
        assert [[a["value"] for a in server] for server in by_id[which]["apihostports"]] == [[NEW, "127.0.0.1", "::1"]]


def test_each_model_stops_harvesting_and_what_it_did_is_kept(case: tuple[str, str, Database]) -> None:
    _, edits, after = moved(case)
    modes = {s["settings"]["provisioner-harvest-mode"] for s in after["settings"] if s["_id"].endswith(":e")}
    assert modes == {"none"}
    before = harvest_before(edits, case[2]["models"])
    assert {one["model"] for one in before} == {f"admin/{m['name']}" for m in case[2]["models"]}
    assert {one["before"] for one in before} == {"destroyed"}


# What a rule changes that no leftover scan could see: it must show in the edits of its own name.
@pytest.mark.parametrize("rule", [rule.name for rule in RULES if rule.generations[0] not in ENVIRONMENTS])
def test_each_rule_is_needed(rule: str) -> None:
    """With the rule switched off, either an address is left over or the field it answers for stays as it was."""
    needed = 0
    for generation, machine, database in (
        ("2.9", "0", read("2.9.61")),
        ("3.x", "0", read("3.6.26")),
        ("2.9", "1", highly_available(read("2.9.61"))),
        ("3.x", "0", with_ha_space(read("3.6.26"))),
        ("2.9", "0", other_subnet(read("2.9.61"))),
        ("2.9", "0", without_votes(read("2.9.61"))),
    ):
        case = (generation, machine, database)
        _, all_edits, complete = moved(case)
        if not [e for e in all_edits if e.rule == rule]:
            continue
        _, _, without = moved(case, skip=[rule])
        assert without != complete
        needed += 1
    assert needed > 0, f"no data shows what {rule} is for"


def with_ha_space(database: Database) -> Database:
    by_id = {one["_id"]: one for one in database["controllers"]}
    by_id["controllerSettings"]["settings"]["juju-ha-space"] = "far-away"
    model = by_id["e"]["model-uuid"]
    database["spaces"].append({"_id": f"{model}:9", "spaceid": "9", "name": "far-away", "model-uuid": model})
    return database


def other_subnet(database: Database) -> Database:
    for document in database["ip.addresses"]:
        if document["value"] == OLD["2.9"]:
            document["subnet-cidr"] = "10.0.0.0/8"
    return database


def without_votes(database: Database) -> Database:
    for node in database["controllerNodes"]:
        node["wants-vote"] = False
    return database


def test_a_new_address_inside_the_ha_space_keeps_the_setting() -> None:
    database = read("3.6.26")
    by_id = {one["_id"]: one for one in database["controllers"]}
    by_id["controllerSettings"]["settings"]["juju-ha-space"] = "alpha"
    _, _, after = moved(("3.x", "0", database))
    assert {one["_id"]: one for one in after["controllers"]}["controllerSettings"]["settings"]["juju-ha-space"] == "alpha"
    machine = next(m for m in after["machines"] if "controller/0" in m["principals"])
    assert [a.get("spaceid") for a in machine["machineaddresses"] if a["value"] == NEW] == ["0"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("version", ["2.9.61", "3.6.26"])
def test_paths_select_what_jmespath_selects(rule: Rule[Move], version: str) -> None:
    for document in read(version).get(rule.collection, []):
        expected = jmespath.search(rule.path, document) if rule.path else document
        assert (value_at(document, parts(rule.path)) if rule.path else document) == expected


def test_a_machine_that_is_no_controller_is_refused() -> None:
    with pytest.raises(JujuDrError, match="Machine 7 is no machine of the controller model"):
        move_from(Memory(read("2.9.61")), "7", NEW)


def test_an_unknown_rule_cannot_be_skipped() -> None:
    with pytest.raises(JujuDrError, match="no rule nonsense"):
        rules_for("2.9", ["nonsense"])


def test_many_old_addresses_become_one() -> None:
    database = read("2.9.61")
    machine = database["machines"][0]
    machine["addresses"].append({**machine["addresses"][0], "value": "192.0.2.7", "networkscope": "public"})
    _, _, after = moved(("2.9", "0", database))
    assert [a["value"] for a in after["machines"][0]["addresses"]] == [NEW]


def test_a_provider_s_instance_id_is_given_or_left() -> None:
    database = read("2.9.61")
    database["instanceData"][0]["instanceid"] = "i-0abc"
    repository = Memory(database)
    left = plan(rules_for("2.9"), repository, move_from(repository, "0", NEW))
    given = plan(rules_for("2.9"), repository, move_from(repository, "0", NEW, instance_id="i-1"))
    assert [e for e in left if e.rule == "instance-id"] == []
    assert [(e.before, e.after) for e in given if e.rule == "instance-id"] == [("i-0abc", "i-1")]
