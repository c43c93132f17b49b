"""Archives that others made: known from their content, checked as far as their format goes, and honest about the rest."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.archive import inspect
from ansible.module_utils.juju_dr.backup_metadata import format_metadata, parse
from ansible.module_utils.juju_dr.collection_metadata import parse_metadata
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.foreign import wanted
from ansible.module_utils.juju_dr.schema import GENERATIONS, generation
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from lab import fixtures
from lab.foreign import ENVIRONMENT, STATE_SERVERS, Environment, api, create_backup, plugin

UUIDS = {"2.9": "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd", "3.6": "7be169e9-f5de-42f7-858d-32d376886082"}
Change = Callable[[fixtures.Files], None]


def changed(path: Path, change: Change) -> str:
    """The archive with members changed, in place."""
    files = fixtures.read_tar(path.read_bytes())
    change(files)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, (info, content) in files.items():
            info.name, info.size = name, len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def rewritten(name: str, **values: Any) -> Change:
    """Fields of the first document of a collection replaced; None takes one away."""

    def change(files: fixtures.Files) -> None:
        key = f"juju-backup/dump/juju/{name}.bson"
        first, *others = bson.decode_all(files[key][1])
        first = {k: v for k, v in {**first, **values}.items() if v is not None}
        fixtures.put(files, key, b"".join(map(bson.encode, [first, *others])))

    return change


def said(**values: Any) -> Change:
    def change(files: fixtures.Files) -> None:
        metadata = {**json.loads(files["juju-backup/metadata.json"][1]), **values}
        fixtures.put(files, "juju-backup/metadata.json", json.dumps(metadata).encode())

    return change


def without(*names: str) -> Change:
    def change(files: fixtures.Files) -> None:
        for name in names:
            del files[f"juju-backup/{name}"]

    return change


def without_in_root(name: str) -> Change:
    def change(files: fixtures.Files) -> None:
        root = fixtures.read_tar(files["juju-backup/root.tar"][1], "r")
        del root[name]
        fixtures.put(files, "juju-backup/root.tar", fixtures.write_tar(root))

    return change


def conf(old: str, new: str) -> Change:
    def change(files: fixtures.Files) -> None:
        root = fixtures.read_tar(files["juju-backup/root.tar"][1], "r")
        name = "var/lib/juju/agents/machine-0/agent.conf"
        fixtures.put(root, name, root[name][1].decode().replace(old, new).encode())
        fixtures.put(files, "juju-backup/root.tar", fixtures.write_tar(root))

    return change


@pytest.mark.parametrize("release", ["2.9", "3.6"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_create_backup_s_formats_differ_only_in_what_they_say_of_themselves(release: str, number: int, tmp_path: Path) -> None:
    info = inspect(str(create_backup(tmp_path / "anything.bin", release, number)))
    newest = inspect(str(create_backup(tmp_path / "newest", release, 2)))
    assert info.format == f"create-backup {number}"
    assert info.controller_uuid == UUIDS[release]
    assert info.cannot_restore == ""
    for name in ("model_uuid", "machine_id", "version", "generation", "addresses", "controllers", "ca_cert", "documents"):
        assert getattr(info, name) == getattr(newest, name)
    assert any("format 0 names no controller" in sentence for sentence in info.unproven) == (number == 0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_without_root_tar_the_documents_are_read_and_a_restore_is_ruled_out(number: int, tmp_path: Path) -> None:
    info = inspect(str(create_backup(tmp_path / "x", "2.9", number, root_tar=False)))
    assert (info.controller_uuid, info.addresses) == (UUIDS["2.9"], ["10.99.0.11"])
    assert "BEGIN CERTIFICATE" in info.ca_cert
    assert info.cannot_restore.startswith("It has no root.tar")
    assert any("none of the controller's files" in sentence for sentence in info.unproven)


@pytest.mark.parametrize(
    ("environment", "known"),
    [
        (Environment("1.18.4"), "1.18-1.20"),
        (Environment("1.20.14"), "1.18-1.20"),
        (Environment("1.20.14", 3), "1.18-1.20"),
        (Environment("1.21.3"), "1.21-1.25"),
        (Environment("1.25.10", 3), "1.21-1.25"),
    ],
)
def test_the_plugin_s_archive_is_known_without_metadata(environment: Environment, known: str, tmp_path: Path) -> None:
    info = inspect(str(plugin(tmp_path / "juju-backup.tgz", environment)))
    assert (info.format, info.version, info.generation) == ("juju-backup plugin", environment.version, known)
    assert (info.controller_uuid, info.machine_id) == (ENVIRONMENT, "0")
    assert [one["machine_id"] for one in info.controllers] == [str(n) for n in range(environment.servers)]
    assert set(STATE_SERVERS[: environment.servers]) <= set(info.addresses)
    assert (info.api_port, info.state_port) == (17070, 37017)
    assert "MongoDB 2.4" in info.cannot_restore
    assert any("no metadata.json" in sentence for sentence in info.unproven)
    assert not any("blobs" in sentence or "cannot read" in sentence for sentence in info.unproven)


@pytest.mark.parametrize("version", ["1.21.3", "1.22.9", "1.24.7", "1.25.10"])
@pytest.mark.parametrize("machine", [0, 2])
def test_the_api_s_archive_says_which_machine_made_it(version: str, machine: int, tmp_path: Path) -> None:
    info = inspect(str(api(tmp_path / "x", Environment(version, 3, hosted=version == "1.25.10"), machine)))
    assert (info.format, info.generation, info.machine_id) == ("juju backups create", "1.21-1.25", str(machine))
    assert (info.started, info.hostname) == ("2016-03-01T10:00:00Z", f"ip-10-99-0-4{machine + 1}")
    assert len(info.controllers) == 3
    assert any("files are older" in sentence for sentence in info.unproven)


def test_numbers_that_an_old_restore_left_are_ids_all_the_same(tmp_path: Path) -> None:
    path = changed(plugin(tmp_path / "x", Environment("1.20.14")), rewritten("stateServers", machineids=[0]))
    assert [one["machine_id"] for one in inspect(path).controllers] == ["0"]


def test_what_the_plugin_missed_is_said(tmp_path: Path) -> None:
    path = plugin(tmp_path / "x", Environment("1.20.14"))
    changed(path, without("environconfig.json"))
    changed(path, without_in_root("var/lib/juju/shared-secret"))
    sentences = " ".join(inspect(str(path)).unproven)
    assert "root.tar has no var/lib/juju/shared-secret" in sentences
    assert "no environconfig.json" in sentences


WRONG: list[tuple[str, Change, str]] = [
    ("no state servers", rewritten("stateServers", _id="f"), "names no state servers"),
    ("another environment in agent.conf", conf(f"environment-{ENVIRONMENT}", "environment-other"), "different environments"),
    ("another machine in agent.conf", conf("tag: machine-0", "tag: machine-9"), "different environments"),
    ("another environment in metadata.json", said(Environment="other"), "different environments"),
    ("another Juju in metadata.json", said(Version="2.9.50"), "different environments"),
    ("another machine in metadata.json", said(Machine="7"), "no agent.conf of controller machine 7"),
    ("an environment that is not there", rewritten("stateServers", **{"env-uuid": "gone"}), "does not say which environment"),
    ("no root.tar", without("root.tar"), "it has no root.tar"),
    ("no environments", without("dump/juju/environments.bson", "dump/juju/environments.metadata.json"), "no dump/juju/env"),
    ("a collection without metadata", without("dump/juju/units.metadata.json"), "no units.metadata.json"),
    ("a collection without documents", without("dump/juju/units.bson"), "no units.bson"),
    ("a format that is no number", said(FormatVersion="one"), "FormatVersion 'one', which is no number"),
    ("a format of the future", said(FormatVersion=7), "FormatVersion 7"),
    ("a Juju of long ago", said(Version="1.16.6"), "Juju 1.16.6 is not supported.*1.18 or later"),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_contradicts_itself_is_refused(change: Change, words: str, tmp_path: Path) -> None:
    path = changed(api(tmp_path / "x", Environment("1.25.10")), change)
    with pytest.raises(JujuDrError, match=words):
        inspect(path)


WRONG_2X: list[tuple[str, Change, str]] = [
    ("no controllers", rewritten("controllers", _id="f"), "different controllers|names no controller machines"),
    ("another model", said(ModelUUID="other"), "metadata.json and the documents"),
    ("a count that is none", said(HANodes="three"), "HANodes 'three'"),
    ("a prelude of nothing", lambda files: fixtures.put(files, "juju-backup/dump/prelude.json", b"{}"), "names no server"),
    ("a prelude that is none", lambda files: fixtures.put(files, "juju-backup/dump/prelude.json", b"?"), "names no server"),
    ("no machines", lambda files: fixtures.put(files, "juju-backup/dump/juju/machines.bson", b""), "is damaged: .*machines"),
    ("no JSON", lambda files: fixtures.put(files, "juju-backup/metadata.json", b"?"), "is not JSON"),
    ("a list", lambda files: fixtures.put(files, "juju-backup/metadata.json", b"[]"), "is no object"),
    ("Juju 2.8", said(Version="2.8.13"), "Juju 2.8.13 is not supported.*restore-backup"),
    ("Juju 4", said(Version="4.0.1"), "Juju 4.0.1 is not supported"),
    ("no version", said(Version=""), "no version"),
]


@pytest.mark.parametrize(("change", "words"), [case[1:] for case in WRONG_2X], ids=[case[0] for case in WRONG_2X])
def test_an_archive_of_create_backup_that_contradicts_itself_is_refused(change: Change, words: str, tmp_path: Path) -> None:
    def by_id(files: fixtures.Files) -> None:
        # `e` first, so that a change of the first document is one of it.
        key = "juju-backup/dump/juju/controllers.bson"
        listed = sorted(bson.decode_all(files[key][1]), key=lambda one: one["_id"] != "e")
        fixtures.put(files, key, b"".join(map(bson.encode, listed)))

    path = create_backup(tmp_path / "x", "2.9", 1)
    changed(path, by_id)
    with pytest.raises(JujuDrError, match=words):
        inspect(changed(path, change))


def test_what_create_backup_could_not_prove_is_said(tmp_path: Path) -> None:
    path = create_backup(tmp_path / "x", "2.9", 1, HANodes=3)
    changed(path, without("dump/oplog.bson", "dump/prelude.json"))
    sentences = " ".join(inspect(str(path)).unproven)
    assert "counts 3 controllers, the documents 1" in sentences
    assert "no oplog" in sentences


def test_what_a_hot_1x_archive_could_not_prove_is_said(tmp_path: Path) -> None:
    path = api(tmp_path / "x", Environment("1.22.9"))
    assert "no oplog" in " ".join(inspect(changed(path, without("dump/oplog.bson"))).unproven)
    with_oplog = api(tmp_path / "y", Environment("1.22.9"))
    sentences = " ".join(inspect(changed(with_oplog, without("metadata.json"))).unproven)
    assert "an oplog, which the plugin never writes" in sentences


def test_a_plugin_s_archive_of_nobody_s_machine_is_refused(tmp_path: Path) -> None:
    path = plugin(tmp_path / "x", Environment("1.20.14"))
    changed(path, without_in_root("var/lib/juju/agents/machine-0/agent.conf"))
    with pytest.raises(JujuDrError, match=r"no agent\.conf of controller machine 0"):
        inspect(str(path))


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("make", [plugin, api])
def test_a_cut_archive_is_refused(make: Callable[[Path, Environment], Path], cut: float, tmp_path: Path) -> None:
    path = make(tmp_path / "x", Environment("1.22.9"))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(JujuDrError, match=r"cut|damaged|no whole tar"):
        inspect(str(path))


@pytest.mark.parametrize(
    ("text", "options", "names"),
    [
        ("{}", {}, []),
        ('{indexes:[{ "v" : 1, "key" : { "_id" : 1 }, "ns" : "juju.a", "name" : "_id_" }]}', {}, ["_id_"]),
        ('{options : { "create" : "txns.log", "capped" : true, "size" : 10 }}', {"capped": True, "size": 10}, []),
        ('{options : { "create" : "a", "capped" : true }, indexes:[{ "name" : "_id_" }]}', {"capped": True}, ["_id_"]),
        ('{"options":{"capped":true},"indexes":[{"name":"x, indexes:["}]}', {"capped": True}, ["x, indexes:["]),
    ],
)
def test_metadata_of_every_mongodump_is_read(text: str, options: dict[str, Any], names: list[str]) -> None:
    read = parse_metadata(text, "a.metadata.json")
    assert (read["options"], [one["name"] for one in read["indexes"]]) == (options, names)


@given(st.lists(st.integers(0, 9), max_size=3), st.integers(), st.booleans())
def test_every_controller_s_document_is_wanted(jobs: list[int], number: int, long: bool) -> None:
    machine = {"_id": "u:0", "jobs": [Int64(job) if long else job for job in jobs], "x": Int64(number % 2**63)}
    manages = bool({2, 3} & set(jobs))
    assert wanted("machines", bson.encode(machine)) or not manages
    assert not wanted("machines", bson.encode({"_id": "u:1", "jobs": [1], "hostname": "h"}))
    assert wanted("machines", bson.encode({"_id": "u:1"}))
    assert wanted("controllers", bson.encode({"_id": "e", "jobs": [1]}))


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.booleans())
def test_text_inside_metadata_stays(name: str, capped: bool) -> None:
    document = {"options": {"capped": capped}, "indexes": [{"name": name + " indexes:[", "v": 2}]}
    assert parse_metadata(json.dumps(document), "x") == document


@given(st.from_regex(r"\A[0-9]{1,2}\.[0-9]{1,2}(\.[0-9]{1,2}|-beta[0-9])\Z"))
def test_each_version_has_one_generation_or_is_refused_by_name(version: str) -> None:
    major, minor = (int(part) for part in version.replace("-", ".").split(".")[:2])
    if (major == 1 and 18 <= minor <= 25) or (major, minor) == (2, 9) or major == 3:
        assert generation(version) in GENERATIONS
    else:
        with pytest.raises(JujuDrError, match=f"Juju {version} is not supported"):
            generation(version)


@given(
    st.builds(
        dict,
        ModelUUID=st.uuids().map(str),
        ControllerUUID=st.uuids().map(str),
        Machine=st.integers(0, 99).map(str),
        Hostname=st.text(max_size=9),
        HANodes=st.integers(0, 7),
        Version=st.sampled_from(["2.9.61", "3.6.26", "3.1-beta2"]),
        Notes=st.text(max_size=9),
        ControllerMachineInstanceID=st.text(max_size=9),
    )
)
def test_metadata_is_what_was_written(said: dict[str, Any]) -> None:
    read = parse(json.dumps({"FormatVersion": 2, **said}))
    again = parse(format_metadata(read))
    assert again == replace(read, format_version=1)
    assert again.machine_id == said["Machine"]
