"""The load at speed puts in the database what a plain loop over the documents would."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr import load as engine
from ansible.module_utils.juju_dr.bson_stream import split
from ansible.module_utils.juju_dr.collection_metadata import format_metadata
from ansible.module_utils.juju_dr.dump import dump
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.folder import Folder
from ansible.module_utils.juju_dr.load import load, sources
from ansible.module_utils.juju_dr.progress import Progress, State, Unattended
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

Client = MongoClient[dict[str, Any]]


def plain_load(client: Client, source: Path) -> None:
    """One document after the other, one index after the other, as anybody would write it."""
    for one in sources(source / "dump"):
        database = client[one.database]
        options = {key: value for key, value in one.options.items() if key != "autoIndexId"}
        database.command({"create": one.collection, **options})
        with one.path.open("rb") as stream:
            for raw in split(stream):
                database.command({"insert": one.collection, "documents": [RawBSONDocument(raw)]})
        for index in one.indexes:
            if index["name"] != "_id_":
                wanted = {key: value for key, value in index.items() if key != "ns"}
                database.command({"createIndexes": one.collection, "indexes": [wanted]})


def written(folder: Path) -> dict[str, Any]:
    """What a dump holds: documents by their bytes, metadata without the collection's identity."""
    found: dict[str, Any] = {}
    for path in sorted((folder / "dump").rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".bson":
            with path.open("rb") as stream:
                found[name] = list(split(stream))
        elif path.name.endswith(".metadata.json"):
            metadata = re.sub(rb'"uuid":"[0-9a-f]{32}"', b"", path.read_bytes())
            found[name] = metadata
    return found


def emptied(client: Client) -> None:
    for name in set(client.list_database_names()) - {"admin", "config", "local"}:
        client.drop_database(name)


@pytest.mark.parametrize("run_bytes", [engine.RUN_BYTES, 2000])
def test_the_fast_path_loads_what_the_plain_one_loads(
    standalone: Client, fixture_archive: Path, tmp_path: Path, run_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (fixture_archive / "dump" / "oplog.bson").unlink()
    monkeypatch.setattr(engine, "RUN_BYTES", run_bytes)
    plain_load(standalone, fixture_archive)
    dump(standalone, Folder(tmp_path / "plain"), "offline")
    emptied(standalone)
    report = load(standalone, str(fixture_archive), [])
    dump(standalone, Folder(tmp_path / "fast"), "offline")
    plain, fast = written(tmp_path / "plain"), written(tmp_path / "fast")
    if run_bytes == 2000:
        # Several workers fill one collection: the documents are the same, in the order in which their runs arrived.
        plain, fast = ({n: sorted(v) if isinstance(v, list) else v for n, v in one.items()} for one in (plain, fast))
    assert fast == plain
    assert {one["ns"]: one["documents"] for one in report.collections} == {
        one.ns: len(list(split(one.path.open("rb")))) for one in sources(fixture_archive / "dump")
    }


def make_dump(folder: Path, collection: str, documents: list[dict[str, Any]], **options: Any) -> Path:
    target = folder / "dump" / "juju"
    target.mkdir(parents=True)
    indexes = [{"v": 2, "key": {"_id": 1}, "name": "_id_"}, {"v": 2, "key": {"n": 1}, "name": "n_1", "unique": True}]
    (target / f"{collection}.metadata.json").write_text(format_metadata(collection, options, indexes, "0" * 32))
    (target / f"{collection}.bson").write_bytes(b"".join(bson.encode(one) for one in documents))
    return folder


def test_a_capped_collection_keeps_its_order_over_many_runs(
    standalone: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RUN_BYTES", 500)
    documents = [{"_id": -n, "n": n} for n in range(3000)]
    load(standalone, str(make_dump(tmp_path / "x", "txns.log", documents, capped=True, size=10_000_000)), [])
    assert list(standalone.juju["txns.log"].find()) == documents
    assert standalone.juju["txns.log"].options()["capped"]


def test_documents_as_large_as_the_server_takes_are_loaded(standalone: Client, tmp_path: Path) -> None:
    largest = 16 * 1024 * 1024 - len(bson.encode({"_id": 1, "n": 1, "x": b""}))
    documents: list[dict[str, Any]] = [
        {"_id": 0, "n": 0},
        {"_id": 1, "n": 1, "x": b"y" * largest},
        {"_id": 2, "n": 2, "x": b"z" * 900_000},
    ]
    load(standalone, str(make_dump(tmp_path / "x", "blobs", documents)), [])
    assert list(standalone.juju.blobs.find().sort("_id")) == documents


def test_a_document_that_the_server_refuses_is_told_with_its_collection(standalone: Client, tmp_path: Path) -> None:
    documents = [{"_id": n % 900, "n": n} for n in range(1000)]
    with pytest.raises(JujuDrError, match=r"MongoDB took 900 of 1000 documents of juju\.twice: E11000 duplicate key"):
        load(standalone, str(make_dump(tmp_path / "x", "twice", documents)), [])


def test_an_index_that_the_documents_break_is_told(standalone: Client, tmp_path: Path) -> None:
    documents = [{"_id": n, "n": n % 900} for n in range(1000)]
    with pytest.raises(JujuDrError, match=r"MongoDB refused the load: .*E11000 duplicate key.*n_1"):
        load(standalone, str(make_dump(tmp_path / "x", "twice", documents)), [])


def test_documents_that_got_lost_on_the_way_are_told(
    standalone: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that the server does not confirm is the last net."""
    insert = engine._insert

    def losing(client: Client, one: engine.Source, documents: bytes, number: int, may_be_twice: bool) -> int:
        twice = insert(client, one, documents, number, may_be_twice)
        client[one.database][one.collection].delete_one({})
        return twice

    monkeypatch.setattr(engine, "_insert", losing)
    with pytest.raises(JujuDrError, match=r"juju\.few holds 9 documents after loading 10"):
        load(standalone, str(make_dump(tmp_path / "x", "few", [{"_id": n, "n": n} for n in range(10)])), [])


def test_after_a_failure_no_further_run_is_sent(standalone: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RUN_BYTES", 200)
    sent: list[int] = []

    def refusing(client: Client, one: engine.Source, documents: bytes, number: int, may_be_twice: bool) -> None:
        sent.append(number)
        raise JujuDrError("no", "never")

    monkeypatch.setattr(engine, "_insert", refusing)
    with pytest.raises(JujuDrError, match="no"):
        load(standalone, str(make_dump(tmp_path / "x", "many", [{"_id": n, "n": n} for n in range(1000)])), [])
    assert 1 <= len(sent) <= engine.WORKERS


def test_a_dump_without_metadata_or_collections_is_refused(standalone: Client, tmp_path: Path) -> None:
    folder = make_dump(tmp_path / "x", "few", [{"_id": 1, "n": 1}])
    (folder / "dump/juju/few.metadata.json").unlink()
    with pytest.raises(JujuDrError, match=r"no few\.metadata\.json"):
        load(standalone, str(folder), [])
    (folder / "dump/juju/few.bson").unlink()
    with pytest.raises(JujuDrError, match="holds no dump"):
        load(standalone, str(folder), [])


def test_progress_counts_every_document_and_ends_a_load_that_nobody_waits_for(
    standalone: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "RUN_BYTES", 200)
    folder = make_dump(tmp_path / "x", "many", [{"_id": n, "n": n} for n in range(1000)])
    told: list[State] = []
    ticks = itertools.count(step=10)
    report = load(standalone, str(folder), [], Progress(told.append, lambda: float(next(ticks))))
    assert (told[-1].documents, told[-1].bytes) == (1000, report.bytes)
    assert told[-1].of_bytes == report.bytes
    assert "indexes of juju.many" in [state.doing for state in told]

    def gone(state: State) -> None:
        if state.documents:
            raise Unattended("Nobody asks", "Run again")

    emptied(standalone)
    with pytest.raises(Unattended):
        load(standalone, str(folder), [], Progress(gone, lambda: float(next(ticks))))
    assert standalone.juju.many.count_documents({}) < 1000
