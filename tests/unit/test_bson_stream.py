from __future__ import annotations

import io
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.bson_stream import BsonCut, raw_documents, runs, split
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


def test_a_cut_at_any_length_is_seen() -> None:
    raw = [bson.encode({"_id": number, "word": "x" * number}) for number in range(4)]
    stream = b"".join(raw)
    ends = {sum(map(len, raw[:number])) for number in range(5)}
    for length in range(len(stream)):
        if length in ends:
            assert sum(map(len, split(io.BytesIO(stream[:length])))) == length
        else:
            with pytest.raises(BsonCut):
                list(split(io.BytesIO(stream[:length])))


@pytest.mark.parametrize("junk", [b"\x04\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x05\x00\x00\x00\x01", b"\x00"])
def test_junk_is_named_with_its_offset(junk: bytes) -> None:
    good = bson.encode({"a": 1})
    with pytest.raises(BsonCut) as seen:
        list(split(io.BytesIO(good + junk), "machines.bson"))
    assert seen.value.offset == len(good)
    assert f"machines.bson is damaged at byte {len(good)}" in str(seen.value)


class Scant(io.BytesIO):
    """Gives no more than so many bytes at once."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(content)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._most if size is None or size < 0 else min(size, self._most))


@given(st.lists(st.binary(max_size=200), max_size=40), st.integers(1, 900), st.integers(1, 1000))
def test_runs_hold_the_same_documents_in_the_same_order(contents: list[bytes], target: int, most: int) -> None:
    documents = [bson.encode({"_id": n, "x": content}) for n, content in enumerate(contents)]
    found = list(runs(Scant(b"".join(documents), most), target))
    assert [raw for run, _ in found for raw in split(io.BytesIO(run))] == documents
    assert [raw for run, _ in found for raw in raw_documents(run)] == documents
    for run, number in found:
        assert number == len(list(split(io.BytesIO(run))))
        assert number == 1 or len(run) <= target


@given(st.data())
def test_runs_refuse_what_split_refuses_at_the_same_place(data: st.DataObject) -> None:
    whole = bytearray(b"".join(bson.encode({"_id": n, "x": "y" * n}) for n in range(12)))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(1, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    target = data.draw(st.integers(1, 2 * len(whole)))

    def first_bad(read: Any) -> int | None:
        try:
            list(read(io.BytesIO(bytes(whole))))
        except BsonCut as error:
            return error.offset
        return None

    assert first_bad(lambda stream: runs(stream, target)) == first_bad(split)
