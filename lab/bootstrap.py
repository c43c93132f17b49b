"""A freshly bootstrapped controller: the fixture's controller model under an identity of its own."""

from __future__ import annotations

import base64
import datetime
import json
import re
import secrets
import sqlite3
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab import fixtures
from lab.hosts import inside
from lab.shapes import SHAPES, Host
from lab.standin.common import password_hash

NAMES = ("localhost", "juju-apiserver", "juju-mongodb", "anything")


@dataclass(frozen=True)
class Identity:
    """What ``juju bootstrap`` makes anew each time; certificates and keys are PEM."""

    controller_uuid: str
    model_uuid: str
    ca_cert: str
    ca_key: str
    cert: str
    key: str
    password: str
    secret: str


def new_identity() -> Identity:
    ca_key, key = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "juju-generated CA (lab)")])
    ca = _certificate(ca_name, ca_name, ca_key, ca_key).add_extension(x509.BasicConstraints(True, None), True)
    leaf = _certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "*")]), ca_name, key, ca_key)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in NAMES]), False)
    return Identity(
        str(uuid.uuid4()),
        str(uuid.uuid4()),
        _pem(ca.sign(ca_key, hashes.SHA256())),
        _pem(ca_key),
        _pem(leaf.sign(ca_key, hashes.SHA256())),
        _pem(key),
        secrets.token_urlsafe(18),
        base64.b64encode(secrets.token_bytes(768)).decode(),
    )


def _certificate(subject: Any, issuer: Any, key: Any, _: Any) -> Any:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
    )


def _pem(thing: Any) -> str:
    encoding = serialization.Encoding.PEM
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(encoding).decode()
    form = serialization.PrivateFormat.PKCS8
    raw: bytes = thing.private_bytes(encoding, form, serialization.NoEncryption())
    return raw.decode()


def run(host: Host, release: str, lab_key: bytes) -> None:
    """Makes the host such a controller and waits until its agent is logged in."""
    from lab.__main__ import _unpack, wait_for_login

    identity = new_identity()
    shape = SHAPES[f"single-{release}"]
    old = fixtures.documents(release, "models")
    uuids = {
        str(next(m for m in old if m["name"] == "controller")["controller-uuid"]): identity.controller_uuid,
        str(next(m for m in old if m["name"] == "controller")["_id"]): identity.model_uuid,
    }
    address = {shape.controllers[0].address: host.address}
    _unpack(host.name, _files(fixtures.controller_files(shape, shape.controllers[0], lab_key), identity, uuids, address))
    _unpack(host.name, {f"root/lab-source/{n}": v for n, v in _dump(release, identity, {**uuids, **address}).items()})
    own = Host(host.name, host.address, "controller")
    told = {"hosts": [own.__dict__], "passwords": {}, "documents": 0, "release": release}
    inside(host.name, ["python3", "-m", "lab.provision"], json.dumps(told))
    inside(host.name, ["rm", "-rf", "/root/lab-source"])
    inside(host.name, ["systemctl", "enable", "--quiet", "--now", "jujud-machine-0"])
    wait_for_login(own)


def _files(files: fixtures.Files, identity: Identity, uuids: dict[str, str], address: dict[str, str]) -> fixtures.Files:
    path = "var/lib/juju/agents/machine-0/agent.conf"
    text = files[path][1].decode()
    for old, new in {**uuids, **address}.items():
        text = text.replace(old, new)
    text = re.sub(r"(?m)^apiaddresses:\n(?:- .*\n)+", f"apiaddresses:\n- {next(iter(address.values()))}:17070\n", text)
    for key, value in (("apipassword", identity.password), ("statepassword", identity.password), ("sharedsecret", identity.secret)):
        text = re.sub(rf"(?m)^{key}: .*$", lambda _, k=key, v=value: f"{k}: {v}", text)  # type: ignore[misc]
    blocks = (("cacert", identity.ca_cert), ("controllercert", identity.cert), ("controllerkey", identity.key), ("caprivatekey", identity.ca_key))
    for key, pem in blocks:
        block = f"{key}: |\n" + "".join(f"  {line}\n" for line in pem.splitlines())
        text = re.sub(rf"(?m)^{key}: \|\n(?:  .*\n)+", lambda _, b=block: b, text)  # type: ignore[misc]
    text = re.sub(r"(?m)^  deployed-units: .*\n", "", text)
    fixtures.put(files, path, text.encode())
    pem = (identity.cert + identity.key).encode()
    for folder in ("var/lib/juju", "var/snap/juju-db/common"):
        fixtures.put(files, f"{folder}/server.pem", pem)
        fixtures.put(files, f"{folder}/ca.crt", identity.ca_cert.encode())
    fixtures.put(files, "var/snap/juju-db/common/shared-secret", identity.secret.encode())
    if "var/lib/juju/dqlite/controller" in files:
        fixtures.put(files, "var/lib/juju/dqlite/controller", _without_leases(files["var/lib/juju/dqlite/controller"][1]))
    # The controller unit is deployed by the agent itself.
    return {name: entry for name, entry in files.items() if "unit-controller-0" not in name}


def _without_leases(raw: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(raw)
        with sqlite3.connect(file.name) as database:
            database.execute("DELETE FROM lease")
        database.close()
        return Path(file.name).read_bytes()


def _dump(release: str, identity: Identity, replaced: dict[str, str]) -> fixtures.Files:
    """The fixture's dump with the controller model only, all identities replaced."""
    found: fixtures.Files = {}
    for name, (info, content) in fixtures.dump(release).items():
        if name.endswith(".bson") and ("/logs/" in name or "oplog" in name or "/txns" in name):
            content = b""
        elif name.endswith(".bson"):
            kept = []
            for document in bson.decode_all(content):
                new = _replace(document, replaced)
                if new.get("model-uuid", identity.model_uuid) in (identity.model_uuid, "") and not _other_model(name, new):
                    kept.append(bson.encode(_secrets(new, identity)))
            content = b"".join(kept)
        if not (name.startswith("dump/logs") or name.endswith("oplog.bson")):
            found[name] = (info, content)
    return found


def _other_model(name: str, document: dict[str, Any]) -> bool:
    return name.endswith("/models.bson") and document["name"] != "controller"


def _secrets(document: dict[str, Any], identity: Identity) -> dict[str, Any]:
    if document.get("_id") == "stateServingInfo":
        document.update(cert=identity.cert, privatekey=identity.key, caprivatekey=identity.ca_key, sharedsecret=identity.secret)
    if document.get("_id") == "controllerSettings":
        document["settings"].update({"ca-cert": identity.ca_cert, "controller-name": "fresh"})
    if document.get("_id") == f"{identity.model_uuid}:0" and "nonce" in document:
        document["passwordhash"] = password_hash(identity.password)
    return document


def _replace(value: Any, replaced: dict[str, str]) -> Any:
    if isinstance(value, str):
        for old, new in replaced.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {_replace(key, replaced): _replace(item, replaced) for key, item in value.items()}
    if isinstance(value, list):
        return [_replace(item, replaced) for item in value]
    return value
