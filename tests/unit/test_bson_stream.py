from __future__ import annotations

import io

import bson
import pytest
from ansible.module_utils.juju_dr.bson_stream import BsonCut, count, split
from hypothesis import given
from hypothesis import strategies as st

DOCUMENTS = st.lists(
    st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=5), st.integers(-(2**31), 2**31)),
    max_size=6,
)


@given(DOCUMENTS)
def test_documents_come_out_as_they_went_in(documents: list[dict[str, int]]) -> None:
    raw = [bson.encode(one) for one in documents]
    assert list(split(io.BytesIO(b"".join(raw)))) == raw
    assert count(io.BytesIO(b"".join(raw))) == (len(raw), sum(map(len, raw)))


def test_a_cut_at_any_length_is_seen() -> None:
    raw = [bson.encode({"_id": number, "word": "x" * number}) for number in range(4)]
    stream = b"".join(raw)
    ends = {sum(map(len, raw[:number])) for number in range(5)}
    for length in range(len(stream)):
        if length in ends:
            assert count(io.BytesIO(stream[:length]))[1] == length
        else:
            with pytest.raises(BsonCut):
                count(io.BytesIO(stream[:length]))


@pytest.mark.parametrize("junk", [b"\x04\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x05\x00\x00\x00\x01", b"\x00"])
def test_junk_is_named_with_its_offset(junk: bytes) -> None:
    good = bson.encode({"a": 1})
    with pytest.raises(BsonCut) as seen:
        count(io.BytesIO(good + junk), "machines.bson")
    assert seen.value.offset == len(good)
    assert f"machines.bson is damaged at byte {len(good)}" in str(seen.value)
