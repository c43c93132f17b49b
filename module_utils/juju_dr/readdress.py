"""Makes of an archive of Juju 1.x another one that names a new address, for loading by hand with that Juju's own tools.

Documents and agent.conf are rewritten by the rules of a restore, and judged as there; every other byte passes through.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Mapping

import bson

from .archive import ArchiveInfo, inspect
from .bson_stream import split
from .errors import JujuDrError
from .files import write_whole
from .leftovers import TEXT_LIMIT, Lost, in_document, lost_state_servers, pattern
from .peergrouper_1x import read_documents
from .rewrite import Edit, edited
from .rewriting import Archived, Rewritten, Wanted, judge, plan_documents, plan_files
from .rules import HARVEST_KEY, SAFE_MODE_KEY, Move, move_from
from .schema import ENVIRONMENTS

PREFIX = "juju-backup/dump/"
OPLOG = PREFIX + "oplog.bson"
ROOT = "juju-backup/root.tar"
_USERS = PREFIX + "admin/"
_LEVEL = 4


@dataclass
class Readdressed:
    """The new archive.

    :ivar edits: every place that was rewritten, as :meth:`.Edit.to_json` has them.
    :ivar mentions: files of root.tar that still name an old address; Juju writes these anew, or they are logs.
    :ivar left_out: files that the new archive does not have, each with the reason.
    :ivar steps: what is left to do by hand, in order.
    """

    path: str
    sha256: str = ""
    edits: list[dict[str, Any]] = field(default_factory=list)
    mentions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    harvest_before: list[dict[str, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)


def readdress(path: str, dest: str, wanted: Wanted, write: bool = True) -> Readdressed:
    """Writes ``dest`` and ``dest.sha256``, whole or not at all; the archive itself stays.

    :param write: False plans and judges only.
    :raises JujuDrError: the archive is refused, or not of Juju 1.x, or ``dest`` is there, or a document would name an old
        address still.
    """
    info = inspect(path)
    if info.generation not in ENVIRONMENTS:
        raise JujuDrError(
            f"{path} is of Juju {info.version}, which is restored onto a host", "Restore it with restore.yml instead"
        )
    if os.path.lexists(dest):
        raise JujuDrError(f"{dest} exists already", "Name a file that does not exist")
    archived = Archived(path)
    move = move_from(archived, wanted.machine_id, wanted.address, wanted.cidr, wanted.instance_id)
    planned = plan_documents(archived, wanted)
    by_document: dict[tuple[str, Any], list[Edit]] = {}
    for edit in planned.edits:
        by_document.setdefault((edit.collection, edit.document_id), []).append(edit)
    after = _After(archived, by_document)
    judge(after, read_documents(after, move.model_uuid), move, info.state_port)
    files = plan_files(archived.agents, wanted.machine_id, wanted.address)
    everything = Rewritten(planned.edits, files=[edit for _, _, edits in files for edit in edits])
    result = Readdressed(dest, edits=everything.to_json()["edits"], harvest_before=planned.harvest_before)
    result.steps = steps(info, wanted, planned.harvest_before)
    if write:
        texts = {name.lstrip("/"): text for name, text, _ in files}
        _write(Path(path), Path(dest), _Filter(move, by_document, after, texts, result))
    return result


class _After:
    """The archive's documents after their edits."""

    def __init__(self, archived: Archived, edits: Mapping[tuple[str, Any], list[Edit]]) -> None:
        self._archived, self._edits = archived, edits

    def find(self, collection: str) -> Iterable[dict[str, Any]]:
        for document in self._archived.find(collection):
            new = edited(document, self._edits.get((collection, document["_id"]), ()))
            if new is not None:
                yield new


class _Filter:
    """What becomes of each file of the archive."""

    def __init__(
        self,
        move: Move,
        edits: Mapping[tuple[str, Any], list[Edit]],
        after: _After,
        files: Mapping[str, str],
        result: Readdressed,
    ) -> None:
        self._edits, self._files, self._result = edits, files, result
        self._collections = {collection for collection, _ in edits}
        old = sorted(move.old_addresses | move.lost_addresses)
        self._sought = pattern(old) if old else None
        self._lost: Lost = lost_state_servers(move.lost_addresses, move.model_uuid, after.find("machines"), after.find("units"))

    def member(self, info: tarfile.TarInfo, content: IO[bytes] | None, scratch: Path) -> IO[bytes] | None:
        """The content that the member has in the new archive; its size is set in ``info``.

        :param scratch: folder for files without a name.
        """
        if content is None:
            return None
        if info.name == ROOT:
            new: IO[bytes] = self._root(content, scratch)
        elif info.name.startswith(PREFIX) and info.name.endswith(".bson") and not info.name.startswith(_USERS):
            new = self._collection(info.name, content, scratch)
        else:
            return content
        info.size = new.tell()
        new.seek(0)
        return new

    def _collection(self, name: str, content: IO[bytes], scratch: Path) -> IO[bytes]:
        database, _, collection = name[len(PREFIX) : -len(".bson")].partition("/")
        mine = database == "juju" and collection in self._collections
        spooled = tempfile.TemporaryFile(dir=str(scratch))  # noqa: SIM115
        for raw in split(content, name):  # type: ignore[arg-type]
            new = raw
            if mine:
                document = bson.decode(raw)
                edits = self._edits.get((collection, document["_id"]))
                if edits:
                    changed = edited(document, edits)
                    new = bson.encode(changed) if changed is not None else b""
            if new and self._sought is not None:
                self._refuse_live(database, collection, new)
            spooled.write(new)
        return spooled

    def _refuse_live(self, database: str, collection: str, raw: bytes) -> None:
        assert self._sought is not None
        for finding in in_document(database, collection, raw, self._sought, self._lost):
            if finding.kind == "live":
                raise JujuDrError(f"{finding} would still name an old state server", "Report this as a missing rule of juju-dr")

    def _root(self, content: IO[bytes], scratch: Path) -> IO[bytes]:
        spooled = tempfile.TemporaryFile(dir=str(scratch))  # noqa: SIM115
        with tarfile.open(fileobj=content, mode="r|") as old, tarfile.open(
            fileobj=spooled, mode="w", format=tarfile.GNU_FORMAT
        ) as new:
            for info in old:
                stream = old.extractfile(info) if info.isreg() else None
                if stream is not None and info.size <= TEXT_LIMIT:
                    text = stream.read()
                    if info.name in self._files:
                        text = self._files[info.name].encode("utf-8")
                    elif self._sought is not None and self._sought.search(text):
                        self._result.mentions.append("/" + info.name)
                    info.size = len(text)
                    new.addfile(info, io.BytesIO(text))
                else:
                    new.addfile(info, stream)
        return spooled


def _write(path: Path, dest: Path, filtered: _Filter) -> None:
    partial = dest.with_name(dest.name + ".partial")
    with contextlib.ExitStack() as undo:
        raw = open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+b")  # noqa: SIM115
        undo.callback(partial.unlink)
        undo.callback(raw.close)
        with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0, filename="") as packed:
            with tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as new:
                for info, content in _members(path):
                    if info.name == OPLOG:
                        filtered._result.left_out.append("dump/oplog.bson: replayed, it could bring old addresses back")
                        continue
                    new.addfile(info, filtered.member(info, content, dest.parent))
        raw.flush()
        os.fsync(raw.fileno())
        raw.seek(0)
        digest = hashlib.sha256()
        for block in iter(lambda: raw.read(2**20), b""):
            digest.update(block)
        filtered._result.sha256 = digest.hexdigest()
        write_whole(dest.with_name(dest.name + ".sha256"), f"{digest.hexdigest()}  {dest.name}\n")
        os.replace(partial, dest)
        undo.pop_all()
        raw.close()


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    with tarfile.open(path, "r|gz") as old:
        for info in old:
            yield info, old.extractfile(info) if info.isreg() else None


def steps(info: ArchiveInfo, wanted: Wanted, harvest_before: Iterable[Mapping[str, str]]) -> list[str]:
    """What an operator does with the new archive, as that Juju's own restore did it."""
    minor, machine = int(info.version.split(".")[1]), wanted.machine_id
    host = f"{wanted.address}:{info.state_port}"
    key = SAFE_MODE_KEY if minor <= 20 else HARVEST_KEY
    listed = [
        f"Make sure that no old state server ({', '.join(info.addresses)}) runs any more.",
        f"Prepare a host of the same Ubuntu series at {wanted.address} with MongoDB 2.4 (juju-mongodb) and Juju's services "
        f"juju-db and jujud-machine-{machine}, both stopped; unpack the new archive there as root.",
        "Move /var/lib/juju aside; tar -C / -xpf juju-backup/root.tar; mkdir -p /var/lib/juju/db",
        "/usr/lib/juju/bin/mongorestore --drop --dbpath /var/lib/juju/db juju-backup/dump; then start juju-db.",
    ]
    if minor >= 19:
        listed.append(
            f"As Mongo user admin (its password is oldpassword in agent.conf), on localhost:{info.state_port}: "
            f'rs.initiate({{_id: "juju", version: 1, members: [{{_id: 1, host: "{host}", '
            f'tags: {{"juju-machine-id": "{machine}"}}}}]}}), and wait until rs.isMaster().ismaster is true.'
        )
    listed += [
        f"Start jujud-machine-{machine}; its log is /var/log/juju/machine-{machine}.log.",
        "On every other machine, put this address into apiaddresses and stateaddresses of /var/lib/juju/agents/*/agent.conf, "
        "and restart its jujud services.",
        f"When juju status is as you expect, set {key} back: "
        + ", ".join(f"{one['model']} had {one['before']}" for one in harvest_before)
        + ".",
    ]
    return listed
