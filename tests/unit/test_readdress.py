"""An archive of Juju 1.x made anew: it names the new address, and nothing else of it changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.archive import inspect
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.readdress import readdress
from ansible.module_utils.juju_dr.rewrite import Edit, edited
from ansible.module_utils.juju_dr.rewriting import Wanted, plan_from_archive
from hypothesis import given
from hypothesis import strategies as st

from lab import fixtures
from lab.foreign import STATE_SERVERS, Environment, api, plugin
from lab.modules import call
from tests.unit.test_foreign import changed, rewritten
from tests.unit.test_module_glue import ARCHIVE
from tests.unit.test_rules import Database, applied

NEW = "10.99.0.21"
CASES = [
    (Environment("1.18.4"), "plugin", 0),
    (Environment("1.20.14", 3), "plugin", 0),
    (Environment("1.22.9", 3), "api", 1),
    (Environment("1.25.10", provider="manual", hosted=True), "api", 0),
]


def made(path: Path, environment: Environment, by: str, machine: int) -> Path:
    return plugin(path, environment) if by == "plugin" else api(path, environment, machine)


@pytest.fixture(params=CASES, ids=lambda one: str(one[0].version))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, str]:
    """The archive, the new one, and the machine."""
    old, new = made(tmp_path / "old.tgz", *request.param), tmp_path / "new.tgz"
    readdress(str(old), str(new), Wanted(str(request.param[2]), NEW))
    return old, new, str(request.param[2])


def test_the_new_archive_is_of_the_same_environment_at_the_new_address(case: tuple[Path, Path, str]) -> None:
    old, new, machine = case
    before, after = inspect(str(old)), inspect(str(new))
    for name in ("format", "controller_uuid", "machine_id", "version", "generation", "ca_cert"):
        assert getattr(after, name) == getattr(before, name)
    assert after.addresses == [NEW]
    assert [one["machine_id"] for one in after.controllers] == [machine]
    planned = plan_from_archive(str(new), Wanted(machine, NEW)).to_json()
    assert planned["edits"] == []
    assert not any("sha256" in sentence for sentence in after.unproven)
    assert new.stat().st_mode & 0o777 == 0o600


def test_only_what_the_plan_names_is_another(case: tuple[Path, Path, str]) -> None:
    old, new, machine = case
    before, after = (fixtures.read_tar(path.read_bytes()) for path in (old, new))
    named = {edit["where"].partition(" ")[0] for edit in plan_from_archive(str(old), Wanted(machine, NEW)).to_json()["edits"]}
    assert set(before) - set(after) == {"juju-backup/dump/oplog.bson"} & set(before)
    for name, (info, content) in after.items():
        assert (info.mode, info.uid, info.type) == (before[name][0].mode, before[name][0].uid, before[name][0].type)
        edit = name.startswith("juju-backup/dump/juju/") and Path(name).stem in named
        if not edit and name != "juju-backup/root.tar":
            assert content == before[name][1]
        if edit and name.endswith(".bson"):
            assert content != before[name][1]
            assert len(bson.decode_all(content)) == len(bson.decode_all(before[name][1]))
    roots = [fixtures.read_tar(files["juju-backup/root.tar"][1], "r") for files in (before, after)]
    assert list(roots[0]) == list(roots[1])
    for name, (info, content) in roots[1].items():
        assert (info.mode, info.linkname) == (roots[0][name][0].mode, roots[0][name][0].linkname)
        if not name.endswith("agent.conf"):
            assert content == roots[0][name][1]


def test_what_is_left_by_hand_is_said(tmp_path: Path) -> None:
    for environment, by, machine in CASES:
        path = made(tmp_path / environment.version, environment, by, machine)
        done = readdress(str(path), str(tmp_path / f"new-{environment.version}"), Wanted(str(machine), NEW))
        steps = " ".join(done.steps)
        assert f"Start jujud-machine-{machine}" in steps
        assert STATE_SERVERS[environment.servers - 1] in steps
        assert ("provisioner-safe-mode back: prod had false" in steps) == (environment.minor <= 20)
        assert ("had destroyed" in steps) == (environment.minor > 20)
        assert [e["rule"] for e in done.edits].count("agent-conf-addresses") >= (environment.servers > 1)
        assert ("rs.initiate" in steps) == (environment.minor >= 20)
        assert done.mentions == ["/etc/rsyslog.d/25-juju.conf"]
        assert bool(done.left_out) == (by == "api")
        content = (tmp_path / f"new-{environment.version}").read_bytes()
        assert done.sha256 == hashlib.sha256(content).hexdigest()
    assert parse(agent(tmp_path / "new-1.20.14")).sequence("stateaddresses") == [f"{NEW}:37017"]


def agent(path: Path) -> str:
    root = fixtures.read_tar(fixtures.read_tar(path.read_bytes())["juju-backup/root.tar"][1], "r")
    return root["var/lib/juju/agents/machine-0/agent.conf"][1].decode()


def test_a_place_that_no_rule_knows_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    path = changed(plugin(tmp_path / "old.tgz", Environment("1.20.14")), rewritten("charms", where=STATE_SERVERS[0]))
    with pytest.raises(JujuDrError, match=r"juju\.charms cs:trusty/blog-1 where would still name"):
        readdress(path, str(tmp_path / "new.tgz"), Wanted("0", NEW))
    assert [one.name for one in tmp_path.iterdir()] == ["old.tgz"]


def test_what_is_refused(tmp_path: Path) -> None:
    path = str(plugin(tmp_path / "old.tgz", Environment("1.20.14", 3)))
    with pytest.raises(JujuDrError, match=r"is restored onto a host. Restore it with restore.yml"):
        readdress(ARCHIVE, str(tmp_path / "new.tgz"), Wanted("0", NEW))
    with pytest.raises(JujuDrError, match="exists already"):
        readdress(path, path, Wanted("0", NEW))
    # An address of the machine itself says nothing to the others.
    bad = changed(Path(path), rewritten("machines", addresses=[], machineaddresses=[{"value": NEW, "networkscope": "x"}]))
    assert readdress(bad, str(tmp_path / "new.tgz"), Wanted("0", NEW), write=False).sha256 == ""
    assert not (tmp_path / "new.tgz").exists()


def test_the_module_shows_what_it_would_do_and_does_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path, new = plugin(tmp_path / "old.tgz", Environment("1.20.14", 3)), tmp_path / "new.tgz"
    arguments: dict[str, Any] = {"path": str(path), "dest": str(new), "address": NEW, "instance_id": "i-1"}
    planned = call(capsys, "juju_archive_readdress", **arguments, _ansible_check_mode=True)
    assert planned["changed"]
    assert not new.exists()
    assert 'machines 0 instanceid: "i-1"' in planned["diff"]["after"]
    done = call(capsys, "juju_archive_readdress", **arguments)
    assert (done["edits"], done["path"]) == (planned["edits"], str(new))
    assert new.exists()
    assert "exists already" in call(capsys, "juju_archive_readdress", **arguments)["msg"]
    assert "statepassword-of" not in json.dumps(done)


@given(
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers())),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from(["set", "unset"]))),
)
def test_one_document_is_edited_as_a_database_is(fields: dict[str, Any], wanted: list[tuple[str, str, str]]) -> None:
    document = {"_id": 1, "a": {}, "b": {}, "c": {}, **fields}
    kept = json.dumps(document)
    edits = [Edit("r", "things", 1, kind, f"{one}.{two}", None, 7) for one, two, kind in dict.fromkeys(wanted)]
    present: dict[str, dict[str, Any]] = json.loads(kept)
    database: Database = {"things": [present]}
    for edit in edits:
        # The other way to apply edits takes a field away only where it is.
        one, two = edit.field.split(".")
        if edit.kind == "set" or two in database["things"][0][one]:
            database = applied(database, [edit])
    assert edited(document, edits) == database["things"][0]
    assert json.dumps(document) == kept
    assert edited(document, [Edit("r", "things", 1, "delete", "", "there", "gone")]) is None
