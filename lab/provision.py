"""Runs inside a controller host of the lab, as ``python3 -m lab.provision``: loads the database, makes it true, starts it.

Reads one JSON object: ``hosts`` (name, address, role, machine_id), ``passwords`` by machine id, ``documents``, ``release``.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.load import MongoUser, load
from ansible.module_utils.juju_dr.loading_server import loading_server
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect

from lab.generator import grow
from lab.standin.common import password_hash

COMMON = "/var/snap/juju-db/common"
SERVICE = "snap.juju-db.daemon"
SOURCE = "/root/lab-source"


def run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def main(told: dict[str, Any]) -> None:
    controllers = [host for host in told["hosts"] if host["role"] == "controller"]
    conf = parse(Path("/var/lib/juju/agents/machine-0/agent.conf").read_text(encoding="utf-8"))
    users = [MongoUser("admin", conf.require("oldpassword")), MongoUser("machine-0", conf.require("statepassword"))]
    users += [MongoUser(f"machine-{h['machine_id']}", told["passwords"][h["machine_id"]]) for h in controllers[1:]]
    with loading_server(COMMON, SERVICE, run) as client:
        load(client, SOURCE, users)
        model = next(client.juju.controllers.find({"_id": "e"}))["model-uuid"]
        for machine_id, password in told["passwords"].items():
            client.juju.machines.update_one(
                {"_id": f"{model}:{machine_id}"}, {"$set": {"passwordhash": password_hash(password)}}
            )
        if len(controllers) > 1:
            make_highly_available(client.juju, model, controllers)
        grow(client, told["release"], told["documents"], seed=1)
    subprocess.run(["systemctl", "enable", "--quiet", "--now", SERVICE], check=True)
    members = [
        {"_id": number, "host": f"{host['address']}:37017", "tags": {"juju-machine-id": host["machine_id"]}}
        for number, host in enumerate(controllers, 1)
    ]
    access = access_from_agent_conf(conf, COMMON)
    client = _retry(lambda: connect(access, 2))
    client.admin.command("replSetInitiate", {"_id": "juju", "version": 1, "members": members})
    _retry(lambda: _healthy(client, len(members)))


def make_highly_available(database: Any, model: str, controllers: list[dict[str, str]]) -> None:
    """What enable-ha leaves in the documents: three controllers, each with job, node and addresses."""
    ids = [host["machine_id"] for host in controllers]
    database.controllers.update_one({"_id": "e"}, {"$set": {"controller-ids": ids}})
    node = database.controllerNodes.find_one({"_id": f"{model}:0"})
    for host in controllers[1:]:
        key = f"{model}:{host['machine_id']}"
        database.controllerNodes.insert_one({**node, "_id": key})
        database.machines.update_one({"_id": key}, {"$set": {"jobs": [1, 2]}})
    for which in ("apiHostPorts", "apiHostPortsForAgents"):
        document = database.controllers.find_one({"_id": which})
        servers = []
        for host in controllers:
            server = copy.deepcopy(document["apihostports"][0])
            server[0]["value"] = host["address"]
            servers.append(server)
        database.controllers.update_one({"_id": which}, {"$set": {"apihostports": servers}})


def _healthy(client: Any, wanted: int) -> bool:
    states = [m["state"] for m in client.admin.command("replSetGetStatus")["members"]]
    if sorted(states) != [1, *[2] * (wanted - 1)]:
        raise RuntimeError(f"member states are {states}")
    return True


def _retry(action: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except Exception as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"not within {seconds:.0f} s: {error}") from error
            time.sleep(0.2)


if __name__ == "__main__":
    main(json.load(sys.stdin))
