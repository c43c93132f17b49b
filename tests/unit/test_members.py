from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.members import Choice, candidate, choose, unaccounted


def info(host: str, machine_id: str, state: str, uuid: str = "u1", lag: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "inventory_hostname": host,
        "is_controller": True,
        "controller_uuid": uuid,
        "machine_id": machine_id,
        "replica_set": {
            "available": True,
            "members": [{"machine_id": machine_id, "state": state, "lag_seconds": lag}],
        },
        **more,
    }


def pick(*infos: dict[str, Any], policy: str = "secondary", machine_id: str = "") -> list[Choice]:
    return [one for one in ranked(*infos, policy=policy, machine_id=machine_id) if one.rank == 0]


def ranked(*infos: dict[str, Any], policy: str = "secondary", machine_id: str = "") -> list[Choice]:
    return choose([candidate(i) for i in infos], policy, machine_id, max_lag_seconds=30)


def test_the_freshest_secondary_is_preferred() -> None:
    chosen = pick(info("a", "0", "PRIMARY"), info("b", "1", "SECONDARY", lag=5), info("c", "2", "SECONDARY", lag=1))
    assert [c.host for c in chosen] == ["c"]


def test_a_lagging_secondary_is_not_healthy() -> None:
    assert pick(info("a", "0", "PRIMARY"), info("b", "1", "SECONDARY", lag=31))[0].host == "a"


def test_a_lone_lagging_secondary_is_better_than_none() -> None:
    assert pick(info("b", "1", "SECONDARY", lag=99))[0].host == "b"


def test_each_controller_gets_its_own_choice() -> None:
    chosen = pick(info("a", "0", "PRIMARY", uuid="u2"), info("b", "0", "PRIMARY", uuid="u1"))
    assert [(c.controller_uuid, c.host) for c in chosen] == [("u1", "b"), ("u2", "a")]


@pytest.mark.parametrize(("policy", "machine_id", "host"), [("primary", "", "a"), ("machine", "1", "b")])
def test_a_policy_is_obeyed(policy: str, machine_id: str, host: str) -> None:
    both = (info("a", "0", "PRIMARY"), info("b", "1", "SECONDARY"))
    assert pick(*both, policy=policy, machine_id=machine_id)[0].host == host


@pytest.mark.parametrize(
    ("infos", "words"),
    [
        ([], "No host of group juju_controllers can be reached"),
        ([{"inventory_hostname": "x", "unreachable": True}], "No host of group juju_controllers can be reached"),
        ([{"inventory_hostname": "x", "is_controller": False, "reason": "no agent.conf"}], "x: no agent.conf"),
        ([info("a", "0", "RECOVERING")], "RECOVERING"),
        ([info("a", "0", "", replica_set={"available": False, "reason": "wrong password"})], "wrong password"),
    ],
)
def test_what_cannot_be_backed_up_is_named_with_its_reason(infos: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(JujuDrError, match=words):
        pick(*infos)


def test_a_machine_that_is_not_there_is_named() -> None:
    with pytest.raises(JujuDrError, match="machine 7"):
        pick(info("a", "0", "PRIMARY"), policy="machine", machine_id="7")


def test_a_lost_member_does_not_stop_the_backup_of_its_controller() -> None:
    members = [
        {"machine_id": "0", "host": "10.0.0.1:37017", "state": "PRIMARY"},
        {"machine_id": "1", "host": "10.0.0.2:37017", "state": "DOWN"},
    ]
    living = info("a", "0", "PRIMARY", replica_set={"available": True, "members": members})
    lost = {"inventory_hostname": "b", "unreachable": True, "address": "10.0.0.2"}
    stranger = {"inventory_hostname": "c", "unreachable": True, "address": "10.0.0.3"}
    assert [c.host for c in pick(living, lost, stranger)] == ["a"]
    assert unaccounted([candidate(i) for i in (living, lost, stranger)]) == ["c"]


def test_the_others_stand_in_one_after_the_other() -> None:
    members = (info("a", "0", "PRIMARY"), info("b", "1", "SECONDARY", lag=99), info("c", "2", "SECONDARY", lag=1))
    assert [(c.host, c.rank, c.last) for c in ranked(*members)] == [("c", 0, False), ("a", 1, False), ("b", 2, True)]
    assert [(c.host, c.last) for c in ranked(*members, policy="machine", machine_id="1")] == [("b", True)]
    assert [c.why for c in ranked(*members)][1:] == ["in case those before it fail"] * 2
