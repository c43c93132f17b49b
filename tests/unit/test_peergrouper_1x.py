from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.peergrouper import Controller, ControllerDocuments, Decision, Member
from ansible.module_utils.juju_dr.peergrouper_1x import desired, documents_from, peer_address
from hypothesis import given
from hypothesis import strategies as st


def controller(machine_id: str, wants_vote: bool = True, addresses: Any = None) -> Controller:
    own = [{"value": f"10.0.0.{int(machine_id) + 1}", "networkscope": "local-cloud"}]
    return Controller(machine_id, True, wants_vote, tuple(own if addresses is None else addresses))


def member(number: int, machine_id: str | None, **more: Any) -> Member:
    host = more.pop("host", f"10.0.0.{int(machine_id or 0) + 1}:37017")
    return Member(number, host, machine_id, more.pop("votes", True), more.pop("healthy", True), more.pop("primary", False))


def decide(controllers: list[Controller], members: list[Member]) -> Decision:
    return desired(ControllerDocuments(tuple(controllers)), members)


def test_a_lone_healthy_member_is_kept() -> None:
    decision = decide([controller("0")], [member(1, "0", primary=True)])
    assert decision.keeps("0", "10.0.0.1:37017")
    assert decision.steady


@pytest.mark.parametrize("stranger", [None, "7"])
def test_a_stranger_that_votes_stops_everything_and_another_goes(stranger: str | None) -> None:
    decision = decide([controller("0")], [member(1, "0", primary=True), member(2, stranger)])
    assert decision.errors == ("voting non-machine member 2 found in peer group",)
    assert not decision.keeps("0", "10.0.0.1:37017")
    quiet = decide([controller("0")], [member(1, "0", primary=True), member(2, stranger, votes=False)])
    assert ([m.id for m in quiet.removed], [m.id for m in quiet.members]) == ([2], [1])


def test_a_machine_without_a_member_gets_one_that_does_not_vote() -> None:
    decision = decide([controller("0"), controller("1")], [member(1, "0", primary=True)])
    assert [(m.id, m.host, m.votes) for m in decision.added] == [(2, "10.0.0.2:37017", False)]
    assert not decision.steady


def test_a_machine_without_an_address_gets_none_and_keeps_what_it_has() -> None:
    assert decide([controller("0"), controller("1", addresses=())], [member(1, "0", primary=True)]).steady
    assert decide([controller("0", addresses=())], [member(1, "0", primary=True)]).keeps("0", "10.0.0.1:37017")


def test_the_member_follows_the_address_that_the_documents_select() -> None:
    decision = decide([controller("0")], [member(1, "0", host="192.0.2.1:37017", primary=True)])
    assert [m.host for m in decision.changed] == ["10.0.0.1:37017"]
    assert not decision.keeps("0", "192.0.2.1:37017")


def test_votes_come_by_twos() -> None:
    three = [controller("0"), controller("1"), controller("2")]
    waiting = [member(1, "0", primary=True), member(2, "1", votes=False), member(3, "2", votes=False)]
    assert [m.votes for m in decide(three, waiting).members] == [True, True, True]
    # Two voters would be no majority of anything.
    assert decide(three[:2], waiting[:2]).steady
    ill = [*waiting[:2], member(3, "2", votes=False, healthy=False)]
    assert decide(three, ill).steady


def test_a_vote_passes_from_one_to_another() -> None:
    machines = [controller("0", wants_vote=False), controller("1")]
    decision = decide(machines, [member(1, "0", primary=True), member(2, "1", votes=False)])
    assert [(m.machine_id, m.votes) for m in decision.members] == [("0", False), ("1", True)]
    assert decision.step_down


def test_a_last_vote_that_is_not_wanted_stays_for_it_is_one() -> None:
    assert decide([controller("0", wants_vote=False)], [member(1, "0", primary=True)]).steady


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        (["public", "local-cloud"], "a1"),
        (["public", ""], "a0"),
        (["", "public"], "a0"),
        (["local-machine", "link-local"], ""),
        ([], ""),
    ],
)
def test_the_first_cloud_local_address_wins(scopes: list[str], expected: str) -> None:
    assert peer_address({"value": f"a{n}", "networkscope": scope} for n, scope in enumerate(scopes)) == expected


def test_documents_are_read_as_juju_reads_them() -> None:
    machine = {"jobs": [1, 2], "life": 0, "novote": False, "addresses": [{"value": "a", "networkscope": "local-cloud"}]}
    listed: list[dict[str, Any]] = [{**machine, "_id": "0"}, {**machine, "_id": "1", "novote": True}]
    read = documents_from({"machineids": ["0", "1", "5"]}, listed, {"state-port": 1}, "uuid")
    assert [(one.machine_id, one.wants_vote) for one in read.controllers] == [("0", True), ("1", False)]
    assert read.state_port == 1
    # A number names no machine: what juju-restore 1.20 leaves behind makes its own member a stranger.
    assert documents_from({"machineids": [0]}, listed, {}, "uuid").controllers == ()
    other: list[dict[str, Any]] = [
        {**machine, "_id": "uuid:0", "machineid": "0", "env-uuid": "uuid"},
        {"_id": "x:0", "env-uuid": "x"},
    ]
    assert [one.machine_id for one in documents_from({"machineids": ["0"]}, other, {}, "uuid").controllers] == ["0"]


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=7),
)
def test_the_number_of_voters_keeps_its_oddness(states: list[tuple[bool, bool, bool, bool]]) -> None:
    controllers = [controller(str(n), wants_vote=wants) for n, (wants, _, _, _) in enumerate(states)]
    members = [
        member(n + 1, str(n), votes=votes, healthy=healthy) for n, (_, votes, healthy, there) in enumerate(states) if there
    ]
    decision = decide(controllers, members)
    before, after = sum(m.votes for m in members), sum(m.votes for m in decision.members)
    assert before % 2 == after % 2
    assert len({m.id for m in decision.members}) == len(decision.members) == len(states)
    # What is wanted is steady once it is there.
    assert decide(controllers, list(decision.members)).members == decision.members
