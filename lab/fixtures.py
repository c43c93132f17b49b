"""The data of real controllers as hosts of the lab get it: files and documents of the fixtures, made true for a shape."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path
from typing import Any

import bson

from lab.shapes import VERSIONS, Host, Shape

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "data" / "fixtures"
LAUNCHER = b"""#!/usr/bin/python3
# The lab's stand-in for Juju's jujud.
import sys

sys.path.insert(0, "/usr/local/lib/juju-lab")
from lab.standin.main import main

sys.exit(main(sys.argv[1:]))
"""
# Names of files in an image of a host's disk, with what tar says of them.
Files = dict[str, tuple[tarfile.TarInfo, bytes]]


def read_tar(raw: bytes, mode: str = "r:gz") -> Files:
    found: Files = {}
    with tarfile.open(fileobj=io.BytesIO(raw), mode=mode) as tar:  # type: ignore[call-overload]
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            found[member.name.rstrip("/")] = (member, content.read() if content else b"")
    return found


def write_tar(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (info, content) in files.items():
            info.name, info.size = name, len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def fixture(kind: str, release: str) -> Files:
    return read_tar((FOLDER / f"juju-{VERSIONS[release]}-{kind}.tar.gz").read_bytes())


def put(files: Files, name: str, content: bytes, mode: int = 0o600, owner: int = 0) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = mode, owner, owner
    files[name] = (info, content)


def dump(release: str) -> Files:
    """The dump of create-backup's archive, ``dump/…``."""
    found = fixture("single", release)
    return {n[len("juju-backup/") :]: v for n, v in found.items() if n.startswith("juju-backup/dump")}


def documents(release: str, collection: str) -> list[dict[str, Any]]:
    return bson.decode_all(fixture("single", release)[f"juju-backup/dump/juju/{collection}.bson"][1])


def keys(release: str) -> bytes:
    """authorized_keys as Juju writes it: the system identity's public key is among them."""
    root = read_tar(fixture("single", release)["juju-backup/root.tar"][1], "r")
    return root["home/ubuntu/.ssh/authorized_keys"][1]


def password(host_or_id: str) -> str:
    """A made password of an agent of the lab; Juju's are 24 characters too."""
    return f"lab-password-{host_or_id}".ljust(24, "x")


def _common(files: Files, release: str, lab_key: bytes) -> Files:
    version = next(n for n in files if re.fullmatch(r"var/lib/juju/tools/\d[^/]*", n))
    put(files, f"{version}/jujud", LAUNCHER, 0o755)
    put(files, "home/ubuntu/.ssh/authorized_keys", keys(release) + b"\n" + lab_key, 0o600, 1000)
    for name in list(files):
        # The image has its own.
        if name.startswith("etc/systemd/system/snap.juju-db.daemon.service") and name.endswith(".service"):
            files[name][0].mode = 0o644
    return files


def controller_files(shape: Shape, host: Host, lab_key: bytes) -> Files:
    """The disk of one controller machine of the shape."""
    files = fixture("controller-files", shape.release)
    root = read_tar(fixture("single", shape.release)["juju-backup/root.tar"][1], "r")
    for name, entry in root.items():
        if "/tools/" in name and name not in files:
            files[name] = entry
    _common(files, shape.release, lab_key)
    own = f"var/lib/juju/agents/machine-{host.machine_id}/agent.conf"
    text = files["var/lib/juju/agents/machine-0/agent.conf"][1].decode()
    text = _addresses(text, shape.api_addresses)
    if host.machine_id != "0":
        text = _identity(text, shape, host)
        for name in [n for n in files if "machine-0" in n]:
            info, content = files.pop(name)
            files[name.replace("machine-0", f"machine-{host.machine_id}")] = (
                info,
                content.replace(b"machine-0", b"machine-" + host.machine_id.encode()).replace(
                    b"--machine-id 0", b"--machine-id " + host.machine_id.encode()
                ),
            )
    put(files, own, text.encode())
    for name in [n for n in files if n.endswith("/agent.conf") and n != own]:
        put(files, name, _addresses(files[name][1].decode(), shape.api_addresses).encode())
    return files


def workload_files(shape: Shape, host: Host, lab_key: bytes) -> Files:
    """The disk of a workload machine, or of an idle machine of the controller model."""
    files = _common(fixture("workload-files", shape.release), shape.release, lab_key)
    for name in [n for n in files if n.endswith("/agent.conf")]:
        put(files, name, _addresses(files[name][1].decode(), shape.api_addresses).encode())
    if host.role == "machine":
        text = _identity(files["var/lib/juju/agents/machine-0/agent.conf"][1].decode(), shape, host)
        files = {n: v for n, v in files.items() if "unit-" not in n}
        text = re.sub(r"(?m)^  deployed-units: .*\n", "", text)
        put(files, "var/lib/juju/agents/machine-0/agent.conf", text.encode())
        renamed: Files = {}
        for name, (info, content) in files.items():
            number = host.machine_id.encode()
            if name.startswith("etc/"):
                content = content.replace(b"machine-0", b"machine-" + number).replace(
                    b"--machine-id 0", b"--machine-id " + number
                )
            renamed[name.replace("machine-0", f"machine-{host.machine_id}")] = (info, content)
        return renamed
    return files


def _addresses(text: str, addresses: list[str]) -> str:
    return re.sub(r"(?m)^apiaddresses:\n(?:- .*\n)+", "apiaddresses:\n" + "".join(f"- {a}\n" for a in addresses), text)


def _identity(text: str, shape: Shape, host: Host) -> str:
    """An agent.conf of machine 0 made that of another machine of the controller model."""
    model = next(one for one in documents(shape.release, "models") if one["name"] == "controller")["_id"]
    machine = next(m for m in documents(shape.release, "machines") if m["_id"] == f"{model}:{host.machine_id}")
    made = password(host.machine_id)
    for key, value in (
        ("tag", f"machine-{host.machine_id}"),
        ("nonce", machine["nonce"]),
        ("model", f"model-{model}"),
        ("apipassword", made),
        ("statepassword", made),
        ("oldpassword", made),
    ):
        text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
    return text.replace("AGENT_SERVICE_NAME: jujud-machine-0", f"AGENT_SERVICE_NAME: jujud-machine-{host.machine_id}")
