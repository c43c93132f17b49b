from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ansible.module_utils.juju_dr.ahead import Ahead
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(1, 200))
def test_what_comes_out_is_what_went_in(items: list[bytes], limit: int) -> None:
    with Ahead(iter(items), len, limit) as ahead:
        assert list(ahead) == items


def test_no_more_is_held_than_was_told() -> None:
    fetched = 0
    enough = threading.Event()

    def source() -> Iterator[bytes]:
        nonlocal fetched
        for _ in range(100):
            fetched += 1
            if fetched == 4:
                enough.set()
            yield b"x" * 10

    with Ahead(source(), len, 30) as ahead:
        assert enough.wait(10)
        assert next(ahead) == b"x" * 10
        assert fetched <= 5
    # Leaving it ends the thread, however much was left.
    assert fetched < 100


def test_an_error_comes_after_all_that_was_before_it_and_ends_it() -> None:
    def source() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    with Ahead(source(), len, 100) as ahead:
        assert next(ahead) == b"one"
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
