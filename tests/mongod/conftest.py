"""A real mongod 4.4.2 on loopback, as juju-db runs it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse
from ansible.module_utils.juju_dr.mongo import MongoAccess, connect
from pymongo import MongoClient

from lab.mongod import Mongod, ensure

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"
VERSIONS = {"2.9": "2.9.61", "3.x": "3.6.26"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One mongod process."""

    def __init__(self, binary: Mongod, arguments: list[str], access: MongoAccess) -> None:
        self.access = access
        self._binary = binary
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(self._binary.binary), *self._arguments]
        self.process = subprocess.Popen(
            command, env=self._binary.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self, access: MongoAccess | None = None) -> MongoClient[dict[str, Any]]:
        deadline = time.monotonic() + 30
        while True:
            try:
                return connect(access or self.access, timeout_seconds=1)
            except Exception:
                if time.monotonic() > deadline or (self.process and self.process.poll() is not None):
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@pytest.fixture(scope="session")
def mongod_binary() -> Mongod:
    return ensure()


@pytest.fixture
def standalone(mongod_binary: Mongod, tmp_path: Path) -> Iterator[MongoClient[dict[str, Any]]]:
    """An empty server without replication, TLS or users."""
    (tmp_path / "standalone").mkdir()
    port = free_port()
    arguments = ["--dbpath", str(tmp_path / "standalone"), "--port", str(port), "--bind_ip", "127.0.0.1"]
    server = Server(mongod_binary, arguments, MongoAccess(port=port))
    server.start()
    client = server.wait()
    yield client
    client.close()
    server.stop()


@pytest.fixture
def plain_replica_set(mongod_binary: Mongod, tmp_path: Path) -> Iterator[MongoClient[dict[str, Any]]]:
    """A primary of one, without TLS or users: for what only needs an oplog and transactions."""
    (tmp_path / "replica-set").mkdir()
    port = free_port()
    arguments = ["--dbpath", str(tmp_path / "replica-set"), "--port", str(port), "--bind_ip", "127.0.0.1"]
    server = Server(mongod_binary, [*arguments, "--replSet", "juju"], MongoAccess(port=port))
    server.start()
    client = server.wait()
    client.admin.command("replSetInitiate", {"_id": "juju", "members": [{"_id": 1, "host": f"127.0.0.1:{port}"}]})
    until_primary(client)
    client.close()
    # Sessions and transactions want a client that knows of the replica set; a dump reads what a majority has.
    with MongoClient[dict[str, Any]]("127.0.0.1", port, replicaSet="juju", w="majority") as member:
        yield member
    server.stop()


def until_primary(client: MongoClient[dict[str, Any]], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not client.admin.command("isMaster").get("ismaster"):
        assert time.monotonic() < deadline, "no primary"
        time.sleep(0.05)


def unpack_fixture(kind: str, generation: str, target: Path) -> Path:
    with tarfile.open(FIXTURES / f"juju-{VERSIONS[generation]}-{kind}.tar.gz") as archive:
        archive.extractall(target, filter="fully_trusted")
    return target


@pytest.fixture(params=sorted(VERSIONS))
def generation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fixture_archive(generation: str, tmp_path: Path) -> Path:
    """The unpacked ``juju-backup`` folder of create-backup, with ``dump/`` in it."""
    return unpack_fixture("single", generation, tmp_path / "archive") / "juju-backup"


@pytest.fixture
def controller_conf(generation: str, tmp_path: Path) -> AgentConf:
    files = unpack_fixture("controller-files", generation, tmp_path / "controller-files")
    return parse((files / "var/lib/juju/agents/machine-0/agent.conf").read_text(encoding="utf-8"))


def remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
