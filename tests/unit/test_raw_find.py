"""Replies of the server are cut into documents without decoding them."""

from __future__ import annotations

import struct
from typing import Any, Iterator

import bson
import pytest
from ansible.module_utils.juju_dr import raw_find
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.raw_find import documents_of, one_by_one
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st


def cursor(documents: list[dict[str, Any]], name: str = "firstBatch", **before: Any) -> bytes:
    return bson.encode({**before, name: documents, "id": Int64(7), "ns": "juju.machines"})


@pytest.fixture(params=["at once", "one by one"], autouse=True, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """In C where pymongo has it, and as older ones do."""
    joined = raw_find._joined
    if request.param == "one by one":
        raw_find._joined = None
    yield
    raw_find._joined = joined


@given(st.lists(st.binary(max_size=50), max_size=130), st.sampled_from(["firstBatch", "nextBatch"]))
def test_the_documents_of_a_reply_end_to_end(contents: list[bytes], name: str) -> None:
    documents = [{"_id": n, "x": content} for n, content in enumerate(contents)]
    raw, number, rest = documents_of(cursor(documents, name, partialResultsReturned=False), name)
    assert raw == b"".join(bson.encode(one) for one in documents)
    assert (number, rest["id"], rest["ns"]) == (len(documents), 7, "juju.machines")


@pytest.mark.parametrize("number", [1, 9, 10, 11, 99, 100, 101, 999, 1000, 1001, 10_001])
def test_their_numbers_are_text_of_any_length(number: int) -> None:
    documents = [{"_id": n} for n in range(number)]
    assert documents_of(cursor(documents), "firstBatch")[:2] == (b"".join(map(bson.encode, documents)), number)


def test_what_is_no_batch_of_documents_is_refused() -> None:
    with pytest.raises(JujuDrError, match="no nextBatch"):
        documents_of(cursor([]), "nextBatch")
    with pytest.raises(JujuDrError, match="something else than documents"):
        documents_of(bson.encode({"firstBatch": [1, 2], "id": Int64(0)}), "firstBatch")
    whole = bytearray(cursor([{"_id": 1}]))
    at = whole.index(b"firstBatch\0") + len(b"firstBatch\0")
    # The array says that it ends a byte before its only document does.
    whole[at : at + 4] = struct.pack("<i", struct.unpack_from("<i", whole, at)[0] - 2)
    with pytest.raises(JujuDrError, match="damaged batch"):
        documents_of(bytes(whole), "firstBatch")


@given(st.lists(st.binary(max_size=20), max_size=1200))
def test_both_ways_give_the_same(contents: list[bytes]) -> None:
    reply = cursor([{"x": content} for content in contents])
    at = reply.index(b"firstBatch\0") + len(b"firstBatch\0")
    array = reply[at : at + struct.unpack_from("<i", reply, at)[0]]
    assert documents_of(reply, "firstBatch")[:2] == one_by_one(memoryview(array), "firstBatch")


def test_a_reply_numbered_in_another_way_is_refused() -> None:
    """C skips the numbers whatever they are; then they tell no count."""
    whole = bson.encode({"firstBatch": [{"_id": 1}], "id": Int64(0)})
    at = whole.index(b"firstBatch\0") + len(b"firstBatch\0")
    size, inside = struct.unpack_from("<i", whole, at)[0], whole[at + 4 :]
    odd = whole[:at] + struct.pack("<i", size + 1) + inside[:1] + b"0" + inside[1:]
    with pytest.raises(JujuDrError):
        documents_of(struct.pack("<i", len(odd)) + odd[4:], "firstBatch")
