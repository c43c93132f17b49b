"""Replies of the server are cut into documents without decoding them."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.raw_find import documents_of
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st


def cursor(documents: list[dict[str, Any]], name: str = "firstBatch", **before: Any) -> bytes:
    return bson.encode({**before, name: documents, "id": Int64(7), "ns": "juju.machines"})


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
