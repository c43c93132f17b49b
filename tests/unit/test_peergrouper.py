from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.peergrouper import (
    Controller,
    ControllerDocuments,
    Decision,
    Member,
    desired,
    members_from,
    merged_addresses,
    usable_addresses,
)
from hypothesis import given
from hypothesis import strategies as st


def address(value: str, scope: str = "local-cloud", **more: Any) -> dict[str, Any]:
    return {"value": value, "networkscope": scope, **more}


def controller(machine_id: str, *values: str, **more: Any) -> Controller:
    addresses = tuple(address(value) for value in values or (f"10.0.0.{int(machine_id) + 1}",))
    return Controller(machine_id, more.pop("alive", True), more.pop("wants_vote", True), addresses, **more)


def member(number: int, machine_id: str | None, **more: Any) -> Member:
    host = more.pop("host", f"10.0.0.{int(machine_id or 0) + 1}:37017")
    return Member(number, host, machine_id, more.pop("votes", True), more.pop("healthy", True), more.pop("primary", False))


def decide(controllers: list[Controller], members: list[Member], **more: Any) -> Decision:
    return desired(ControllerDocuments(tuple(controllers), **more), members)


def test_a_lone_healthy_member_is_kept() -> None:
    decision = decide([controller("0")], [member(1, "0", primary=True)])
    assert decision.keeps("0", "10.0.0.1:37017")
    assert decision.steady


def test_a_member_at_an_old_address_is_moved() -> None:
    decision = decide([controller("0", "10.0.0.9")], [member(1, "0", primary=True)])
    assert not decision.keeps("0", "10.0.0.1:37017")
    assert [m.host for m in decision.changed] == ["10.0.0.9:37017"]


def test_a_voting_stranger_stops_everything() -> None:
    decision = decide([controller("0")], [member(1, "0", primary=True), member(2, None)])
    assert "non juju voting member 2 found" in decision.errors[0]
    assert decision.members == (member(1, "0", primary=True), member(2, None))


def test_a_stranger_without_a_vote_goes() -> None:
    decision = decide([controller("0")], [member(1, "0", primary=True), member(2, None, votes=False)])
    assert [m.id for m in decision.removed] == [2]


@pytest.mark.parametrize("others", [[], [controller("7", alive=False)]])
def test_a_member_of_an_unknown_or_dead_machine_goes(others: list[Controller]) -> None:
    decision = decide([controller("0"), *others], [member(1, "0", primary=True), member(2, "7")])
    assert [m.machine_id for m in decision.removed] == ["7"]


def test_a_primary_that_must_go_steps_down_first() -> None:
    decision = decide([controller("0")], [member(1, "0"), member(2, "7", primary=True)])
    assert decision.step_down
    assert not decision.keeps("0", "10.0.0.1:37017")


def test_lost_controllers_that_were_not_pruned_get_members_again() -> None:
    decision = decide([controller("0"), controller("1"), controller("2")], [member(1, "0", primary=True)])
    assert [(m.id, m.machine_id, m.votes) for m in decision.added] == [(2, "1", False), (3, "2", False)]
    assert not decision.steady


def test_a_new_member_votes_once_it_is_healthy_and_the_number_stays_odd() -> None:
    controllers = [controller("0"), controller("1"), controller("2")]
    two = [member(1, "0", primary=True), member(2, "1", votes=False)]
    assert [m.votes for m in decide(controllers[:2], two).members] == [True, False]
    three = [*two, member(3, "2", votes=False)]
    assert [m.votes for m in decide(controllers, three).members] == [True, True, True]
    sick = [*two, member(3, "2", votes=False, healthy=False)]
    assert [m.votes for m in decide(controllers, sick).members] == [True, False, False]


def test_pending_machines_are_not_looked_at() -> None:
    decision = decide([controller("0"), controller("1", pending=True)], [member(1, "0", primary=True)])
    assert decision.steady


def test_several_addresses_keep_the_present_one_or_stop() -> None:
    two = controller("0", "10.0.0.5", "10.0.0.1")
    assert decide([two], [member(1, "0", primary=True)]).keeps("0", "10.0.0.1:37017")
    assert "juju-ha-space is not set" in decide([two], [member(1, "0", host="10.9.9.9:37017")]).errors[0]


def test_the_ha_space_decides() -> None:
    inside = Controller("0", True, True, (address("10.0.0.5"), address("10.0.0.1", spaceid="3")))
    assert decide([inside], [member(1, "0", primary=True)], ha_space_id="3").keeps("0", "10.0.0.1:37017")
    assert "juju-ha-space" in decide([controller("0")], [member(1, "0", primary=True)], ha_space_id="3").errors[0]


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ([address("1.2.3.4", "public"), address("10.0.0.1")], ["10.0.0.1"]),
        ([address("1.2.3.4", "public"), address("127.0.0.1", "local-machine")], ["1.2.3.4"]),
        ([address("10.0.0.1", cidr="10.0.0.1/32"), address("10.0.0.2", cidr="10.0.0.0/24")], ["10.0.0.2"]),
        ([address("10.0.0.1", cidr="10.0.0.1/32")], ["10.0.0.1"]),
        ([address("fe80::1", "link-local")], []),
    ],
)
def test_usable_addresses(addresses: list[dict[str, Any]], expected: list[str]) -> None:
    assert usable_addresses(addresses) == expected


def test_the_provider_s_word_comes_first() -> None:
    machine = {"addresses": [address("a", "public")], "machineaddresses": [address("a"), address("b")]}
    assert [(a["value"], a["networkscope"]) for a in merged_addresses(machine)] == [("a", "public"), ("b", "local-cloud")]


def test_members_are_read_from_config_and_status() -> None:
    config = {
        "members": [
            {"_id": 1, "host": "a:1", "tags": {"juju-machine-id": "0"}},
            {"_id": 2, "host": "b:1", "votes": 0},
        ]
    }
    status = {"members": [{"_id": 1, "state": 1, "health": 1.0}, {"_id": 2, "state": 8, "health": 0.0}]}
    assert members_from(config, status) == [
        Member(1, "a:1", "0", True, True, True),
        Member(2, "b:1", None, False, False, False),
    ]


NUMBERS = st.sets(st.integers(0, 6), min_size=1, max_size=7)


@given(NUMBERS, NUMBERS, st.data())
def test_a_round_that_is_carried_out_leaves_an_odd_number_of_voters(
    there: set[int], have: set[int], data: st.DataObject
) -> None:
    """Whatever the state, applying what is wanted and asking again soon finds nothing left to do."""
    members = [member(n + 1, str(n), votes=data.draw(st.booleans()), primary=False) for n in sorted(have)]
    controllers = [controller(str(n)) for n in sorted(there)]
    for _ in range(4):
        decision = decide(controllers, members)
        assert not decision.errors
        members = [Member(m.id, m.host, m.machine_id, m.votes, True, m.primary) for m in decision.members]
    assert decision.steady
    assert sum(m.votes for m in members) % 2 == 1
    assert {m.machine_id for m in members} == {str(n) for n in there}
