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
from ansible.module_utils.juju_dr.agent_conf import parse
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lab import fixtures
from lab.hosts import inside
from lab.shapes import SHAPES, Host
from lab.standin.common import password_hash

AGENT_CONF = "var/lib/juju/agents/machine-0/agent.conf"
AUTHORIZED_KEYS = "home/ubuntu/.ssh/authorized_keys"
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
    old_password: str
    secret: str
    ssh_key: str
    ssh_public_key: str


def new_identity() -> Identity:
    ca_key, key, ssh_key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
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
        secrets.token_urlsafe(18),
        base64.b64encode(secrets.token_bytes(768)).decode(),
        _pem(ssh_key, serialization.PrivateFormat.TraditionalOpenSSL),
        _public(ssh_key),
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


def _pem(thing: Any, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> str:
    encoding = serialization.Encoding.PEM
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(encoding).decode()
    raw: bytes = thing.private_bytes(encoding, form, serialization.NoEncryption())
    return raw.decode()


def _public(key: Any) -> str:
    """The public half as it stands in authorized_keys, without type and comment."""
    line: bytes = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode().split()[1]


def run(host: Host, release: str, lab_key: bytes) -> None:
    """Makes the host such a controller and waits until its agent is logged in."""
    from lab.__main__ import _unpack, wait_for_login

    files, documents = made(host, release, new_identity(), lab_key)
    _unpack(host.name, files)
    _unpack(host.name, {f"root/lab-source/{name}": entry for name, entry in documents.items()})
    own = Host(host.name, host.address, "controller")
    told = {"hosts": [own.__dict__], "passwords": {}, "documents": 0, "release": release}
    inside(host.name, ["python3", "-m", "lab.provision"], json.dumps(told))
    inside(host.name, ["rm", "-rf", "/root/lab-source"])
    inside(host.name, ["systemctl", "enable", "--quiet", "--now", "jujud-machine-0"])
    wait_for_login(own)


def made(host: Host, release: str, identity: Identity, lab_key: bytes) -> tuple[fixtures.Files, fixtures.Files]:
    """Disk and dump of a controller that shares nothing with the fixture's: a restore that leaves something of the
    target's in place must fail here as it would in the field."""
    shape = SHAPES[f"single-{release}"]
    files = fixtures.controller_files(shape, shape.controllers[0], lab_key)
    conf = parse(files[AGENT_CONF][1].decode())
    old_key = serialization.load_pem_private_key(conf.require("systemidentity").encode(), None)
    replaced = {
        conf.require("controller")[len("controller-") :]: identity.controller_uuid,
        conf.require("model")[len("model-") :]: identity.model_uuid,
        shape.controllers[0].address: host.address,
        _public(old_key): identity.ssh_public_key,
    }
    return _files(files, identity, replaced), _dump(release, identity, replaced)


def _files(files: fixtures.Files, identity: Identity, replaced: dict[str, str]) -> fixtures.Files:
    text = _replace(files[AGENT_CONF][1].decode(), replaced)
    lines = {
        "apipassword": identity.password,
        "statepassword": identity.password,
        "oldpassword": identity.old_password,
        "sharedsecret": identity.secret,
    }
    for key, value in lines.items():
        text = re.sub(rf"(?m)^{key}: .*$", lambda _, k=key, v=value: f"{k}: {v}", text)  # type: ignore[misc]
    blocks = {
        "cacert": identity.ca_cert,
        "controllercert": identity.cert,
        "controllerkey": identity.key,
        "caprivatekey": identity.ca_key,
        "systemidentity": identity.ssh_key,
    }
    for key, pem in blocks.items():
        block = f"{key}: |\n" + "".join(f"  {line}\n" for line in pem.splitlines())
        text = re.sub(rf"(?m)^{key}: \|\n(?:  .*\n)+", lambda _, b=block: b, text)  # type: ignore[misc]
    text = re.sub(r"(?m)^  deployed-units: .*\n", "", text)
    fixtures.put(files, AGENT_CONF, text.encode())
    pem = identity.cert + identity.key
    for folder in ("var/lib/juju", "var/snap/juju-db/common"):
        fixtures.put(files, f"{folder}/server.pem", pem.encode())
        fixtures.put(files, f"{folder}/ca.crt", identity.ca_cert.encode())
    fixtures.put(files, "var/snap/juju-db/common/shared-secret", identity.secret.encode())
    fixtures.put(files, "var/lib/juju/system-identity", identity.ssh_key.encode())
    keys = _replace(files[AUTHORIZED_KEYS][1].decode(), replaced)
    fixtures.put(files, AUTHORIZED_KEYS, keys.encode(), 0o600, 1000)
    if "var/lib/juju/dqlite/controller" in files:
        fixtures.put(files, "var/lib/juju/dqlite/controller", _without_leases(files["var/lib/juju/dqlite/controller"][1]))
    # The controller unit is deployed by the agent itself; the parameters of the old bootstrap are not this one's.
    return {n: v for n, v in files.items() if "unit-controller-0" not in n and not n.endswith("/bootstrap-params")}


def _without_leases(raw: bytes) -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(raw)
        with sqlite3.connect(file.name) as database:
            database.execute("DELETE FROM lease")
        database.close()
        return Path(file.name).read_bytes()


def _dump(release: str, identity: Identity, replaced: dict[str, str]) -> fixtures.Files:
    """The fixture's dump with the controller model and machine 0 only, all identities replaced."""
    others = [str(m["_id"]).encode() for m in fixtures.documents(release, "models") if m["name"] != "controller"]
    found: fixtures.Files = {}
    for name, (info, content) in fixtures.dump(release).items():
        if name.startswith("dump/logs") or name.endswith("oplog.bson"):
            continue
        if name.endswith(".bson") and "/txns" in name:
            content = b""
        elif name.endswith(".bson"):
            kept = [
                bson.encode(_secrets(_replace(document, replaced), identity))
                for document in bson.decode_all(content)
                if not _other_machine(document) and not any(one in bson.encode(document) for one in others)
            ]
            content = b"".join(kept)
        found[name] = (info, content)
    return found


def _other_machine(document: dict[str, Any]) -> bool:
    """Whether a document belongs to a machine that was added after bootstrap."""
    if document.get("machineid", document.get("machine-id", "0")) != "0":
        return True
    # Ids of what belongs to a machine: MODEL:N or MODEL:m#N#…
    return bool(re.fullmatch(r"[0-9a-f-]{36}:(m#)?[1-9]\d*(#.*)?", str(document.get("_id"))))


def _secrets(document: dict[str, Any], identity: Identity) -> dict[str, Any]:
    if document.get("_id") == "stateServingInfo":
        document.update(
            cert=identity.cert,
            privatekey=identity.key,
            caprivatekey=identity.ca_key,
            sharedsecret=identity.secret,
            systemidentity=identity.ssh_key,
        )
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
