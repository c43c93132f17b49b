from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.oplog import CappedTails, Present, Transactions, UniqueIndexes, is_kept, replayable
from hypothesis import given
from hypothesis import strategies as st

Entry = dict[str, Any]


def insert(number: int, ns: str = "juju.machines") -> Entry:
    return {"op": "i", "ns": ns, "o": {"_id": number}, "ui": "server's own"}


def command(body: dict[str, Any], ns: str = "juju.$cmd", **more: Any) -> Entry:
    return {"op": "c", "ns": ns, "o": body, **more}


def transaction(session: str, operations: list[Entry], **flags: Any) -> Entry:
    return command({"applyOps": operations, **flags}, "admin.$cmd", lsid={"id": session}, txnNumber=1)


def replayed(entries: list[Entry]) -> tuple[list[Entry], Transactions]:
    transactions = Transactions()
    return list(replayable(entries, transactions)), transactions


def test_what_is_bound_to_the_lost_server_is_taken_out() -> None:
    assert replayed([insert(1)])[0] == [{"op": "i", "ns": "juju.machines", "o": {"_id": 1}}]


def test_a_transaction_is_opened_in_order() -> None:
    assert [e["o"]["_id"] for e in replayed([transaction("a", [insert(1), insert(2)])])[0]] == [1, 2]


@given(
    st.permutations(["a1", "a2", "a3", "b1", "b2"]).filter(
        lambda p: [x for x in p if x[0] == "a"] == ["a1", "a2", "a3"] and [x for x in p if x[0] == "b"] == ["b1", "b2"]
    )
)
def test_interleaved_chains_take_effect_whole_and_at_their_end(order: list[str]) -> None:
    ends = {"a": "a3", "b": "b2"}
    entries = [transaction(x[0], [insert(int(x[1]))], **({} if ends[x[0]] == x else {"partialTxn": True})) for x in order]
    plain, transactions = replayed(entries)
    first, second = sorted(ends, key=lambda one: order.index(ends[one]))
    numbers = {"a": [1, 2, 3], "b": [1, 2]}
    assert [e["o"]["_id"] for e in plain] == numbers[first] + numbers[second]
    assert transactions.open == {}


def test_an_unfinished_chain_never_happened() -> None:
    plain, transactions = replayed([transaction("a", [insert(1)], partialTxn=True)])
    assert plain == []
    assert len(transactions.open) == 1


def test_a_prepared_transaction_waits_for_its_verdict() -> None:
    prepared = transaction("a", [insert(1)], prepare=True)
    commit = command({"commitTransaction": 1}, "admin.$cmd", lsid={"id": "a"}, txnNumber=1)
    abort = command({"abortTransaction": 1}, "admin.$cmd", lsid={"id": "a"}, txnNumber=1)
    assert replayed([prepared])[0] == []
    assert [e["o"] for e in replayed([prepared, commit])[0]] == [{"_id": 1}]
    assert replayed([prepared, abort, commit])[0] == []


@pytest.mark.parametrize(
    ("entry", "sent"),
    [
        (
            command({"createIndexes": "m", "v": 2, "key": {"a": 1}, "name": "a_1"}),
            {"createIndexes": "m", "indexes": [{"v": 2, "key": {"a": 1}, "name": "a_1"}]},
        ),
        (
            command({"commitIndexBuild": "m", "indexBuildUUID": "u", "indexes": [{"v": 2, "key": {"a": 1}, "name": "a_1"}]}),
            {"createIndexes": "m", "indexes": [{"v": 2, "key": {"a": 1}, "name": "a_1"}]},
        ),
        (command({"create": "m", "capped": True, "size": 1, "idIndex": {}}), {"create": "m", "capped": True, "size": 1}),
        (command({"drop": "m"}), {"drop": "m"}),
    ],
)
def test_commands_are_sent_as_a_client_sends_them(entry: Entry, sent: dict[str, Any]) -> None:
    assert [e["o"] for e in replayed([entry])[0]] == [sent]


@pytest.mark.parametrize("name", ["startIndexBuild", "abortIndexBuild"])
def test_unfinished_index_builds_are_passed_over(name: str) -> None:
    assert replayed([command({name: "m"})])[0] == []


def test_a_command_that_cannot_be_followed_is_refused() -> None:
    with pytest.raises(JujuDrError, match="importCollection"):
        replayed([command({"importCollection": "m"})])


@pytest.mark.parametrize("ns", ["config.transactions", "local.x", "admin.system.users"])
def test_other_servers_business_is_left_out(ns: str) -> None:
    assert not is_kept(insert(1, ns))
    assert replayed([insert(1, ns)])[0] == []


def test_no_ops_are_not_kept_and_renames_are_named() -> None:
    assert not is_kept({"op": "n", "ns": "", "o": {}})
    with pytest.raises(JujuDrError, match=r"juju\.a was renamed"):
        is_kept(command({"renameCollection": "juju.a", "to": "juju.b"}))


def index(name: str, unique: bool = False) -> dict[str, Any]:
    return {"v": 2, "key": {name: 1}, "name": name, **({"unique": True} if unique else {})}


def followed(unique: UniqueIndexes, *bodies: dict[str, Any]) -> list[dict[str, Any] | None]:
    return [unique.follow(command(body)) for body in bodies]


def test_unique_indexes_wait_and_follow_the_window() -> None:
    unique = UniqueIndexes()
    assert unique.hold("juju.m", [index("_id_"), index("a", True), index("b")]) == [index("_id_"), index("b")]
    mixed = {"createIndexes": "m", "indexes": [index("c", True), index("d")]}
    alone = {"createIndexes": "m", "indexes": [index("e", True)]}
    changed = {"collMod": "m", "index": {"name": "c", "expireAfterSeconds": 9}}
    gone = {"dropIndexes": "m", "index": "a"}
    sent = followed(unique, mixed, alone, changed, gone, {"collMod": "m", "validator": {}})
    assert sent == [{"createIndexes": "m", "indexes": [index("d")]}, None, None, gone, {"collMod": "m", "validator": {}}]
    assert unique.held == {"juju.m": {"c": {**index("c", True), "expireAfterSeconds": 9}, "e": index("e", True)}}


def test_an_index_that_is_made_anew_without_being_unique_waits_no_longer() -> None:
    unique = UniqueIndexes()
    unique.hold("juju.m", [index("a", True)])
    assert followed(unique, {"createIndexes": "m", "indexes": [index("a")]}) == [
        {"createIndexes": "m", "indexes": [index("a")]}
    ]
    assert unique.held["juju.m"] == {}


@pytest.mark.parametrize("body", [{"drop": "m"}, {"create": "m"}, {"dropDatabase": 1}])
def test_what_goes_with_its_collection_waits_no_longer(body: dict[str, Any]) -> None:
    unique = UniqueIndexes()
    unique.hold("juju.m", [index("a", True)])
    unique.hold("blobstore.m", [index("a", True)])
    assert followed(unique, body) == [body]
    assert not unique.held.get("juju.m")
    assert unique.held["blobstore.m"]


def seen(newest: dict[str, Any], operations: list[Entry]) -> list[bool]:
    tails = CappedTails(newest)
    tails.scan(operations)
    return [tails.has_seen(number, one) for number, one in enumerate(operations)]


def test_a_capped_collection_has_seen_all_up_to_its_newest_document() -> None:
    log, other = "juju.txns.log", "juju.machines"
    window = [insert(1, log), insert(2, other), insert(2, log), {**insert(2, log), "op": "u"}, insert(3, log)]
    assert seen({log: 2}, window) == [True, False, True, False, False]
    # Its newest document is older than the window: all of the window is news.
    assert seen({log: 0}, window) == [False] * 5


def test_what_comes_after_a_drop_is_another_collection() -> None:
    log = "juju.txns.log"
    window = [insert(1, log), command({"drop": "txns.log"}), command({"create": "txns.log"}), insert(2, log)]
    assert seen({log: 2}, window) == [False] * 4


def test_what_went_before_the_dump_came_to_it_is_passed_over_until_its_drop() -> None:
    present = Present({"juju.m"})
    before, gone = insert(1, "juju.gone"), command({"drop": "gone"})
    assert [present.has(one) for one in (insert(1, "juju.m"), before, command({"createIndexes": "gone"}), gone)] == [
        True,
        False,
        False,
        True,
    ]
    present.refuse_gaps()
    assert [present.has(one) for one in (command({"create": "gone"}), before)] == [True, True]
    present.refuse_gaps()


def test_a_change_to_what_is_neither_held_nor_dropped_is_a_gap() -> None:
    present = Present({"juju.m"})
    assert not present.has(insert(1, "juju.gone"))
    with pytest.raises(JujuDrError, match=r"oplog changes juju\.gone, which the archive does not hold"):
        present.refuse_gaps()
    # Juju's own archives leave the database of its backups out.
    other = Present({"juju.m"})
    assert not other.has(insert(1, "backups.metadata"))
    other.refuse_gaps()
    assert present.has(command({"dropDatabase": 1}))
    present.refuse_gaps()
