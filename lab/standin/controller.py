"""A controller's machine agent: what must fit before it works, and what it does then."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf, drop_mapping_keys
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect
from ansible.module_utils.juju_dr.schema import generation
from pymongo import errors as pymongo_errors

from lab.standin.agent import Agent, unit_agents
from lab.standin.api import Api, listen_address
from lab.standin.common import STOP, Backoff, host_addresses, log, password_hash, read_conf, write_conf
from lab.standin.workers import Workers

TERMINATED = "agent should be terminated"


class Terminated(Exception):
    """jujud ends with code 0, so that systemd leaves it down."""


def run_controller(data_dir: Path, machine_id: str) -> int:
    """Runs until told to stop, or ends with 0 when the documents do not want this agent."""
    path = data_dir / "agents" / f"machine-{machine_id}" / "agent.conf"
    conf = read_conf(path)
    client = _state(conf)
    if client is None:
        return 0
    try:
        check_entity(client.juju, conf, machine_id)
    except Terminated as error:
        log("ERROR", "juju.agent", str(error))
        log("ERROR", "juju.worker.dependency", TERMINATED)
        return 0
    first = generation(conf.require("upgradedToVersion")) == "2.9"
    workers = Workers(client, conf, machine_id, first)
    _until_it_works(workers.machiner)
    threading.Thread(target=workers.run, daemon=True).start()
    backoff = Backoff(most=5.0)
    while not STOP.is_set():
        reason = closed(client.juju, conf, data_dir, machine_id, first)
        if not reason:
            break
        log("ERROR", "juju.worker.dependency", f"api-server not started: {reason}")
        log(
            "ERROR",
            "juju.worker.apicaller",
            "cannot open api: unable to connect to API: dial tcp 127.0.0.1:17070: connection refused",
        )
        backoff.wait()
    if not STOP.is_set():
        threading.Thread(target=Api(conf, client.juju, listen_address()).serve, daemon=True).start()
        _deploy_units(client.juju, conf, path, data_dir, first)
        for agent in [path, *unit_agents(data_dir)]:
            Agent(agent, local=True).start()
    while not STOP.wait(1):
        pass
    os._exit(0)


def _state(conf: AgentConf) -> Any:
    """A client of the own member, tried until it is there."""
    common = os.environ.get("JUJU_LAB_MONGO_COMMON", "/var/snap/juju-db/common")
    backoff = Backoff()
    while not STOP.is_set():
        try:
            # As Juju's driver does: it writes to the primary, wherever that is.
            client = connect(replace(access_from_agent_conf(conf, common), direct=False), timeout_seconds=3)
            if client.admin.command("isMaster").get("primary"):
                return client
            log("ERROR", "juju.worker.state", "cannot open state: no reachable servers: no primary")
        except (JujuDrError, pymongo_errors.PyMongoError) as error:
            log("ERROR", "juju.worker.state", f"cannot open state: {error}")
        backoff.wait()
    return None


def _until_it_works(worker: Any) -> None:
    backoff = Backoff()
    while not STOP.is_set():
        try:
            worker()
            return
        except pymongo_errors.PyMongoError as error:
            log("ERROR", "juju.worker.machiner", str(error)[:200])
            backoff.wait()


def check_entity(database: Any, conf: AgentConf, machine_id: str) -> None:
    """What jujud compares before anything else.

    :raises Terminated: the documents know another machine, or none.
    """
    model = conf.require("model")[len("model-") :]
    machine = database.machines.find_one({"_id": f"{model}:{machine_id}"})
    if conf.require("tag") != f"machine-{machine_id}" or machine is None:
        raise Terminated(f"machine {machine_id} not found")
    if machine.get("life") == 2:
        raise Terminated(f"machine {machine_id} is dead")
    if machine.get("nonce") != conf.scalar("nonce"):
        raise Terminated(f"running machine {machine_id} agent on inappropriate instance")
    passwords = [conf.scalar("apipassword") or "", conf.scalar("oldpassword") or ""]
    if machine.get("passwordhash") not in [password_hash(one) for one in passwords]:
        raise Terminated("invalid entity name or password")
    controllers = database.controllers.find_one({"_id": "e"}) or {}
    if 2 not in machine.get("jobs", []) or machine_id not in controllers.get("controller-ids", []):
        raise Terminated(f"machine {machine_id} is not a controller")


def closed(database: Any, conf: AgentConf, data_dir: Path, machine_id: str, first: bool) -> str:
    """Why the API stays closed; empty when the state is whole."""
    model = conf.require("model")[len("model-") :]
    document = database.models.find_one({"_id": model}) or {}
    if f"controller-{document.get('controller-uuid')}" != conf.require("controller"):
        return "the model belongs to another controller"
    if (database.controllers.find_one({"_id": "e"}) or {}).get("model-uuid") != model:
        return "the controller model is another one"
    settings = (database.controllers.find_one({"_id": "controllerSettings"}) or {}).get("settings", {})
    if str(settings.get("ca-cert", "")).strip() != conf.require("cacert").strip():
        return "x509: certificate signed by unknown authority"
    wanted = (database.settings.find_one({"_id": f"{model}:e"}) or {}).get("settings", {}).get("agent-version")
    tools = os.readlink(data_dir / "tools" / f"machine-{machine_id}").rpartition("/")[2]
    if wanted != conf.require("upgradedToVersion") or not tools.startswith(f"{wanted}-"):
        return f"upgrade mode: agent version {wanted} is wanted"
    if first:
        (data_dir / "raft").mkdir(mode=0o700, exist_ok=True)
        return ""
    return _dqlite(data_dir / "dqlite")


def _dqlite(folder: Path) -> str:
    """3.x: the schema of the lease database is made at bootstrap only; Raft's folder is bound to its address."""
    info = folder / "info.yaml"
    if info.exists():
        text = info.read_text(encoding="utf-8")
        address = next(
            (line.partition(":")[2].strip().rpartition(":")[0] for line in text.splitlines() if line.startswith("Address")), ""
        )
        if address not in ["127.0.0.1", *(one for one, _ in host_addresses())]:
            return f"dqlite: cannot bind {address}"
    try:
        with sqlite3.connect(f"file:{folder / 'controller'}?mode=ro", uri=True) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    except sqlite3.Error:
        tables = set()
    return "" if {"lease", "lease_pin"} <= tables else "dqlite is not ready"


def _deploy_units(database: Any, conf: AgentConf, path: Path, data_dir: Path, first: bool) -> None:
    """The deployer: a unit it remembers must be there; one it does not remember is made anew."""
    if first:
        return
    model = conf.require("model")[len("model-") :]
    remembered = [unit for unit in conf.mapping("values").get("deployed-units", "").split(",") if unit]
    for unit in database.units.find({"model-uuid": model, "machineid": conf.require("tag")[len("machine-") :]}):
        name = str(unit["name"])
        folder = data_dir / "agents" / f"unit-{name.replace('/', '-')}"
        if (folder / "agent.conf").exists():
            continue
        if name in remembered:
            log("ERROR", "juju.worker.deployer", f'unable to start unit "{name}": cannot read agent config')
            continue
        password = secrets.token_urlsafe(18)
        folder.mkdir(mode=0o755, parents=True)
        text = drop_mapping_keys(path.read_text(encoding="utf-8"), "values", list(conf.mapping("values")))
        lines = [
            {
                "tag:": f"tag: unit-{name.replace('/', '-')}",
                "nonce:": "nonce: unused",
                "apipassword:": f"apipassword: {password}",
            }.get(line.split(" ")[0], line)
            for line in text.splitlines()
        ]
        with open(os.open(folder / "agent.conf", os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as target:
            target.write("\n".join(lines) + "\n")
        database.units.update_one({"_id": unit["_id"]}, {"$set": {"passwordhash": password_hash(password)}})
        own = path.read_text(encoding="utf-8")
        write_conf(
            path,
            own.replace("values:\n", f"values:\n  deployed-units: {name}\n", 1).replace(
                "values: {}\n", f"values:\n  deployed-units: {name}\n", 1
            ),
        )
        log("INFO", "juju.worker.deployer", f"deployed {name} anew")
