"""The oplog of a dump window: which entries are kept, what each becomes when it is replayed, and what must wait for the end.

Replaying is idempotent as MongoDB's own tools have it: a document that already shows an entry's effect is not hurt by it.
Transactions arrive as ``applyOps`` entries; large ones as a chain of them, which counts only once its last entry is there.
Three things are not idempotent by themselves and are handled here: unique indexes (an older value may collide with a newer
document), capped collections (an insert that is there already would be there twice, or return after it was cut off), and
collections that went away before the dump came to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping, Sequence

from .errors import JujuDrError

Entry = Mapping[str, Any]

# Databases that belong to one server or are kept beside.
_LEFT_OUT = ("local", "config", "admin")
_IGNORED_COMMANDS = ("startIndexBuild", "abortIndexBuild")
_INDEX_DROPS = ("dropIndexes", "deleteIndexes")
_REPLAYED_COMMANDS = (
    "create",
    "drop",
    "createIndexes",
    "commitIndexBuild",
    *_INDEX_DROPS,
    "collMod",
    "dropDatabase",
    "convertToCapped",
)


class DumpInterrupted(JujuDrError):
    """The member changed under the dump; another try, perhaps on another member, usually succeeds."""


def is_kept(entry: Entry) -> bool:
    """Whether an entry belongs into the dump: no-ops and other servers' business do not.

    :raises DumpInterrupted: a collection was renamed in the window, which a dump by name cannot follow.
    """
    if entry["op"] == "n":
        return False
    if entry["op"] == "c" and "renameCollection" in entry["o"]:
        raise DumpInterrupted(
            f"Collection {entry['o']['renameCollection']} was renamed to {entry['o']['to']} while the database was dumped",
            "Run the backup again",
        )
    if entry["op"] == "c" and ("applyOps" in entry["o"] or entry["ns"] == "admin.$cmd"):
        return True
    return str(entry["ns"]).partition(".")[0] not in _LEFT_OUT


def is_unfinished_part(entry: Entry) -> bool:
    """Whether an entry is a part of a transaction that takes effect with a later one."""
    return entry["op"] == "c" and "applyOps" in entry["o"] and bool(entry["o"].get("partialTxn") or entry["o"].get("prepare"))


def dropped(entry: Entry) -> tuple[str, str]:
    """Database and collection that an entry drops: no collection when the whole database goes, neither for other entries."""
    if entry["op"] == "c":
        database = str(entry["ns"]).partition(".")[0]
        if "drop" in entry["o"]:
            return database, str(entry["o"]["drop"])
        if "dropDatabase" in entry["o"]:
            return database, ""
    return "", ""


@dataclass
class Transactions:
    """Collects the chains of large transactions until each is committed or aborted.

    :ivar open: entries by session and number of transactions whose end has not been seen.
    """

    open: dict[tuple[str, int], list[Entry]] = field(default_factory=dict)

    def feed(self, entry: Entry) -> Iterable[Entry]:
        """The plain entries that take effect with this entry, in their order."""
        command = entry["o"] if entry["op"] == "c" else {}
        if "lsid" in entry and "applyOps" in command:
            key = _transaction(entry)
            chain = self.open.setdefault(key, [])
            chain.append(entry)
            if is_unfinished_part(entry):
                return ()
            return self._close(key)
        if "commitTransaction" in command:
            return self._close(_transaction(entry))
        if "abortTransaction" in command:
            self.open.pop(_transaction(entry), None)
            return ()
        if "applyOps" in command:
            return command["applyOps"]  # type: ignore[no-any-return]
        return (entry,)

    def _close(self, key: tuple[str, int]) -> Iterable[Entry]:
        return [operation for entry in self.open.pop(key, []) for operation in entry["o"]["applyOps"]]


def _transaction(entry: Entry) -> tuple[str, int]:
    # A session's id is a UUID or binary, depending on how the entry was decoded.
    return repr(entry["lsid"]["id"]), int(entry["txnNumber"])


def replayable(entries: Iterable[Entry], transactions: Transactions) -> Iterator[dict[str, Any]]:
    """What is replayed, in order: transactions are opened, parts bound to the lost server are taken out.

    :raises JujuDrError: a command that a replay cannot follow.
    """
    made: set[str] = set()
    for entry in entries:
        for operation in transactions.feed(entry):
            for one in _operation(operation):
                # Since 3.6 an insert names its collection's UUID, and follows a create. Before, it made the collection.
                if one["op"] == "i" and "ui" not in operation and one["ns"] not in made:
                    made.add(one["ns"])
                    database, _, collection = one["ns"].partition(".")
                    yield {"op": "c", "ns": f"{database}.$cmd", "o": {"create": collection}}
                yield one


def _operation(operation: Entry) -> Iterator[dict[str, Any]]:
    database, _, collection = str(operation["ns"]).partition(".")
    if operation["op"] == "n" or database in _LEFT_OUT or collection == "system.users":
        return
    if collection == "system.indexes":
        # MongoDB 2.4 made an index by an insert.
        index = {key: value for key, value in operation["o"].items() if key not in ("_id", "ns")}
        made = {"createIndexes": str(operation["o"]["ns"]).partition(".")[2], "indexes": [index]}
        yield {"op": "c", "ns": f"{database}.$cmd", "o": made}
        return
    # The collection's identity and the session belong to the server that was lost.
    plain = {key: value for key, value in operation.items() if key in ("op", "ns", "o", "o2", "b")}
    if operation["op"] != "c":
        yield plain
        return
    name = next(iter(operation["o"]))
    if name in _IGNORED_COMMANDS:
        return
    if name not in _REPLAYED_COMMANDS:
        raise JujuDrError(f"The archive's oplog holds the command {name}, which cannot be replayed", "Take another archive")
    plain["o"] = _command(name, operation["o"])
    yield plain


def _command(name: str, command: Mapping[str, Any]) -> dict[str, Any]:
    """A command as a client would send it: the oplog writes index builds flat or as finished builds."""
    body = {key: value for key, value in command.items() if key not in ("uuid", "idIndex")}
    if name == "commitIndexBuild":
        return {"createIndexes": body["commitIndexBuild"], "indexes": list(body["indexes"])}
    if name == "createIndexes":
        return {"createIndexes": body.pop("createIndexes"), "indexes": [body]}
    return body


@dataclass
class UniqueIndexes:
    """Unique indexes, held back until the window is replayed and followed through it.

    While older entries are replayed over newer documents, two may hold one value for a moment that they never held together.

    :ivar held: specifications by namespace and index name.
    """

    held: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def hold(self, ns: str, indexes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Keeps the unique ones back and returns the others."""
        others = []
        for index in indexes:
            if index.get("unique") and index["name"] != "_id_":
                self.held.setdefault(ns, {})[str(index["name"])] = dict(index)
            else:
                others.append(dict(index))
        return others

    def follow(self, operation: Mapping[str, Any]) -> dict[str, Any] | None:
        """The command that is still to be run after this replayed command; None when nothing of it is left."""
        command: dict[str, Any] = dict(operation["o"])
        name, database = next(iter(command)), str(operation["ns"]).partition(".")[0]
        held = self.held.get(f"{database}.{command[name]}", {})
        if name == "createIndexes":
            for index in command["indexes"]:
                held.pop(str(index["name"]), None)
            command["indexes"] = self.hold(f"{database}.{command[name]}", command["indexes"])
            return command if command["indexes"] else None
        if name in _INDEX_DROPS:
            held.pop(str(command["index"]), None)
        elif name == "collMod" and command.get("index", {}).get("name") in held:
            change = dict(command["index"])
            held[change.pop("name")].update(change)
            return None
        elif name in ("drop", "create"):
            held.clear()
        elif name == "dropDatabase":
            for one in [one for one in self.held if one.partition(".")[0] == database]:
                del self.held[one]
        return command


@dataclass
class CappedTails:
    """Which inserts of the window a capped collection has seen already: all up to its newest loaded document.

    :param newest: ``_id`` of the newest loaded document by namespace.
    """

    newest: dict[str, Any]
    _seen_from: dict[str, int] = field(default_factory=dict)

    def scan(self, operations: Iterable[Mapping[str, Any]]) -> None:
        """Looks the window through for the insert of each newest document; what comes after a drop is another collection."""
        looked_for = dict(self.newest)
        for number, operation in enumerate(operations):
            ns = str(operation["ns"])
            if operation["op"] == "i" and ns in looked_for and operation["o"]["_id"] == looked_for[ns]:
                self._seen_from[ns] = number
                del looked_for[ns]
            database, collection = dropped(operation)
            for one in [one for one in looked_for if is_in(one, database, collection)]:
                del looked_for[one]

    def has_seen(self, number: int, operation: Mapping[str, Any]) -> bool:
        """Whether this insert, the window's operation of that number, is in the loaded collection or was cut off it."""
        return operation["op"] == "i" and number <= self._seen_from.get(str(operation["ns"]), -1)


@dataclass
class Present:
    """Which collections there are at each point of the window.

    What the window says of a collection that is not in the dump happened before its drop, which the window then holds, too.

    :param namespaces: those that were loaded.
    :ivar missed: namespaces that were passed over and whose drop was not seen yet.
    """

    namespaces: set[str]
    missed: set[str] = field(default_factory=set)
    _databases: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._databases = {ns.partition(".")[0] for ns in self.namespaces}

    def has(self, operation: Mapping[str, Any]) -> bool:
        """Whether the operation finds its collection there; creations and drops are taken note of."""
        if operation["op"] != "c":
            return self._knows(str(operation["ns"]))
        name, database = next(iter(operation["o"])), str(operation["ns"]).partition(".")[0]
        ns = f"{database}.{operation['o'][name]}"
        if name == "create":
            self.namespaces.add(ns)
            self._databases.add(database)
            self.missed.discard(ns)
            return True
        if name in ("drop", "dropDatabase"):
            gone = dropped(operation)
            self.namespaces = {one for one in self.namespaces if not is_in(one, *gone)}
            self.missed = {one for one in self.missed if not is_in(one, *gone)}
            return True
        return self._knows(ns)

    def _knows(self, ns: str) -> bool:
        if ns in self.namespaces:
            return True
        # Juju's own archives leave whole databases out.
        if ns.partition(".")[0] in self._databases:
            self.missed.add(ns)
        return False

    def refuse_gaps(self) -> None:
        """:raises JujuDrError: the window changes a collection that is neither in the dump nor dropped."""
        if self.missed:
            raise JujuDrError(
                f"The archive's oplog changes {', '.join(sorted(self.missed))}, which the archive does not hold",
                "Take another archive",
            )


def is_in(ns: str, database: str, collection: str) -> bool:
    """Whether a namespace is the collection, or any collection of the database when none is named."""
    return bool(database) and ns.startswith(f"{database}.") and collection in ("", ns.partition(".")[2])
