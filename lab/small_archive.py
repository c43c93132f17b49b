"""A small archive that a restore would take, made of a fixture, whole or crooked."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.archive_write import ArchiveWriter
from ansible.module_utils.juju_dr.codec import Codec

from lab.podman import ROOT

FIXTURE = ROOT / "tests" / "data" / "fixtures" / "juju-3.6.26-single.tar.gz"
PREFIX = "juju-backup/"
CONF = "var/lib/juju/agents/machine-0/agent.conf"
END = bytes(2 * tarfile.BLOCKSIZE)
_COLLECTIONS = ("controllers", "machines", "models", "controllerNodes")
_KEPT = (
    *("metadata.json", "root.tar", "dump/prelude.json", "dump/oplog.bson"),
    *(f"dump/juju/{name}.{kind}" for name in _COLLECTIONS for kind in ("bson", "metadata.json")),
)


def raw(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """A member of a tar, with anything in its header."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o600
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def pax(records: dict[str, str]) -> bytes:
    """The member that holds PAX records for the next one."""
    content = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode("utf-8", "surrogateescape")
        length = len(body)
        while length != len(str(length)) + len(body):
            length = len(str(length)) + len(body)
        content += str(length).encode() + body
    return raw("./PaxHeaders/x", content, type=tarfile.XHDTYPE)


@lru_cache(maxsize=1)
def files() -> dict[str, bytes]:
    """The files of the small archive, by their name below juju-backup/; root.tar lacks its end."""
    found = {}
    with tarfile.open(FIXTURE) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is not None and member.name[len(PREFIX) :] in _KEPT:
                found[member.name[len(PREFIX) :]] = content.read()
    with tarfile.open(fileobj=io.BytesIO(found["root.tar"])) as root:
        conf = root.extractfile(CONF)
        assert conf is not None
        found["root.tar"] = raw(CONF, conf.read())
    return found


def foreign(path: Path, outer: bytes = b"", root: bytes = b"", end: bytes = END, root_end: bytes = END) -> Path:
    """As of others: without a manifest.

    :param outer: more members, raw, and what the tar ends with; likewise ``root`` of root.tar.
    """
    tar = b"".join(
        raw(PREFIX + name, content + (root + root_end if name == "root.tar" else b"")) for name, content in files().items()
    )
    path.write_bytes(gzip.compress(tar + outer + end))
    return path


def listed() -> list[dict[str, Any]]:
    """What a manifest says of root.tar."""
    with tarfile.open(fileobj=io.BytesIO(files()["root.tar"] + END)) as tar:
        conf = tar.extractfile(CONF)
        assert conf is not None
        content = conf.read()
    entry = {"name": CONF, "mode": 0o600, "uid": 0, "gid": 0, "size": len(content)}
    return [{**entry, "sha256": hashlib.sha256(content).hexdigest()}]


class _Crooked(ArchiveWriter):
    """Puts anything before the header of the last file."""

    outer = b""

    def _header(self, name: str, size: int, kind: bytes = tarfile.REGTYPE, mode: int = 0o600) -> bytes:
        header = super()._header(name, size, kind, mode)
        return self.outer + header if name.endswith("/last") else header


def ours(path: Path, codec: Codec, outer: bytes = b"", root: bytes = b"", root_end: bytes = END, **head: Any) -> Path:
    """As juju-dr makes them, with manifest and trailer in order; ``outer`` and ``root`` as in :func:`foreign`."""
    writer = _Crooked(path.with_name(path.name + ".partial"), codec)
    writer.outer = outer
    for name, content in files().items():
        writer.add(name, [content + (root + root_end if name == "root.tar" else b"")])
    if outer:
        writer.add("last", [b""])
    writer.finish({"controller_uuid": "u", "root": listed(), **head}, path)
    return path
