"""Grows a database to any size in Juju's shape and proportions; seeded, so that two runs make the same documents."""

from __future__ import annotations

import base64
import random
import struct
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bson
from bson import Int64, ObjectId
from bson.raw_bson import RawBSONDocument

BATCH = 1000
CHUNK = 255 * 1024
CHUNKS = 8
STAMP = 1795486500000000000
PROCESS = 0x87D216F28C
MASK = 2**64 - 1
# What a controller's histories and logs say. gzip -6 packs those of a real one, a few kilobytes, to a fifth to a seventh of
# their size (tests/data/fixtures); it packs these, at hundreds of megabytes, to an eighth to a twelfth.
STATUSES = [
    ("idle", ""),
    ("idle", ""),
    ("executing", "running config-changed hook"),
    ("executing", "running db-relation-changed hook for back/{of}"),
    ("active", "Unit is ready"),
    ("active", "Unit is ready and clustered with {of} peers"),
    ("waiting", "Incomplete relations: {relation}"),
    ("error", 'hook failed: "update-status" (code {of})'),
]
MESSAGES = [
    ("juju.worker.dependency", "engine.go:580", '"uniter" manifold worker started at {second} +0000 UTC'),
    ("juju.worker.uniter.operation", "runhook.go:159", 'ran "update-status" hook (via explicit, bespoke hook script)'),
    ("juju.worker.uniter", "resolver.go:194", "found queued hook {number} of relation {unit}"),
    ("unit.grown/0.juju-log", "server.go:316", "db:{number}: Pinging peer {unit} of the cluster"),
    ("juju.worker.leadership", "tracker.go:194", "grown/{unit} promoted to leadership of grown"),
    ("juju.api", "apiclient.go:804", 'connection established to "wss://10.0.0.{unit}:17070/model/{pid}/api"'),
    ("juju.worker.proxyupdater", "proxyupdater.go:231", "saving new legacy proxy settings for {unit}"),
    ("juju.worker.meterstatus", "connected.go:90", "skipped after {number} of {pid} ms at {second}"),
]
Document = dict[str, Any]


def grow(client: Any, release: str, documents: int, seed: int) -> None:
    """Adds documents until there are about as many as asked for.

    :param release: ``2.9`` adds finished transactions, as the client-side transactions of that line leave them.
    """
    if documents <= 0:
        return
    source = random.Random(seed)
    model = str(uuid.UUID(int=source.getrandbits(128), version=4))
    template = client.juju.models.find_one({"name": "prod"})
    if template is None:
        return
    client.juju.models.insert_one({**template, "_id": model, "name": "grown"})
    settings = client.juju.settings.find_one({"_id": f"{template['_id']}:e"})
    client.juju.settings.insert_one({**settings, "_id": f"{model}:e", "model-uuid": model})
    machine = client.juju.machines.find_one({"model-uuid": template["_id"]})
    unit = client.juju.units.find_one({"model-uuid": template["_id"]})
    shares: list[tuple[str, str, float, Callable[[int], Document]]] = [
        ("juju", "statuseshistory", 0.45, lambda n: _status(model, n)),
        ("logs", f"logs.{model}", 0.30, lambda n: _log(n)),
        ("juju", "settings", 0.08, lambda n: _settings(model, release, n)),
        ("juju", "machines", 0.02, lambda n: _machine(model, machine, n)),
        ("juju", "instanceData", 0.02, lambda n: _instance(model, n)),
        ("juju", "units", 0.02, lambda n: _unit(model, unit, n)),
        ("blobstore", "blobstore.chunks", 0.0005, lambda n: _chunk(seed, n)),
        ("blobstore", "blobstore.files", 0.0005 / CHUNKS, _blob),
    ]
    if release == "2.9":
        shares.append(("juju", "txns", 0.1495, lambda n: _transaction(model, n)))
    total = sum(share for _, _, share, _ in shares)
    with ThreadPoolExecutor(3) as workers:
        jobs = [
            workers.submit(_fill, client[database][collection], make, int(documents * share / total))
            for database, collection, share, make in shares
        ]
        for job in jobs:
            job.result()


def _fill(collection: Any, make: Callable[[int], Document], number: int) -> None:
    for start in range(0, number, BATCH):
        collection.insert_many(list(_some(make, start, min(start + BATCH, number))), ordered=False)


def _some(make: Callable[[int], Document], start: int, end: int) -> Iterator[RawBSONDocument]:
    # Encoded here: the driver of the hosts refuses keys that Juju's transactions do have.
    return (RawBSONDocument(bson.encode(make(number))) for number in range(start, end))


def _mixed(n: int) -> int:
    """64 bits that look random, the same for the same number (the finalizer of SplitMix64)."""
    n = (n + 1) * 0x9E3779B97F4A7C15 & MASK
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9 & MASK
    n = (n ^ n >> 27) * 0x94D049BB133111EB & MASK
    return n ^ n >> 31


def _id(n: int) -> ObjectId:
    """As a server writes them: seconds that pass, the process, a counter."""
    return ObjectId(f"{STAMP // 10**9 + n // 20:08x}{PROCESS:010x}{n & 0xFFFFFF:06x}")


def _hash(n: int) -> str:
    """24 characters, as Juju keeps passwords."""
    return base64.b64encode(struct.pack("<QQH", _mixed(n), _mixed(~n), n & 0xFFFF)).decode("ascii")


def _blob(n: int) -> Document:
    return {"_id": f"grown-{n}", "chunkSize": CHUNK, "length": Int64(CHUNK * CHUNKS), "md5": f"{n:032x}"}


def _instance(model: str, n: int) -> Document:
    instance = f"juju-{model[-6:]}-{_mixed(n):016x}"
    return {"_id": f"{model}:{n}", "machineid": str(n), "instanceid": instance, "model-uuid": model, "arch": "amd64"}


def _unit(model: str, template: Document, n: int) -> Document:
    kept = {k: v for k, v in template.items() if k not in ("tools", "txn-queue")}
    own = {"name": f"grown/{n}", "application": "grown", "machineid": str(n), "model-uuid": model, "passwordhash": _hash(n)}
    return {**kept, **own, "_id": f"{model}:grown/{n}", "txn-revno": Int64(2 + _mixed(n) % 90)}


def _status(model: str, n: int) -> Document:
    chance = _mixed(n)
    unit = f"u#grown/{chance % 500}"
    status, info = STATUSES[chance >> 12 & 7]
    return {
        "_id": _id(n),
        "model-uuid": model,
        "globalkey": unit + ("#charm" if chance >> 20 & 1 else ""),
        "status": status,
        "statusinfo": info.format(relation=chance >> 24 & 63, of=chance >> 30 & 511),
        "statusdata": {},
        "updated": Int64(STAMP + n * 50_000_000 + (chance >> 38)),
    }


def _log(n: int) -> Document:
    chance = _mixed(n)
    at = STAMP + n * 50_000_000 + (chance >> 38)
    module, line, text = MESSAGES[chance >> 12 & 7]
    second = f"2026-11-24 {n // 72000 % 24:02}:{n // 1200 % 60:02}:{n // 20 % 60:02}.{at % 10**9:09}"
    return {
        "_id": _id(n),
        "t": Int64(at),
        "n": f"unit-grown-{chance % 500}",
        "r": "2.9.61.1",
        "m": module,
        "l": line,
        "v": 2 + (chance >> 20 & 1),
        "x": text.format(second=second, unit=chance % 500, number=chance >> 22 & 0xFFFF, pid=chance >> 40 & 0x7FFF),
    }


def _settings(model: str, release: str, n: int) -> Document:
    chance = _mixed(n)
    # Juju writes '.' and '$' in keys as their full-width forms.
    values = {f"option\uff0e{n % 7}": f"value {n}", "cost\uff04": "a.b$c", "plain": n, "password": f"{chance:016x}"}
    # The client-side transactions of 2.9 leave their tokens in the documents they touched.
    queue = {"txn-queue": [f"{_id(n)}_{chance % 2**32:08x}"]} if release == "2.9" else {}
    return {
        "_id": f"{model}:a#grown{n}#ch:grown-1",
        "model-uuid": model,
        "settings": values,
        "version": Int64(chance & 7),
        "txn-revno": Int64(2 + (chance >> 3 & 31)),
        **queue,
    }


def _machine(model: str, template: Document, n: int) -> Document:
    # Without addresses: nobody tries to reach what is not there.
    empty: Document = {"addresses": [], "machineaddresses": [], "principals": [], "agent-started-at": None}
    kept = {
        k: v
        for k, v in template.items()
        if k not in ("preferredpublicaddress", "preferredprivateaddress", "tools", "txn-queue")
    }
    own = {"machineid": str(n), "model-uuid": model, "nonce": f"machine-0:{_mixed(n):016x}", "passwordhash": _hash(n)}
    return {**kept, **empty, **own, "_id": f"{model}:{n}"}


def _chunk(seed: int, n: int) -> Document:
    # Charms and agent binaries are packed already: nothing makes them smaller.
    data = random.Random(seed * 7919 + n).randbytes(CHUNK)
    return {"_id": ObjectId(f"{n + 1:024x}"), "files_id": f"grown-{n // CHUNKS}", "n": n % CHUNKS, "data": data}


def _transaction(model: str, n: int) -> Document:
    chance = _mixed(n)
    # State 6 is applied: history that a prune would take away.
    return {
        "_id": _id(n),
        "s": 6,
        "o": [
            {
                "c": "settings",
                "d": f"{model}:a#grown{chance % 5000}#ch:grown-1",
                "a": {"version": Int64(chance >> 13 & 7)},
                "u": {"$set": {"settings.plain": chance >> 16 & 0xFFFF}},
            }
        ],
        "n": f"{chance >> 32:08x}",
        "r": [Int64(n % 90 + 2)],
    }
