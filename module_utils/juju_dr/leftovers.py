"""Where an old address still stands after a restore, and whether that is history or a fault."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

import bson

from .bson_stream import split
from .controller_host import controller_client
from .peergrouper import JOB_MANAGE_MODEL
from .rewrite import Document
from .rules import machine_id_of, units_on

# Finished transactions, past statuses and logs tell what was: nothing acts on them.
HISTORY_COLLECTIONS = ("txns", "txns.log", "txns.stash", "txns.prune", "statuseshistory")
HISTORY_DATABASES = ("logs",)
# A nonce contains the address a manual machine was added at, and must stay.
HISTORY_FIELDS = ("nonce",)
# The manual cloud's endpoint names its first machine, which may be a lost one.
LOST_COLLECTIONS = ("clouds",)
HISTORY_FILES = ("bootstrap-params", "downloaded-tools.txt")
TEXT_LIMIT = 1024 * 1024


@dataclass(frozen=True)
class Finding:
    """One place that names an old address.

    :param kind: ``live`` (a fault), ``history``, or ``lost`` (a lost controller's address in what belongs to it).
    """

    where: str
    field: str
    kind: str

    def __str__(self) -> str:
        return f"{self.where} {self.field}".strip()


@dataclass(frozen=True)
class Lost:
    """The controllers that do not come back.

    :param addresses: what they were reached at.
    :param ids: their documents' ids, or how those begin or end.
    """

    addresses: frozenset[str] = frozenset()
    ids: tuple[str, ...] = ()

    def owns(self, identity: str) -> bool:
        return any(identity == one or identity.startswith(one + "#") or identity.endswith("#" + one) for one in self.ids)


NOTHING_LOST = Lost()


def pattern(addresses: Sequence[str]) -> re.Pattern[bytes]:
    """Finds any of the addresses as a whole: 10.0.0.1 is not in 10.0.0.11."""
    joined = b"|".join(re.escape(address.encode()) for address in addresses)
    return re.compile(rb"(?<![0-9A-Za-z.])(?:" + joined + rb")(?![0-9A-Za-z]|\.[0-9])")


def in_document(
    database: str, collection: str, raw: bytes, sought: re.Pattern[bytes], lost: Lost = NOTHING_LOST
) -> Iterator[Finding]:
    """Findings in one raw document; it is decoded only when the bytes hold an address."""
    if not sought.search(raw):
        return
    document = bson.decode(raw)
    where = f"{database}.{collection} {document.get('_id')}"
    past = database in HISTORY_DATABASES or collection in HISTORY_COLLECTIONS
    theirs = collection in LOST_COLLECTIONS or lost.owns(str(document.get("_id")))
    for field, value in _strings(document, ()):
        named = {one.decode() for one in sought.findall(value.encode("utf-8", "surrogateescape"))}
        if named:
            history = past or field.rpartition(".")[2] in HISTORY_FIELDS
            gone = theirs and named <= lost.addresses
            yield Finding(where, field, "history" if history else "lost" if gone else "live")


def _strings(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield ".".join(path), value
    elif isinstance(value, bytes):
        yield ".".join(path), value.decode("utf-8", "surrogateescape")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _strings(key, (*path, "(key)"))
            yield from _strings(item, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _strings(item, (*path, str(index)))


def lost_controllers(addresses: Iterable[str], model_uuid: str, machines: Iterable[str], units: Iterable[str]) -> Lost:
    """The lost controllers: their machines, these machines' parts, and their controller units."""
    ids = [one for machine in machines for one in (f"{model_uuid}:{machine}", f"{model_uuid}:m#{machine}")]
    return Lost(frozenset(addresses), (*ids, *units))


def lost_state_servers(addresses: Iterable[str], uuid: str, machines: Iterable[Document], units: Iterable[Document]) -> Lost:
    """The same of Juju 1.x: ids stand with the environment's UUID before them, or without.

    :param machines: all machines' documents; those of the environment that are no state servers (any more) are meant.
    """
    others = [one for one in machines if one.get("env-uuid", uuid) == uuid and JOB_MANAGE_MODEL not in one.get("jobs", ())]
    ids = [machine_id_of(one) for one in others]
    named = units_on(ids, [one for one in units if one.get("env-uuid", uuid) == uuid])
    # The configuration names the manual provider's first machine, which may be a lost one.
    local = [*ids, *(f"m#{one}" for one in ids), *named, "e"]
    return Lost(frozenset(addresses), (*local, *(f"{uuid}:{one}" for one in local)))


def in_files(roots: Sequence[Path], sought: re.Pattern[bytes]) -> Iterator[Finding]:
    """Findings in text files below the roots; links, binaries and files above a mebibyte are passed over."""
    for root in roots:
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > TEXT_LIMIT:
                continue
            content = path.read_bytes()
            if b"\0" in content or not sought.search(content):
                continue
            history = path.name in HISTORY_FILES or path.suffix == ".log"
            for number, line in enumerate(content.splitlines(), 1):
                if sought.search(line):
                    nonce = line.startswith(b"nonce:")
                    yield Finding(str(path), f"line {number}", "history" if history or nonce else "live")


def scan(addresses: Sequence[str], lost_addresses: Sequence[str], data_dir: str, mongo_common: str) -> dict[str, Any]:
    """Looks through the running database and the host's Juju files.

    :param addresses: all old controller addresses.
    :param lost_addresses: those among them that belong to controllers which do not come back.
    :returns: ``live`` and ``lost`` as lists of places, ``history`` as number of places by collection or file.
    """
    found: dict[str, Any] = {"live": [], "history": {}, "lost": []}
    if not addresses:
        return found
    sought = pattern(addresses)
    with controller_client(data_dir, mongo_common) as client:
        findings = list(in_database(client, sought, lost_addresses))
    places = [Path(data_dir) / "agents", *Path(mongo_common).glob("*.config")]
    places += sorted(Path("/etc/systemd/system").glob("jujud-machine-*"))
    places += [p for p in Path(data_dir).iterdir() if p.is_file()]
    findings += in_files([p for p in places if ".aside-" not in p.name and ".failed-" not in p.name], sought)
    for finding in findings:
        if finding.kind == "history":
            name = finding.where.partition(" ")[0]
            found["history"][name] = found["history"].get(name, 0) + 1
        else:
            found[finding.kind].append(str(finding))
    return found


def in_database(client: Any, sought: re.Pattern[bytes], lost_addresses: Iterable[str]) -> Iterator[Finding]:
    """Findings in all documents of a running server."""
    lost = _lost_1x(client, lost_addresses) if client.juju.stateServers.find_one({}) else _lost(client, lost_addresses)
    for database in client.list_database_names():
        if database in ("admin", "config", "local"):
            continue
        for collection in client[database].list_collection_names():
            for batch in client[database][collection].find_raw_batches({}):
                # The whole batch first: nearly none holds an address.
                if not sought.search(batch):
                    continue
                for raw in split(io.BytesIO(batch)):
                    yield from in_document(database, collection, raw, sought, lost)


def _lost(client: Any, addresses: Iterable[str]) -> Lost:
    model = str(client.juju.controllers.find_one({"_id": "e"})["model-uuid"])
    # Machines of the controller model that are no controllers (any more).
    others = {"model-uuid": model, "jobs": {"$nin": [JOB_MANAGE_MODEL]}}
    machines = [str(m["machineid"]) for m in client.juju.machines.find(others)]
    units = client.juju.units.find({"model-uuid": model, "application": "controller", "machineid": {"$in": machines}})
    return lost_controllers(addresses, model, machines, [str(unit["name"]) for unit in units])


def _lost_1x(client: Any, addresses: Iterable[str]) -> Lost:
    uuid = str(client.juju.stateServers.find_one({"_id": "e"}).get("env-uuid", ""))
    return lost_state_servers(addresses, uuid, client.juju.machines.find(), client.juju.units.find())
