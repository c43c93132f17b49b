"""What is read without decoding is what pymongo's own raw batches read."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.juju_dr import raw_find
from ansible.module_utils.juju_dr.raw_find import find_raw
from pymongo import MongoClient
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

Client = MongoClient[dict[str, Any]]


def plain(client: Client, name: str) -> bytes:
    batches: Any = client.juju[name].find_raw_batches({})
    return b"".join(batches)


@pytest.mark.parametrize("concern", ["local", "majority"])
def test_it_reads_what_the_plain_way_reads(plain_replica_set: Client, monkeypatch: pytest.MonkeyPatch, concern: str) -> None:
    monkeypatch.setattr(raw_find, "BATCH_BYTES", 20_000)
    # What a majority does not have yet is not read by that concern.
    database = plain_replica_set.get_database("juju", write_concern=WriteConcern("majority"))
    database.small.insert_many([{"_id": n, "x": "y" * (n % 90)} for n in range(12_345)])
    database.large.insert_many([{"_id": n, "x": b"z" * 3_000_000} for n in range(13)])
    database.create_collection("empty")
    for name in ("small", "large", "empty"):
        found = list(find_raw(database, name, concern))
        assert b"".join(batch for batch, _ in found) == plain(plain_replica_set, name)
        assert sum(number for _, number in found) == database[name].count_documents({})
    assert list(find_raw(database, "never there", concern)) == []


def test_batches_are_about_as_large_whatever_the_documents_are(standalone: Client) -> None:
    """Sixteen megabytes a reply, as the server would send of large documents, cost memory and page faults."""
    standalone.juju.chunks.insert_many([{"_id": n, "data": b"x" * 255 * 1024} for n in range(40)])
    standalone.juju.small.insert_many([{"_id": n, "data": "x" * 200} for n in range(20_000)])
    for name in ("chunks", "small"):
        sizes = [len(batch) for batch, _ in find_raw(standalone.juju, name, "local")]
        assert len(sizes) > 3
        assert max(sizes) <= 1.1 * raw_find.BATCH_BYTES


def test_a_dump_that_is_given_up_leaves_no_cursor(standalone: Client) -> None:
    standalone.juju.machines.insert_many([{"_id": n, "x": "y" * 5000} for n in range(2000)])
    reading: Any = find_raw(standalone.juju, "machines", "local")
    next(reading)
    assert standalone.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"] == 1
    reading.close()
    assert standalone.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"] == 0


def test_a_collection_dropped_meanwhile_is_an_error(standalone: Client) -> None:
    standalone.juju.machines.insert_many([{"_id": n, "x": "y" * 5000} for n in range(2000)])
    reading: Any = find_raw(standalone.juju, "machines", "local")
    next(reading)
    standalone.juju.machines.drop()
    with pytest.raises(OperationFailure):
        list(reading)
