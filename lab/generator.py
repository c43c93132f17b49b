"""Grows a database to any size in Juju's shape and proportions; seeded, so that two runs make the same documents."""

from __future__ import annotations

import random
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


def _blob(n: int) -> Document:
    return {"_id": f"grown-{n}", "chunkSize": CHUNK, "length": Int64(CHUNK * CHUNKS), "md5": f"{n:032x}"}


def _instance(model: str, n: int) -> Document:
    return {"_id": f"{model}:{n}", "machineid": str(n), "instanceid": f"grown-{n}", "model-uuid": model, "arch": "amd64"}


def _unit(model: str, template: Document, n: int) -> Document:
    kept = {k: v for k, v in template.items() if k not in ("tools", "txn-queue")}
    name = f"grown/{n}"
    return {**kept, "_id": f"{model}:{name}", "name": name, "application": "grown", "machineid": str(n), "model-uuid": model}


def _status(model: str, n: int) -> Document:
    words = ["idle", "executing", "active", "waiting", "maintenance"]
    key = f"u#grown/{n % 500}#charm"
    return {
        "_id": ObjectId(f"{n + 2**41:024x}"),
        "model-uuid": model,
        "globalkey": key,
        "status": words[n % 5],
        "statusinfo": f"running hook number {n}",
        "statusdata": {},
        "updated": Int64(STAMP + n * 1_000_000),
    }


def _log(n: int) -> Document:
    return {
        "_id": ObjectId(f"{n:024x}"),
        "t": Int64(STAMP + n),
        "n": f"unit-grown-{n % 500}",
        "m": "juju.worker.uniter",
        "l": "s.go:1",
        "v": 3,
        "x": f"found queued hook {n % 77} for the unit",
    }


def _settings(model: str, release: str, n: int) -> Document:
    # Juju writes '.' and '$' in keys as their full-width forms.
    values = {f"option\uff0e{n % 7}": f"value {n}", "cost\uff04": "a.b$c", "plain": n}
    # The client-side transactions of 2.9 leave their tokens in the documents they touched.
    queue = {"txn-queue": [f"{n + 2**40:024x}_{n % 2**32:08x}"]} if release == "2.9" else {}
    return {
        "_id": f"{model}:a#grown{n}#ch:grown-1",
        "model-uuid": model,
        "settings": values,
        "version": Int64(0),
        "txn-revno": Int64(2),
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
    return {**kept, **empty, "_id": f"{model}:{n}", "machineid": str(n), "model-uuid": model, "nonce": f"machine-0:{n}"}


def _chunk(seed: int, n: int) -> Document:
    compressible = n % 2 == 0
    data = (
        (b"charm code, much alike " * (CHUNK // 23 + 1))[:CHUNK]
        if compressible
        else random.Random(seed * 7919 + n).randbytes(CHUNK)
    )
    return {"_id": ObjectId(f"{n + 1:024x}"), "files_id": f"grown-{n // CHUNKS}", "n": n % CHUNKS, "data": data}


def _transaction(model: str, n: int) -> Document:
    # State 6 is applied: history that a prune would take away.
    return {
        "_id": ObjectId(f"{n + 2**40:024x}"),
        "s": 6,
        "o": [{"c": "settings", "d": f"{model}:a#grown{n}#ch:grown-1", "u": {"$set": {"settings.plain": n}}}],
        "n": f"{n % 2**32:08x}",
    }
