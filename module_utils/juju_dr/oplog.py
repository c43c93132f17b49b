"""The oplog of a dump window: which entries are kept, and what each becomes when it is replayed.

Replaying is idempotent as MongoDB's own tools have it: a document that already shows an entry's effect is not hurt by it.
Transactions arrive as ``applyOps`` entries; large ones as a chain of them, which counts only once its last entry is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping

from .errors import JujuDrError

Entry = Mapping[str, Any]

# Databases that belong to one server or are kept beside.
_LEFT_OUT = ("local", "config", "admin")
_IGNORED_COMMANDS = ("startIndexBuild", "abortIndexBuild")
_REPLAYED_COMMANDS = (
    "create",
    "drop",
    "createIndexes",
    "commitIndexBuild",
    "dropIndexes",
    "deleteIndexes",
    "collMod",
    "dropDatabase",
    "convertToCapped",
)


def is_kept(entry: Entry) -> bool:
    """Whether an entry belongs into the dump: no-ops and other servers' business do not.

    :raises JujuDrError: a collection was renamed in the window, which a dump by name cannot follow.
    """
    if entry["op"] == "n":
        return False
    if entry["op"] == "c" and "renameCollection" in entry["o"]:
        raise JujuDrError(
            f"Collection {entry['o']['renameCollection']} was renamed while it was dumped", "Run the backup again"
        )
    if entry["op"] == "c" and ("applyOps" in entry["o"] or entry["ns"] == "admin.$cmd"):
        return True
    return str(entry["ns"]).partition(".")[0] not in _LEFT_OUT


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
            if entry["o"].get("partialTxn") or entry["o"].get("prepare"):
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
    for entry in entries:
        for operation in transactions.feed(entry):
            yield from _operation(operation)


def _operation(operation: Entry) -> Iterator[dict[str, Any]]:
    database, _, _ = str(operation["ns"]).partition(".")
    if operation["op"] == "n" or database in _LEFT_OUT:
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
