"""Applies rules to documents by field. Knows no Juju: which documents and fields, and what they become, is in the rules.

Field paths are JMESPath's sub-expressions (``settings."controller-url"``); the engine walks them itself because JMESPath
cannot write, and managed hosts do not have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Generic, Iterable, Mapping, Protocol, Sequence, TypeVar

from .errors import JujuDrError

Document = Mapping[str, Any]
MoveT = TypeVar("MoveT")

UNCHANGED = object()
UNSET = object()
DELETE = object()
_PART = re.compile(r'"([^"]+)"|([A-Za-z_][A-Za-z0-9_]*)')


@dataclass(frozen=True)
class Rule(Generic[MoveT]):
    """One thing to rewrite.

    :param reason: what Juju does with the field, so what breaks when it stays.
    :param path: the field; empty for the document as a whole.
    :param change: gets the move, the value (None where the field is missing) and the document, and returns the new value,
        or UNCHANGED, UNSET (take the field away), DELETE (take the document away). For path ``_id`` the new id.
    """

    name: str
    reason: str
    collection: str
    path: str
    change: Callable[[MoveT, Any, Document], Any]
    generations: tuple[str, ...] = ("2.9", "3.x")


@dataclass(frozen=True)
class Edit:
    """One change of one field of one document.

    :param kind: ``set``, ``unset``, ``rename`` (the document's _id) or ``delete`` (the document).
    """

    rule: str
    collection: str
    document_id: Any
    kind: str
    field: str
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "where": f"{self.collection} {self.document_id}",
            "field": self.field,
            "before": self.before,
            "after": self.after,
        }


class Repository(Protocol):
    """Where documents are read from."""

    def find(self, collection: str) -> Iterable[dict[str, Any]]: ...


def parts(path: str) -> list[str]:
    """The keys of a path.

    >>> parts('settings."controller-url"')
    ['settings', 'controller-url']
    """
    return [quoted or plain for quoted, plain in _PART.findall(path)]


def value_at(document: Any, keys: Sequence[str]) -> Any:
    """The value, or None where the document has no such field."""
    for key in keys:
        if not isinstance(document, Mapping) or key not in document:
            return None
        document = document[key]
    return document


def plan(rules: Sequence[Rule[MoveT]], repository: Repository, move: MoveT) -> list[Edit]:
    """Every edit that the rules ask for; empty when there is nothing left to do."""
    edits: list[Edit] = []
    for collection in dict.fromkeys(rule.collection for rule in rules):
        mine = [rule for rule in rules if rule.collection == collection]
        taken: set[Any] = set()
        for document in repository.find(collection):
            for rule in mine:
                edits += _edit(rule, move, document, taken)
    return edits


def _edit(rule: Rule[MoveT], move: MoveT, document: dict[str, Any], taken: set[Any]) -> list[Edit]:
    keys = parts(rule.path)
    before = value_at(document, keys) if keys else document
    after = rule.change(move, before, document)
    if after is UNCHANGED or (keys and after == before):
        return []
    identity = document["_id"]
    if after is DELETE:
        return [Edit(rule.name, rule.collection, identity, "delete", "", "there", "gone")]
    field = ".".join(keys)
    if after is UNSET:
        return [Edit(rule.name, rule.collection, identity, "unset", field, before, None)]
    if keys == ["_id"]:
        # Two documents may become one.
        kind = "delete" if after in taken else "rename"
        taken.add(after)
        return [Edit(rule.name, rule.collection, identity, kind, "_id", before, after)]
    return [Edit(rule.name, rule.collection, identity, "set", field, before, after)]


def apply(edits: Sequence[Edit], database: Any) -> None:
    """Applies a plan to a live database. Each field is changed only if it still is what the plan saw.

    :raises JujuDrError: a document changed since the plan was made.
    """
    order = {"set": 0, "unset": 0, "rename": 1, "delete": 2}
    for edit in sorted(edits, key=lambda one: order[one.kind]):
        collection = database[edit.collection]
        if edit.kind == "delete":
            done = collection.delete_one({"_id": edit.document_id}).deleted_count
        elif edit.kind == "rename":
            document = collection.find_one({"_id": edit.document_id})
            done = document is not None
            if document is not None:
                collection.replace_one({"_id": edit.after}, {**document, "_id": edit.after}, upsert=True)
                collection.delete_one({"_id": edit.document_id})
        else:
            change = {"$unset": {edit.field: ""}} if edit.kind == "unset" else {"$set": {edit.field: edit.after}}
            seen = {"$exists": False} if edit.before is None else {"$eq": edit.before}
            done = collection.update_one({"_id": edit.document_id, edit.field: seen}, change).matched_count
        if not done:
            raise JujuDrError(
                f"{edit.collection} {edit.document_id} changed while it was rewritten ({edit.rule})",
                "Make sure that no jujud and no other restore runs on that host, and run the restore again",
            )


def edited(document: Document, edits: Iterable[Edit]) -> dict[str, Any] | None:
    """One document after its edits, where there is no database; None when it is to go."""
    result = dict(document)
    for edit in edits:
        if edit.kind == "delete":
            return None
        *above, last = edit.field.split(".")
        parent = result
        for key in above:
            # Copied on the way down: the document that was given stays.
            parent[key] = dict(parent[key])
            parent = parent[key]
        if edit.kind == "unset":
            parent.pop(last, None)
        else:
            parent[last] = edit.after
    return result
