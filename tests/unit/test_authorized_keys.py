from __future__ import annotations

from ansible.module_utils.juju_dr.authorized_keys import merged
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.lists(st.sampled_from(["", "one", "two", "three"])).map(lambda lines: "".join(f"{line}\n" for line in lines))


@given(TEXTS, TEXTS)
def test_none_is_lost_and_none_is_added_twice(own: str, archived: str) -> None:
    both = merged(own, archived)
    assert both.startswith(own)
    assert set(both.split()) == set(own.split()) | set(archived.split())
    assert len(both.split()) == len(own.split()) + len(set(both.split()) - set(own.split()))
    assert merged(both, archived) == both


def test_a_last_line_without_its_end_is_ended() -> None:
    assert merged("one", "two\n") == "one\ntwo\n"
    assert merged("one", "one\n") == "one"
