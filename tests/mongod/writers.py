"""Writers that never rest while a backup runs, and what the database must hold at any instant, worked out the long way.

Each writer does what Juju does, journals on the client's side what was acknowledged, and draws everything from one seed.
:func:`state_at` follows the server's whole oplog from its first entry in plain Python: it shares no code with what it judges.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import bson
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.errors import CollectionInvalid, OperationFailure

Client = MongoClient[dict[str, Any]]
Document = dict[str, Any]
ACCOUNTS, MACHINES = 600, 40


def prepare(client: Client) -> Timestamp:
    """Makes what is there before the writers begin, and returns an instant at which there was nothing."""
    for name in client.list_database_names():
        if name not in ("admin", "config", "local"):
            client.drop_database(name)
    nothing = next(client.local["oplog.rs"].find({}, {"ts": 1}).sort("$natural", -1).limit(1))["ts"]
    juju, bank = client.juju, client.bank
    bank.accounts.insert_many([{"_id": n, "sum": 100, "pad": "x" * 500} for n in range(ACCOUNTS)])
    bank.create_collection("ledger")
    bank.create_collection("big")
    juju.machines.insert_many([{"_id": n, "txn-queue": [], "txn-revno": 0, "count": 0} for n in range(MACHINES)])
    juju.create_collection("txns")
    juju.create_collection("txns.log", capped=True, size=20_000)
    juju.statuseshistory.create_index([("updated", -1)])
    juju.expiring.create_index("made", expireAfterSeconds=5, name="made_1")
    juju.subnets.create_index([("model", 1), ("cidr", 1)], unique=True)
    juju.subnets.insert_many([{"_id": f"s{n}", "model": "m", "cidr": n, "pad": "z" * 400} for n in range(300)])
    assert isinstance(nothing, Timestamp)
    return nothing


class Writers:
    """Runs until told to stop; an error in any of them is raised then.

    :ivar moves: what each mover's transactions moved, in the order in which they were acknowledged.
    """

    def __init__(self, client: Client, seed: int) -> None:
        self._client, self._seed = client, seed
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.moves: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
        self.turns: dict[str, int] = {}
        work: list[tuple[str, Callable[[random.Random, int], None]]] = [
            ("mover 0", lambda r, turn: self._move(r, turn, 0)),
            ("mover 1", lambda r, turn: self._move(r, turn, 1)),
            ("mgo/txn", self._mgo_txn),
            ("history", self._history),
            ("catalog", self._catalog),
            ("unique keys", self._unique_keys),
            ("big", self._big),
        ]
        self._threads = [threading.Thread(target=self._run, args=one, name=one[0]) for one in work]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, name: str, work: Callable[[random.Random, int], None]) -> None:
        random_ = random.Random(f"{self._seed} {name}")
        try:
            while not self._stop.is_set():
                turn = self.turns[name] = self.turns.get(name, -1) + 1
                work(random_, turn)
        except BaseException as error:
            self._errors.append(error)

    def _move(self, random_: random.Random, turn: int, number: int) -> None:
        """A transaction of several documents, as 3.x writes: money moves, the ledger says so."""
        one, other = random_.sample(range(ACCOUNTS), 2)
        bank = self._client.bank

        def move(session: Any) -> None:
            bank.accounts.update_one({"_id": one}, {"$inc": {"sum": -7}}, session=session)
            bank.accounts.update_one({"_id": other}, {"$inc": {"sum": 7}}, session=session)
            bank.ledger.insert_one({"_id": f"{number}-{turn}", "one": one, "other": other}, session=session)

        with self._client.start_session() as session:
            session.with_transaction(move)
        self.moves[number].append((one, other))

    def _big(self, random_: random.Random, turn: int) -> None:
        """Larger than one oplog entry: a chain, committed or given up at its end."""
        with self._client.start_session() as session:
            session.start_transaction()
            for part in range(6):
                document = {"_id": f"{turn}-{part}", "pad": "y" * 3_000_000}
                self._client.bank.big.insert_one(document, session=session)
            if random_.random() < 0.3:
                session.abort_transaction()
            else:
                session.commit_transaction()
        self._client.bank.big.delete_many({"_id": {"$regex": f"^{turn - 1}-"}})
        self._stop.wait(random_.uniform(0, 0.6))

    def _mgo_txn(self, random_: random.Random, turn: int) -> None:
        """mgo/txn as 2.9 writes it: prepare, queue, apply, log; two documents that count alike."""
        juju, identity = self._client.juju, ObjectId()
        pair = random_.sample(range(MACHINES // 2), 1)[0]
        first, second, token = pair * 2, pair * 2 + 1, f"{identity}_{random_.randrange(16**8):08x}"
        operations = [{"c": "machines", "d": one, "u": {"$inc": {"count": 1}}} for one in (first, second)]
        juju.txns.insert_one({"_id": identity, "s": 2, "o": operations, "n": token[-8:]})
        for one in (first, second):
            juju.machines.update_one({"_id": one}, {"$addToSet": {"txn-queue": token}})
        juju.txns.update_one({"_id": identity}, {"$set": {"s": 4, "r": [Int64(turn)]}})
        for one in (first, second):
            juju.machines.update_one(
                {"_id": one, "txn-queue": token},
                {
                    "$set": {f"settings.k{random_.randrange(3)}": turn},
                    "$inc": {"txn-revno": 1, "count": 1},
                    "$pull": {"txn-queue": token},
                },
            )
        juju.txns.update_one({"_id": identity}, {"$set": {"s": 6}})
        juju["txns.log"].insert_one({"_id": identity, "number": turn, "machines": {"d": [first, second], "r": [turn, turn]}})
        if random_.random() < 0.1:
            juju.machines.update_one({"_id": first}, {random_.choice(["$set", "$unset"]): {"settings": "flat"}})
            juju.machines.update_one({"_id": first, "settings": "flat"}, {"$unset": {"settings": ""}})

    def _history(self, random_: random.Random, turn: int) -> None:
        """History grows and is pruned; what has expired goes by itself."""
        juju, now = self._client.juju, datetime.now(timezone.utc)
        juju.statuseshistory.insert_many(
            [{"_id": f"{turn}-{n}", "updated": Int64(turn * 10 + n), "message": "m" * 100} for n in range(10)]
        )
        if turn % 7 == 0:
            juju.statuseshistory.delete_many({"updated": {"$lt": (turn - 100) * 10}})
        juju.expiring.insert_one({"_id": turn, "made": now - timedelta(seconds=random_.choice([0, 4.5, 60]))})

    def _catalog(self, random_: random.Random, turn: int) -> None:
        """Collections and indexes come and go, one name again and again."""
        database = self._client[random_.choice(["juju", "passing"])]
        name = f"passing{random_.randrange(3)}"
        collection = database[name]
        action = random_.randrange(8)
        with contextlib.suppress(OperationFailure, CollectionInvalid):
            if action == 0:
                collection.drop()
            elif action == 1:
                database.create_collection(name, capped=True, size=random_.choice([4096, 100_000]))
            elif action == 2 and random_.random() < 0.2:
                self._client.drop_database("passing")
            elif action == 3:
                database.command({"collMod": name, "index": {"name": "made_1", "expireAfterSeconds": 3600 + turn}})
            elif action == 4:
                collection.create_index("made", expireAfterSeconds=3600)
                collection.create_index("key", unique=random_.random() < 0.5, sparse=True)
            elif action == 5:
                collection.drop_index(random_.choice(["made_1", "key_1"]))
            else:
                collection.insert_many([{"key": f"{turn}-{n}", "made": datetime.now(timezone.utc)} for n in range(20)])

    def _unique_keys(self, random_: random.Random, turn: int) -> None:
        """A unique value goes from one document to another; a document goes and comes back elsewhere in the file."""
        subnets = self._client.juju.subnets
        one = random_.randrange(300)
        found = subnets.find_one_and_delete({"model": "m", "cidr": one})
        assert found is not None
        new = found["_id"] if random_.random() < 0.5 else f"s{random_.randrange(10**9)}"
        subnets.insert_one({**found, "_id": new, "turn": turn})


# --- the long way ------------------------------------------------------------------------------------------------------


class State:
    """A database in plain Python: documents by namespace in order of insertion, indexes by namespace and name."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[bytes, Document]] = {}
        self.indexes: dict[str, dict[str, Document]] = {}
        self.capped: set[str] = set()

    def apply(self, entry: Document) -> None:
        ns, body = entry["ns"], entry["o"]
        database = ns.partition(".")[0]
        if entry["op"] == "n" or database in ("config", "local", "admin"):
            return
        if entry["op"] == "c":
            self._command(database, body)
        elif entry["op"] == "i":
            self.documents[ns][_key(body)] = body
        elif entry["op"] == "d":
            del self.documents[ns][_key(body)]
        else:
            self._update(self.documents[ns], _key(entry["o2"]), body)

    def _update(self, documents: dict[bytes, Document], key: bytes, body: Document) -> None:
        if not any(name.startswith("$") for name in body):
            documents[key] = body
            return
        assert set(body) <= {"$v", "$set", "$unset"}, body
        for path in body.get("$unset", {}):
            parent, last = _walk(documents[key], path)
            parent.pop(last, None)
        for path, value in body.get("$set", {}).items():
            parent, last = _walk(documents[key], path)
            parent[last] = value

    def _command(self, database: str, body: Document) -> None:
        name = next(iter(body))
        ns = f"{database}.{body[name]}"
        if name == "create":
            self.documents[ns], self.indexes[ns] = {}, {}
            self.capped -= {ns}
            self.capped |= {ns} if body.get("capped") else set()
        elif name == "drop":
            del self.documents[ns], self.indexes[ns]
        elif name == "createIndexes":
            self.indexes[ns][body["name"]] = {k: v for k, v in body.items() if k != name}
        elif name == "commitIndexBuild":
            self.indexes[ns].update({one["name"]: one for one in body["indexes"]})
        elif name in ("dropIndexes", "deleteIndexes"):
            del self.indexes[ns][body["index"]]
        elif name == "collMod":
            change = dict(body["index"])
            self.indexes[ns][change.pop("name")].update(change)
        elif name == "dropDatabase":
            assert not [one for one in self.documents if one.startswith(f"{database}.")]
        else:
            assert name in ("startIndexBuild", "abortIndexBuild"), name


def _key(document: Document) -> bytes:
    return bson.encode({"": document["_id"]})


def _walk(document: Document, path: str) -> tuple[Any, Any]:
    *parents, last = path.split(".")
    here: Any = document
    for part in parents:
        here = here[int(part)] if isinstance(here, list) else here.setdefault(part, {})
    return here, int(last) if isinstance(here, list) else last


def state_at(client: Client, nothing: Timestamp, instant: Timestamp) -> State:
    """What the whole oplog makes between an instant at which there was nothing and another."""
    state, chains = State(), dict[bytes, list[Document]]()
    for entry in client.local["oplog.rs"].find({"ts": {"$gt": nothing, "$lte": instant}}).sort("$natural", 1):
        if entry["op"] == "c" and "applyOps" in entry["o"]:
            chain = chains.setdefault(bson.encode({"": entry["lsid"]["id"], "n": entry["txnNumber"]}), [])
            chain += entry["o"]["applyOps"]
            if not entry["o"].get("partialTxn"):
                for one in chain:
                    state.apply(one)
                chain.clear()
        else:
            state.apply(entry)
    return state


def differences(state: State, restored: Client) -> Iterator[str]:
    """Every way in which a restored server is not in that state; nothing when it is."""
    there = {
        f"{database}.{one['name']}"
        for database in restored.list_database_names()
        if database not in ("admin", "config", "local")
        for one in restored[database].list_collections()
    }
    if there != set(state.documents):
        yield f"collections: {sorted(there ^ set(state.documents))}"
    for ns in sorted(there & set(state.documents)):
        database, _, name = ns.partition(".")
        collection = restored[database][name]
        found = [(_key(one), bson.encode(one)) for one in collection.find().sort("$natural", 1)]
        expected = [(key, bson.encode(one)) for key, one in state.documents[ns].items()]
        if ns in state.capped:
            # How many of the oldest are cut off when is the server's own affair; the rest is whole and in order.
            if (not found and expected) or found != expected[len(expected) - len(found) :]:
                yield f"{ns}: {len(found)} documents are not the newest of {len(expected)} in their order"
            if collection.options().get("capped") is not True:
                yield f"{ns}: not capped"
        elif len(found) != len(dict(found)):
            yield f"{ns}: a document is there twice"
        elif {k: _sorted(v) for k, v in found} != {k: _sorted(v) for k, v in expected}:
            yield f"{ns}: {_first(dict(found), dict(expected))}"
        indexes = {
            index["name"]: {k: v for k, v in index.items() if k not in ("ns", "v")}
            for index in (dict(one) for one in collection.list_indexes())
            if index["name"] != "_id_"
        }
        wanted = {
            n: {k: dict(v) if k == "key" else v for k, v in one.items() if k not in ("ns", "v")}
            for n, one in state.indexes[ns].items()
        }
        indexes = {n: {k: dict(v) if k == "key" else v for k, v in one.items()} for n, one in indexes.items()}
        if indexes != wanted:
            yield f"{ns}: indexes are {indexes}, should be {wanted}"


def _sorted(raw: bytes) -> Any:
    # $set of several new fields: their order is the server's affair.
    return bson.decode(raw)


def _first(found: dict[bytes, bytes], expected: dict[bytes, bytes]) -> str:
    for key in sorted(set(found) | set(expected)):
        one, other = (bson.decode(x[key]) if key in x else None for x in (found, expected))
        if one != other:
            return f"{str(one)[:300]} instead of {str(other)[:300]}"
    return "?"
