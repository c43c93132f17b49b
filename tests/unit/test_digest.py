"""A digest reckoned by another thread is that of the same bytes in the same order."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.juju_dr.digest import Digest
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 60_000)), max_size=12), st.integers(0, 12))
def test_pieces_of_any_size(pieces: list[tuple[bytes, int]], asked_after: int) -> None:
    plain = hashlib.sha256()
    with ThreadPoolExecutor(1) as worker:
        digest = Digest(worker)
        for number, (content, times) in enumerate(pieces):
            plain.update(content * times)
            digest.update(content * times)
            if number == asked_after:
                assert digest.hexdigest() == plain.hexdigest()
        assert digest.hexdigest() == plain.hexdigest()
