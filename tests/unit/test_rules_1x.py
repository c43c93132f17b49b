"""The rules on documents of Juju 1.x, as that code writes them: what is rewritten, and that nothing else is."""

from __future__ import annotations

import copy
from typing import Any

import bson
import jmespath
import pytest
from ansible.module_utils.juju_dr import peergrouper_1x
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.leftovers import in_document, lost_state_servers, pattern
from ansible.module_utils.juju_dr.peergrouper import Member
from ansible.module_utils.juju_dr.rewrite import Edit, parts, plan, value_at
from ansible.module_utils.juju_dr.rewriting import plan_files
from ansible.module_utils.juju_dr.rules import RULES, Move, harvest_before, move_from, rules_for
from ansible.module_utils.juju_dr.schema import ENVIRONMENTS
from hypothesis import given
from hypothesis import strategies as st

from lab.foreign import ENVIRONMENT, STATE_SERVERS, WORKLOAD, Environment, agent_conf, documents
from tests.unit.test_rules import Database, Memory, applied

NEW, CIDR = "10.99.0.21", "10.99.0.0/24"
# Environment, and the state server that is restored.
CASES = {
    "1.18": (Environment("1.18.4"), "0"),
    "1.20": (Environment("1.20.14"), "0"),
    "1.20 of three": (Environment("1.20.14", 3), "0"),
    "1.21 manual": (Environment("1.21.3", provider="manual"), "0"),
    "1.22 of three": (Environment("1.22.9", 3), "1"),
    "1.24 manual, of three": (Environment("1.24.7", 3, "manual"), "2"),
    "1.25 with a hosted environment": (Environment("1.25.10", hosted=True), "0"),
    "1.25 of three": (Environment("1.25.10", 3, "manual", True), "0"),
}
Case = tuple[Environment, str]


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def moved(
    case: Case, address: str = NEW, skip: list[str] | None = None, instance: str = ""
) -> tuple[Move, list[Edit], Database]:
    before = documents(case[0])
    move = move_from(Memory(before), case[1], address, CIDR, instance)
    edits = plan(rules_for(move.generation, skip or []), Memory(before), move)
    return move, edits, applied(before, edits)


def test_nothing_but_history_names_an_old_address(case: Case) -> None:
    move, _, after = moved(case)
    sought = pattern(sorted(move.old_addresses | move.lost_addresses))
    lost = lost_state_servers(move.lost_addresses, ENVIRONMENT, after["machines"], after["units"])
    found = [
        one
        for name, listed in after.items()
        for document in listed
        for one in in_document("juju", name, bson.encode(document), sought, lost)
    ]
    assert [str(one) for one in found if one.kind == "live"] == []
    # What lost state servers were reached at stays where it belongs to them, when there is one.
    assert bool([one for one in found if one.kind == "lost"]) == bool(move.lost)


def test_a_second_plan_finds_nothing_to_do(case: Case) -> None:
    move, edits, after = moved(case)
    assert edits
    assert plan(rules_for(move.generation), Memory(after), move) == []


def test_the_peergrouper_keeps_the_member(case: Case) -> None:
    _, _, after = moved(case)
    by_id = {one["_id"]: one for one in after["stateServers"]}
    config = next(one for one in after["settings"] if one["_id"] in ("e", f"{ENVIRONMENT}:e"))
    read = peergrouper_1x.documents_from(by_id["e"], after["machines"], config, ENVIRONMENT)
    decision = peergrouper_1x.desired(read, [Member(1, f"{NEW}:37017", case[1], healthy=True, primary=True)])
    assert decision.keeps(case[1], f"{NEW}:37017")
    assert decision.steady
    assert by_id["e"]["machineids"] == by_id["e"]["votingmachineids"] == [case[1]]
    assert [[one["value"] for one in server] for server in by_id["apiHostPorts"]["apihostports"]] == [[NEW]]


def test_lost_state_servers_keep_no_job_and_no_vote(case: Case) -> None:
    move, _, after = moved(case)
    own = [one for one in after["machines"] if move.has(one)]
    assert [one for one in own if 2 in one["jobs"]] == [one for one in own if one["hasvote"]]
    assert [one["_id"].rpartition(":")[2] for one in own if one["hasvote"]] == [case[1]]
    assert all(one["life"] == 0 for one in own)


def test_nonces_and_transactions_stay(case: Case) -> None:
    _, edits, after = moved(case)
    before = documents(case[0])
    assert [one["nonce"] for one in after["machines"]] == [one["nonce"] for one in before["machines"]]
    assert {edit.field for edit in edits} & {"nonce", "txn-revno", "txn-queue", "_id"} == set()
    assert after["txns"] == before["txns"]


def test_what_no_rule_names_is_untouched(case: Case) -> None:
    _, edits, after = moved(case)
    fields = {(edit.collection, edit.document_id, edit.field) for edit in edits}
    for name, listed in documents(case[0]).items():
        for one, other in zip(listed, after[name]):
            assert one.keys() <= other.keys()
            for field in one:
                if (name, one["_id"], field) not in fields:
                    assert one[field] == other[field]
    # Neither a workload machine nor another environment is touched.
    assert not [e for e in edits if WORKLOAD in str(e.before) or str(e.document_id).startswith("hosted-uuid:0")]


def test_the_unit_on_the_machine_moves_with_its_subordinate() -> None:
    _, _, after = moved((CASES["1.22 of three"][0], "0"))
    by_name = {one["name"]: one for one in after["units"]}
    for name in ("gui/0", "ntp/0"):
        assert (by_name[name]["publicaddress"], by_name[name]["privateaddress"]) == (NEW, NEW)
    assert by_name["blog/0"]["privateaddress"] == WORKLOAD
    relations = {one["_id"].rpartition("#")[2]: one.get("private-address") for one in after["settings"]}
    assert (relations["gui/0"], relations["blog/0"]) == (NEW, WORKLOAD)


def test_a_name_and_an_address_become_the_one_that_others_use() -> None:
    _, _, after = moved(CASES["1.20"])
    assert after["machines"][0]["addresses"] == [{"value": NEW, "addresstype": "ipv4", "networkscope": "local-cloud"}]
    _, _, named = moved(CASES["1.20"], "controller.example")
    assert named["machines"][0]["addresses"][0]["addresstype"] == "hostname"


def test_the_instance_s_id_is_given_where_that_version_looks() -> None:
    for name, fields in (("1.20", {"machines", "instanceData"}), ("1.25 with a hosted environment", {"instanceData"})):
        _, edits, _ = moved(CASES[name], instance="i-new")
        assert {e.collection for e in edits if e.after == "i-new"} == fields
    _, edits, _ = moved(CASES["1.24 manual, of three"])
    assert [(e.before, e.after) for e in edits if e.rule == "instance-id"] == [(f"manual:{STATE_SERVERS[2]}", f"manual:{NEW}")]


def test_a_lost_first_machine_keeps_the_manual_provider_s_host() -> None:
    for machine, expected in (("0", NEW), ("2", STATE_SERVERS[0])):
        _, _, after = moved((Environment("1.24.7", 3, "manual"), machine))
        assert next(one for one in after["settings"] if "bootstrap-host" in one)["bootstrap-host"] == expected


def test_harvesting_stops_in_each_environment_and_what_it_was_is_kept(case: Case) -> None:
    _, edits, after = moved(case)
    old = case[0].minor <= 20
    key, value = ("provisioner-safe-mode", True) if old else ("provisioner-harvest-mode", "none")
    configs = [one for one in after["settings"] if one["_id"].endswith(":e") or one["_id"] == "e"]
    assert [one[key] for one in configs] == [value] * len(configs)
    kept = harvest_before(edits, documents(case[0])["environments"])
    owned = [f"{one['owner']}/{one['name']}" if "owner" in one else one["name"] for one in after["environments"]]
    assert [one["model"] for one in kept] == owned
    assert {one["before"] for one in kept} == {"false" if old else "destroyed"}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if set(rule.generations) & set(ENVIRONMENTS)])
def test_each_rule_is_needed(rule: str) -> None:
    """With the rule switched off, the field it answers for stays as it was, and nothing else makes up for it."""
    needed = 0
    for one in [*CASES.values(), (Environment("1.20.14", 3), "1")]:
        before = documents(one[0])
        before["machines"][int(one[1])]["novote"] = True
        before["machines"][int(one[1])]["hasvote"] = False
        move = move_from(Memory(before), one[1], NEW, CIDR, "i-new")
        if rule not in [r.name for r in rules_for(move.generation)]:
            continue
        edits = plan(rules_for(move.generation), Memory(before), move)
        without = plan(rules_for(move.generation, [rule]), Memory(before), move)
        if [e for e in edits if e.rule == rule]:
            assert applied(before, without) != applied(before, edits)
            assert [e for e in edits if e.rule != rule] == without
            needed += 1
    assert needed


@pytest.mark.parametrize("rule", [r for r in RULES if r.generations[0] in ENVIRONMENTS], ids=lambda rule: rule.name)
def test_paths_select_what_jmespath_selects(rule: Any) -> None:
    for document in documents(Environment("1.25.10", 3, "manual"))[rule.collection]:
        assert value_at(document, parts(rule.path)) == jmespath.search(rule.path, document)


@given(
    version=st.sampled_from(["1.18.4", "1.20.14", "1.21.3", "1.22.9", "1.25.10"]),
    servers=st.sampled_from([1, 3]),
    machine=st.integers(0, 2),
    provider=st.sampled_from(["ec2", "manual"]),
    address=st.one_of(st.ip_addresses().map(str), st.sampled_from(STATE_SERVERS), st.just("host.example")),
    scopes=st.lists(st.sampled_from(["local-cloud", "public", "", "local-machine"]), min_size=1, max_size=3),
)
def test_whatever_the_environment_a_plan_settles_it(
    version: str, servers: int, machine: int, provider: str, address: str, scopes: list[str]
) -> None:
    one, own = Environment(version, servers, provider), str(machine % servers)
    before = documents(one)
    addresses = before["machines"][int(own)]["addresses"]
    addresses += [{"value": f"192.0.2.{n}", "addresstype": "ipv4", "networkscope": s} for n, s in enumerate(scopes)]
    kept = copy.deepcopy(before)
    move = move_from(Memory(before), own, address)
    edits = plan(rules_for(move.generation), Memory(before), move)
    after = applied(before, edits)
    assert before == kept
    assert plan(rules_for(move.generation), Memory(after), move) == []
    assert [m["nonce"] for m in after["machines"]] == [m["nonce"] for m in before["machines"]]
    assert not any(move.is_dead(a["value"]) for a in after["machines"][int(own)]["addresses"])
    assert {e.field for e in edits} <= {parts(r.path)[0] for r in RULES if move.generation in r.generations}


def test_agent_conf_names_the_new_address_in_both_lists() -> None:
    for name, (environment, machine) in CASES.items():
        text = agent_conf(environment, int(machine))
        path = f"/var/lib/juju/agents/machine-{machine}/agent.conf"
        planned = plan_files({path: text}, machine, NEW)
        new = parse(planned[0][1] if planned else text)
        # 1.18 speaks to itself by name and still does; so does any first state server to its database.
        local = name == "1.18"
        assert new.sequence("apiaddresses") == (["localhost:17070"] if local else [f"{NEW}:17070"])
        assert new.sequence("stateaddresses") == ([f"{NEW}:37017"] if environment.servers > 1 else ["localhost:37017"])
        assert new.scalar("nonce") == parse(text).scalar("nonce")
        changed = {key for key in new.blocks if new.blocks[key] != parse(text).blocks[key]}
        assert changed <= {"apiaddresses", "stateaddresses"}
        assert plan_files({path: planned[0][1] if planned else text}, machine, NEW) == []


def test_what_names_no_environment_or_machine_is_refused() -> None:
    before = documents(Environment("1.20.14", 3))
    with pytest.raises(JujuDrError, match=r"Machine 9 is no machine .*Choose one of the state servers 0, 1, 2"):
        move_from(Memory(before), "9", NEW)
    before["environments"] *= 2
    with pytest.raises(JujuDrError, match="does not say which environment"):
        move_from(Memory(before), "0", NEW)


def test_an_empty_list_of_state_servers_is_made_up_from_the_jobs() -> None:
    before = documents(Environment("1.20.14", 3))
    next(one for one in before["stateServers"] if one["_id"] == "e").update(machineids=[], votingmachineids=[])
    assert move_from(Memory(before), "1", NEW).lost == {"0", "2"}
