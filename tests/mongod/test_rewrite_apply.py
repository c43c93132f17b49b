"""Edits are applied only to what the plan saw."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.rewrite import Edit, apply, edited
from pymongo import MongoClient

BEFORE: dict[str, Any] = {"_id": "one", "a": {"b": 1, "c": 2}}


def edit(kind: str, field: str, before: Any, after: Any, identity: str = "one") -> Edit:
    return Edit("a-rule", "machines", identity, kind, field, before, after)


@pytest.mark.parametrize(
    ("kind", "field", "before", "after", "expected"),
    [
        ("set", "a.b", 1, 5, [{"_id": "one", "a": {"b": 5, "c": 2}}]),
        ("set", "a.d", None, 5, [{"_id": "one", "a": {"b": 1, "c": 2, "d": 5}}]),
        ("unset", "a.b", 1, None, [{"_id": "one", "a": {"c": 2}}]),
        ("rename", "_id", "one", "two", [{"_id": "two", "a": {"b": 1, "c": 2}}]),
        ("delete", "", "there", "gone", []),
    ],
)
def test_each_kind_on_a_database_and_on_a_document(
    standalone: MongoClient[dict[str, Any]], kind: str, field: str, before: Any, after: Any, expected: list[dict[str, Any]]
) -> None:
    standalone.juju.machines.insert_one(BEFORE)
    one = edit(kind, field, before, after)
    apply([one], standalone.juju)
    assert list(standalone.juju.machines.find()) == expected
    result = edited(BEFORE, [one])
    assert ([] if result is None else [result]) == expected
    assert BEFORE == {"_id": "one", "a": {"b": 1, "c": 2}}


@pytest.mark.parametrize("kind", ["set", "unset", "rename", "delete"])
def test_what_changed_meanwhile_is_not_overwritten(standalone: MongoClient[dict[str, Any]], kind: str) -> None:
    standalone.juju.machines.insert_one({"_id": "other", "a": {"b": 7}})
    with pytest.raises(JujuDrError, match="changed while it was rewritten"):
        apply([edit(kind, "a.b", 1, 5, identity="one")], standalone.juju)
    with pytest.raises(JujuDrError, match="changed while it was rewritten"):
        apply([edit("set", "a.b", 1, 5, identity="other")], standalone.juju)
    assert list(standalone.juju.machines.find()) == [{"_id": "other", "a": {"b": 7}}]
