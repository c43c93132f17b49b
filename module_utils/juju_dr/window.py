"""The window of a hot dump: the oplog from before the first read to after the last, and all that must not happen meanwhile.

Everything is told by the database's own time (the cluster time of its oplog); no host's clock is asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Iterator

from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure

from .bson_stream import raw_documents
from .oplog import DumpInterrupted, dropped, is_in, is_kept, is_unfinished_part

if TYPE_CHECKING:
    from pymongo import MongoClient

    Client = MongoClient[dict[str, Any]]

WATCH_SECONDS = 5.0
MAJORITY_SECONDS = 60.0
BATCH_DOCUMENTS = 1000
_NONE = Timestamp(0, 0)
_CAPPED_POSITION_LOST = 136


class Window:
    """Opened before the first read, watched between reads, closed after the last.

    :ivar start: the first entry that is kept; may move back when the window is closed.
    :ivar end: the instant that a restore arrives at; None until the window is closed.
    :ivar entries: how many entries were kept.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._oplog = client.local["oplog.rs"]
        self._gone: set[str] = set()
        self._watched = time.monotonic()
        # A member that has just started learns from the others what a majority has.
        committed = self._confirmed(Timestamp(0, 1))
        self._opened: Timestamp = committed["ts"]
        self._term = committed["t"]
        # Transactions that are open now began before what is committed now.
        running = client.config.transactions.find(
            {"state": {"$in": ["prepared", "inProgress"]}, "startOpTime": {"$exists": True}}, {"startOpTime": 1}
        )
        self.start: Timestamp = min([committed["ts"], *(one["startOpTime"]["ts"] for one in running)])
        self.end: Timestamp | None = None
        self.entries = 0

    def watch(self) -> None:
        """Looks now and then whether the dump is still worth going on with.

        :raises DumpInterrupted: the oplog no longer reaches back to the start, or another primary was elected.
        """
        now = time.monotonic()
        if now - self._watched >= WATCH_SECONDS:
            self._watched = now
            self._refuse_an_election()
            self._refuse_an_overrun()

    def dropped_under_us(self, database: str, collection: str) -> None:
        """A collection went away while it was read. What was read of it does not count, once its drop is seen in the window."""
        self._gone.add(f"{database}.{collection}")

    def close(self) -> None:
        """Ends the window at what the member shows now, once a majority has it.

        :raises DumpInterrupted: the member is cut off from the majority, another primary was elected, or the oplog was overrun.
        """
        end: Timestamp = self._optimes()["appliedOpTime"]["ts"]
        # Catalogs are read as this member has them, which the majority may not have yet.
        self._confirmed(end)
        self._refuse_an_election()
        self.end = end
        self.start = self._before_halves(self.start, end)

    def blocks(self) -> Iterator[bytes]:
        """The kept entries, raw, end to end.

        :raises DumpInterrupted: a part of the window is missing, or holds what a dump cannot follow.
        """
        query = {"ts": {"$gte": self.start, "$lte": self.end}}
        batches: Any = self._oplog.find_raw_batches(query, batch_size=BATCH_DOCUMENTS)
        try:
            for batch in batches:
                kept = [raw for raw in raw_documents(batch) if self._keeps(RawBSONDocument(raw))]
                self.entries += len(kept)
                if kept:
                    yield b"".join(kept)
        except OperationFailure as error:
            if error.code == _CAPPED_POSITION_LOST:
                raise self._overrun() from error
            raise
        # Looked at last: what was cut off while we read would be missing.
        self._refuse_an_overrun()
        if self._gone:
            raise DumpInterrupted(
                f"{', '.join(sorted(self._gone))} went away while it was dumped, and the oplog does not say how",
                "Run the backup again",
            )

    def to_json(self) -> dict[str, Any]:
        """``start`` and ``end`` as ``[seconds, increment]``, and ``entries``."""
        assert self.end is not None
        return {"start": [self.start.time, self.start.inc], "end": [self.end.time, self.end.inc], "entries": self.entries}

    def _optimes(self) -> dict[str, Any]:
        status: dict[str, Any] = self._client.admin.command("replSetGetStatus")
        optimes: dict[str, Any] = status["optimes"]
        return optimes

    def _confirmed(self, instant: Timestamp) -> dict[str, Any]:
        """What a majority has (``ts``, ``t``), once that reaches an instant."""
        deadline = time.monotonic() + MAJORITY_SECONDS
        while True:
            committed: dict[str, Any] = self._optimes()["lastCommittedOpTime"]
            if committed["ts"] >= instant:
                return committed
            if time.monotonic() > deadline:
                raise DumpInterrupted(
                    f"A majority of the replica set has not confirmed this member's writes for {MAJORITY_SECONDS:.0f} s",
                    "Bring the other members back, or back up with mongo_dump_mode=offline",
                )
            time.sleep(0.05)

    def _keeps(self, entry: RawBSONDocument) -> bool:
        if entry["ts"] <= self._opened:
            # Every read shows all that was committed before it; only what takes effect later is of use.
            return is_unfinished_part(entry)
        kept = is_kept(entry)
        if self._gone and kept:
            for operation in entry["o"].get("applyOps", (entry,)):
                self._gone = {ns for ns in self._gone if not is_in(ns, *dropped(operation))}
        return kept

    def _before_halves(self, start: Timestamp, end: Timestamp) -> Timestamp:
        """Where the window must begin to hold every transaction whole of which it holds the end."""
        query = {
            "ts": {"$gte": start, "$lte": end},
            "op": "c",
            "lsid": {"$exists": True},
            "prevOpTime.ts": {"$gt": _NONE, "$lt": start},
        }
        first = start
        for entry in self._oplog.find(query, {"prevOpTime": 1}):
            at = entry["prevOpTime"]["ts"]
            while at > _NONE:
                first = min(first, at)
                earlier = next(iter(self._oplog.find({"ts": {"$gte": at, "$lte": at}}, {"prevOpTime": 1})), None)
                if earlier is None:
                    raise self._overrun()
                at = earlier.get("prevOpTime", {}).get("ts", _NONE)
        return first

    def _refuse_an_election(self) -> None:
        term = self._optimes()["lastCommittedOpTime"]["t"]
        if term != self._term:
            raise DumpInterrupted(
                f"Another primary was elected while the database was dumped (term {self._term}, now {term})",
                "Run the backup again once the replica set is calm",
            )

    def _refuse_an_overrun(self) -> None:
        oldest = next(iter(self._oplog.find({}, {"ts": 1}).sort("$natural", 1).limit(1)))["ts"]
        if oldest > self.start:
            raise self._overrun()

    def _overrun(self) -> DumpInterrupted:
        return DumpInterrupted(
            "The oplog rolled over while the database was dumped: changes are missing",
            "Run the backup again in a quieter hour, or raise oplogSize in juju-db.config",
        )
