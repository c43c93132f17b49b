"""A controller on loopback for tests: a fixture's documents and files, a real replica set, the stand-in for jujud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf, parse
from ansible.module_utils.juju_dr.load import MongoUser, load
from ansible.module_utils.juju_dr.mongo import MongoAccess, access_from_agent_conf
from conftest import VERSIONS, Server, free_port, unpack_fixture, until_primary
from pymongo import MongoClient

from lab.mongod import Mongod

NEW, CIDR = "127.0.0.21", "127.0.0.0/8"
OLD = {"2.9": "10.99.0.11", "3.x": "10.99.0.15"}
Client = MongoClient[dict[str, Any]]
JUJUD = "import sys; from lab.standin.main import main; sys.exit(main(sys.argv[1:]))"


@dataclass
class Prepared:
    """A loaded database folder and the files of its hosts, to be copied for each case."""

    generation: str
    folder: Path
    mongo_port: int
    api_port: int

    @property
    def conf(self) -> AgentConf:
        return parse((self.folder / "controller/agents/machine-0/agent.conf").read_text(encoding="utf-8"))


def prepare(binary: Mongod, generation: str, folder: Path) -> Prepared:
    """Loads the fixture once; ports are free ones, in files and documents alike."""
    prepared = Prepared(generation, folder, free_port(), free_port())
    controller = unpack_fixture("controller-files", generation, folder / "files")
    shutil.copytree(controller / "var/lib/juju", folder / "controller", symlinks=True)
    shutil.copytree(controller / "var/snap/juju-db/common", folder / "common")
    workload = unpack_fixture("workload-files", generation, folder / "workload-files")
    shutil.copytree(workload / "var/lib/juju", folder / "workload", symlinks=True)
    for path in folder.glob("*/agents/*/agent.conf"):
        text = path.read_text(encoding="utf-8").replace(":17070", f":{prepared.api_port}")
        text = text.replace("apiport: 17070", f"apiport: {prepared.api_port}")
        path.write_text(text.replace("stateport: 37017", f"stateport: {prepared.mongo_port}"), encoding="utf-8")
    archive = unpack_fixture("single", generation, folder / "archive") / "juju-backup"
    with standalone(binary, folder / "db") as client:
        load(client, str(archive), [MongoUser("machine-0", prepared.conf.require("statepassword"))])
        settings = {"settings.state-port": prepared.mongo_port, "settings.api-port": prepared.api_port}
        client.juju.controllers.update_one({"_id": "controllerSettings"}, {"$set": settings})
        for which in ("apiHostPorts", "apiHostPortsForAgents"):
            document = client.juju.controllers.find_one({"_id": which})
            text = json.dumps(document["apihostports"] if document else []).replace("17070", str(prepared.api_port))
            client.juju.controllers.update_one({"_id": which}, {"$set": {"apihostports": json.loads(text)}})
        for model in client.juju.models.find({"name": "prod"}):
            harvest = {"settings.provisioner-harvest-mode": "all"}
            client.juju.settings.update_one({"_id": f"{model['_id']}:e"}, {"$set": harvest})
    return prepared


class standalone:  # noqa: N801
    """A server without replication and users on a database folder."""

    def __init__(self, binary: Mongod, dbpath: Path) -> None:
        dbpath.mkdir(exist_ok=True)
        port = free_port()
        arguments = ["--dbpath", str(dbpath), "--port", str(port), "--bind_ip", "127.0.0.1"]
        self._server = Server(binary, arguments, MongoAccess(port=port))

    def __enter__(self) -> Client:
        self._server.start()
        self._client: Client = self._server.wait()
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._server.stop()


class Controller:
    """One case: its own copy of everything, and processes that end with it."""

    def __init__(self, binary: Mongod, prepared: Prepared, folder: Path) -> None:
        self.binary, self.prepared, self.folder = binary, prepared, folder
        shutil.copytree(prepared.folder / "db", folder / "db")
        for name in ("controller", "workload", "common"):
            shutil.copytree(prepared.folder / name, folder / name, symlinks=True)
        self.cloud = folder / "instances.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._server: Server | None = None

    @property
    def conf(self) -> AgentConf:
        return parse((self.folder / "controller/agents/machine-0/agent.conf").read_text(encoding="utf-8"))

    def standalone(self) -> standalone:
        return standalone(self.binary, self.folder / "db")

    def start_mongod(self, member: str = NEW) -> Client:
        """juju-db with TLS, key file and users, and a member at the given address."""
        common = self.folder / "common"
        (common / "shared-secret").chmod(0o600)
        arguments = ["--dbpath", str(self.folder / "db"), "--port", str(self.prepared.mongo_port)]
        arguments += [
            "--bind_ip",
            f"127.0.0.1,{NEW}",
            "--replSet",
            "juju",
            "--auth",
            "--keyFile",
            str(common / "shared-secret"),
        ]
        arguments += ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(common / "server.pem")]
        arguments += ["--tlsCAFile", str(common / "ca.crt"), "--tlsAllowInvalidHostnames"]
        self._server = Server(self.binary, arguments, access_from_agent_conf(self.conf, str(common)))
        self._server.start()
        client = self._server.wait()
        tags = {"juju-machine-id": "0"}
        members = [{"_id": 1, "host": f"{member}:{self.prepared.mongo_port}", "tags": tags}]
        client.admin.command("replSetInitiate", {"_id": "juju", "version": 1, "members": members})
        until_primary(client)
        return client

    def start_jujud(self, who: str = "controller") -> subprocess.Popen[bytes]:
        """The stand-in as the machine agent of the controller or of the workload."""
        version = f"{VERSIONS[self.prepared.generation]}.1-ubuntu-amd64"
        link = self.folder / who / "tools" / "machine-0"
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(version)
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent),
            "JUJU_LAB_MONGO_COMMON": str(self.folder / "common"),
            "JUJU_LAB_CLOUD": str(self.cloud),
            "JUJU_LAB_ADDRESSES": f"{NEW}/8",
            "JUJU_LAB_LISTEN": "0.0.0.0",
        }
        command = [sys.executable, "-c", JUJUD, "machine", "--data-dir", str(self.folder / who), "--machine-id", "0"]
        with self.log(who).open("ab") as log:
            self.processes[who] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self.processes[who]

    def log(self, who: str = "controller") -> Path:
        return self.folder / f"{who}.log"

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        if self._server:
            self._server.stop()

    def __enter__(self) -> Controller:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def eventually(check: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def agent_addresses(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(folder.glob("agents/*/agent.conf")):
        yield path.parent.name, parse(path.read_text(encoding="utf-8")).sequence("apiaddresses")
