from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.juju_dr import repoint_remote
from ansible.module_utils.juju_dr.agent_conf import drop_mapping_keys, parse, replace_sequence
from ansible.module_utils.juju_dr.errors import JujuDrError
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"


def all_confs() -> list[tuple[str, str]]:
    found = []
    for archive in sorted(FIXTURES.glob("*-files.tar.gz")):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.name.endswith("/agent.conf"):
                    content = tar.extractfile(member)
                    assert content is not None
                    found.append((f"{archive.name}:{member.name}", content.read().decode()))
    return found


CONFS = all_confs()


@pytest.mark.parametrize("text", [text for _, text in CONFS], ids=[name for name, _ in CONFS])
def test_every_value_is_read_as_yaml_reads_it(text: str) -> None:
    conf, expected = parse(text), yaml.safe_load(text)
    for key, value in expected.items():
        if isinstance(value, list):
            assert conf.sequence(key) == value
        elif isinstance(value, dict):
            assert conf.mapping(key) == {name: str(item) for name, item in value.items()}
        else:
            assert conf.scalar(key) == str(value), key


@pytest.mark.parametrize("text", [text for _, text in CONFS], ids=[name for name, _ in CONFS])
def test_an_edit_changes_its_key_and_nothing_else(text: str) -> None:
    edited = replace_sequence(text, "apiaddresses", ["192.0.2.1:17070", "192.0.2.2:17070"])
    expected = {**yaml.safe_load(text), "apiaddresses": ["192.0.2.1:17070", "192.0.2.2:17070"]}
    assert yaml.safe_load(edited) == expected
    assert replace_sequence(edited, "apiaddresses", yaml.safe_load(text)["apiaddresses"]) == text


@pytest.mark.parametrize("text", [text for _, text in CONFS], ids=[name for name, _ in CONFS])
def test_what_workload_machines_are_told_is_the_same_edit(text: str) -> None:
    addresses = ["192.0.2.1:17070"]
    assert repoint_remote.with_addresses(text, addresses) == replace_sequence(text, "apiaddresses", addresses)


@pytest.mark.parametrize("text", [text for _, text in CONFS], ids=[name for name, _ in CONFS])
def test_dropping_keys_leaves_the_others(text: str) -> None:
    edited = drop_mapping_keys(text, "values", ["deployed-units", "stopped-units"])
    values = yaml.safe_load(text)["values"]
    kept = {key: value for key, value in values.items() if key not in ("deployed-units", "stopped-units")}
    assert yaml.safe_load(edited) == {**yaml.safe_load(text), "values": kept}


WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)


@given(st.lists(WORDS, max_size=5), st.dictionaries(WORDS, WORDS, max_size=4))
def test_any_addresses_and_values_survive(addresses: list[str], values: dict[str, str]) -> None:
    lines = ["tag: machine-0", "# a comment", "apiaddresses:", "- old:1", "values:" if values else "values: {}"]
    text = "\n".join([*lines, *(f"  {key}: {value}" for key, value in values.items()), "apiport: 17070"]) + "\n"
    conf = parse(replace_sequence(text, "apiaddresses", addresses))
    assert conf.sequence("apiaddresses") == addresses
    assert conf.mapping("values") == values
    assert conf.scalar("apiport") == "17070"
    assert "# a comment" in replace_sequence(text, "apiaddresses", addresses)


@pytest.mark.parametrize("text", ["", "hello", "tag: machine-0\n", "apiaddresses:\n- a:1\n"])
def test_what_is_no_agent_conf_is_refused(text: str) -> None:
    with pytest.raises(JujuDrError, match=r"no agent\.conf"):
        parse(text)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(JujuDrError, match="no statepassword"):
        parse("tag: machine-0\napiaddresses:\n- a:1\n").require("statepassword")
