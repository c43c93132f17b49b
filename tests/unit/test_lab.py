"""The lab's hosts before they are started: what a drill proves depends on them being what they claim to be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bson
import pytest
from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse
from ansible.module_utils.juju_dr.collection_metadata import parse_metadata
from cryptography import x509

from lab import bootstrap, fixtures
from lab.shapes import SHAPES, SPARES, Host, Shape
from lab.standin.common import password_hash

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = b"ssh-ed25519 LABKEY lab\n"
SPARE = Host("n0", SPARES["n0"], "spare")
ADDRESS = re.compile(rb"10\.99\.0\.\d+")
HOSTS = [pytest.param(shape, host, id=f"{name}-{host.name}") for name, shape in SHAPES.items() for host in shape.hosts]
SECRETS = (
    "apipassword",
    "oldpassword",
    "statepassword",
    "sharedsecret",
    "systemidentity",
    "controllerkey",
    "caprivatekey",
    "cacert",
)


def disk(shape: Shape, host: Host) -> fixtures.Files:
    make = fixtures.controller_files if host.role == "controller" else fixtures.workload_files
    return make(shape, host, KEY)


def confs(files: fixtures.Files) -> dict[str, AgentConf]:
    return {name: parse(content.decode()) for name, (_, content) in files.items() if name.endswith("/agent.conf")}


@pytest.mark.parametrize(("shape", "host"), HOSTS)
def test_every_agent_dials_the_shapes_controllers_and_no_other_address_is_on_disk(shape: Shape, host: Host) -> None:
    files = disk(shape, host)
    assert {tuple(conf.sequence("apiaddresses")) for conf in confs(files).values()} == {tuple(shape.api_addresses)}
    named = {one.decode() for _, content in files.values() for one in ADDRESS.findall(content)}
    assert named <= {one.address for one in shape.hosts}


@pytest.mark.parametrize(("shape", "host"), HOSTS)
def test_a_machine_agent_is_the_one_its_machine_document_knows(shape: Shape, host: Host) -> None:
    conf = confs(disk(shape, host))[f"var/lib/juju/agents/machine-{host.machine_id}/agent.conf"]
    key = f"{conf.require('model')[len('model-') :]}:{host.machine_id}"
    (machine,) = [one for one in fixtures.documents(shape.release, "machines") if one["_id"] == key]
    assert (conf.require("tag"), conf.require("nonce")) == (f"machine-{host.machine_id}", machine["nonce"])


@pytest.mark.parametrize(("shape", "host"), HOSTS)
def test_jujud_can_be_run_and_the_agent_finds_it(shape: Shape, host: Host) -> None:
    files = disk(shape, host)
    link = files[f"var/lib/juju/tools/machine-{host.machine_id}"][0].linkname
    info, content = files[f"var/lib/juju/tools/{link}/jujud"]
    assert info.mode == 0o755
    assert content == fixtures.LAUNCHER
    assert f"etc/systemd/system/jujud-machine-{host.machine_id}.service" in files


@pytest.fixture(scope="module")
def identity() -> bootstrap.Identity:
    return bootstrap.new_identity()


@pytest.mark.parametrize("release", ["2.9", "3.6"])
def test_a_bootstrapped_spare_shares_nothing_with_the_lost_controller(release: str, identity: bootstrap.Identity) -> None:
    shape = SHAPES[f"single-{release}"]
    old = confs(fixtures.controller_files(shape, shape.controllers[0], KEY))[bootstrap.AGENT_CONF]
    files, documents = bootstrap.made(SPARE, release, identity, KEY)
    # One whole line of a PEM block stands for it: agent.conf indents them.
    lost = {key: max(old.require(key).splitlines(), key=len) for key in SECRETS if key not in ("cacert", "systemidentity")}
    lost.update({key: old.require(key).splitlines()[5] for key in ("cacert", "systemidentity")})
    lost.update({f"model {m['name']}": str(m["_id"]) for m in fixtures.documents(release, "models")})
    lost.update({"controller": old.require("controller")[len("controller-") :]})
    lost.update({host.name: host.address for host in shape.hosts})
    everything = {**files, **documents}
    found = {what: [n for n, (_, c) in everything.items() if text.encode() in c] for what, text in lost.items()}
    assert {what: names for what, names in found.items() if names} == {}


@pytest.mark.parametrize("release", ["2.9", "3.6"])
def test_a_bootstrapped_spare_agrees_with_itself(release: str, identity: bootstrap.Identity) -> None:
    files, documents = bootstrap.made(SPARE, release, identity, KEY)
    conf = confs(files)[bootstrap.AGENT_CONF]
    read: dict[str, list[dict[str, Any]]] = {
        name: bson.decode_all(content) for name, (_, content) in documents.items() if name.endswith(".bson")
    }
    (machine,) = read["dump/juju/machines.bson"]
    (model,) = read["dump/juju/models.bson"]
    serving = next(one for one in read["dump/juju/controllers.bson"] if one["_id"] == "stateServingInfo")
    assert machine["passwordhash"] == password_hash(conf.require("apipassword"))
    assert conf.require("model") == f"model-{model['_id']}"
    assert conf.require("controller") == f"controller-{model['controller-uuid']}"
    assert conf.sequence("apiaddresses") == [f"{SPARE.address}:17070"]
    assert serving["systemidentity"] == conf.require("systemidentity") == files["var/lib/juju/system-identity"][1].decode()
    assert identity.ssh_public_key.encode() in files[bootstrap.AUTHORIZED_KEYS][1]


@pytest.mark.parametrize("release", ["2.9", "3.6"])
def test_metadata_of_every_collection_of_a_bootstrapped_spare_can_be_read(release: str, identity: bootstrap.Identity) -> None:
    _, documents = bootstrap.made(SPARE, release, identity, KEY)
    metadata = {name: content.decode() for name, (_, content) in documents.items() if name.endswith(".metadata.json")}
    assert len(metadata) > 90
    for name, text in metadata.items():
        parse_metadata(text, name)


def test_a_new_identity_has_a_chain_that_verifies_and_no_secret_twice(identity: bootstrap.Identity) -> None:
    authority = x509.load_pem_x509_certificate(identity.ca_cert.encode())
    leaf = x509.load_pem_x509_certificate(identity.cert.encode())
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert set(names) == set(bootstrap.NAMES)
    values = [identity.password, identity.old_password, identity.secret, identity.key, identity.ca_key, identity.ssh_key]
    assert len(set(values)) == len(values)
    assert len(identity.password) == len(identity.old_password) == 24


def inventory(folder: Path, state: list[dict[str, str]] | None) -> dict[str, Any]:
    """What the inventory script prints, run by a Python without the virtualenv's packages."""
    (folder / "inventory").mkdir()
    shutil.copy2(ROOT / "inventory" / "lab", folder / "inventory" / "lab")
    if state is not None:
        (folder / ".lab").mkdir()
        (folder / ".lab" / "state.json").write_text(json.dumps(state), encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(folder / "inventory" / "lab"), "--list"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read: dict[str, Any] = json.loads(printed)
    return read


def test_without_a_lab_every_group_is_there_and_empty(tmp_path: Path) -> None:
    printed = inventory(tmp_path, None)
    assert {name: group["hosts"] for name, group in printed.items() if name != "_meta"} == {
        "juju_controllers": [],
        "juju_restore_target": [],
        "juju_workloads": [],
    }


def test_the_inventory_puts_each_role_in_its_group(tmp_path: Path) -> None:
    roles = {"c0": "controller", "m1": "machine", "w0": "workload", "n0": "spare"}
    printed = inventory(tmp_path, [{"name": n, "address": "10.99.0.1", "role": r, "machine_id": "0"} for n, r in roles.items()])
    groups = {name: group["hosts"] for name, group in printed.items() if name != "_meta"}
    assert groups == {"juju_controllers": ["c0"], "juju_restore_target": ["n0"], "juju_workloads": ["m1", "w0"]}
    assert {one["ansible_user"] for one in printed["_meta"]["hostvars"].values()} == {"ubuntu"}
