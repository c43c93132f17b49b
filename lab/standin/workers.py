"""The workers of a controller that change things: peergrouper, instance poller, provisioner, machiner."""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.juju_dr.agent_conf import AgentConf
from ansible.module_utils.juju_dr.peergrouper import (
    MACHINE_TAG,
    Member,
    desired,
    documents_from,
    members_from,
    merged_addresses,
    read_collections,
)
from pymongo import errors as pymongo_errors

from lab.standin.common import POLL_SECONDS, STOP, host_addresses, log

CLOUD = Path("/srv/juju-lab-cloud/instances.json")


class Workers:
    """One controller's workers; each runs once a round.

    :param first: generation 2.9, whose instance poller writes addresses of manual machines.
    """

    def __init__(self, client: Any, conf: AgentConf, machine_id: str, first: bool) -> None:
        self.client, self.database, self.conf, self.machine_id, self.first = client, client.juju, conf, machine_id, first
        self.model = conf.require("model")[len("model-") :]

    def run(self) -> None:
        """Rounds until the agent stops; a worker that fails bounces and tries again."""
        rounds: list[tuple[str, Callable[[], None]]] = [
            ("instancepoller", self.instance_poller),
            ("peergrouper", self.peergrouper),
            ("provisioner", self.provisioner),
        ]
        while not STOP.is_set():
            for name, worker in rounds:
                try:
                    if self._is_primary():
                        worker()
                except (pymongo_errors.PyMongoError, KeyError, ValueError, OSError) as error:
                    log("ERROR", f"juju.worker.{name}", f"{str(error)[:300]}")
            STOP.wait(POLL_SECONDS)

    def _is_primary(self) -> bool:
        """Only the controller on the primary acts; it knows itself by the tag of its member."""
        hello = self.client.admin.command("isMaster")
        return bool(hello.get("ismaster")) and (hello.get("tags") or {}).get(MACHINE_TAG) == self.machine_id

    # --- machiner

    def machiner(self) -> None:
        """At its start a machine agent tells which addresses its host has."""
        own = []
        for address, interface in host_addresses():
            entry = {"value": address, "addresstype": "ipv4", "networkscope": "local-cloud", "origin": "machine"}
            own.append(entry if self.first else {**entry, "cidr": str(ipaddress.ip_interface(interface).network)})
        machine = self.database.machines.find_one({"_id": f"{self.model}:{self.machine_id}"})
        loopback = [a for a in machine.get("machineaddresses") or [] if a["networkscope"] == "local-machine"]
        self.database.machines.update_one({"_id": machine["_id"]}, {"$set": {"machineaddresses": [*own, *loopback]}})

    # --- peergrouper

    def peergrouper(self) -> None:
        collections = read_collections(self.database)
        self._publish(collections.machines)
        config = self.client.admin.command("replSetGetConfig")["config"]
        status = self.client.admin.command("replSetGetStatus")
        decision = desired(documents_from(collections), members_from(config, status))
        for error in decision.errors:
            log("ERROR", "juju.worker.peergrouper", error)
        if decision.errors or decision.steady:
            self._votes(collections.controller_nodes, decision.members)
            return
        log("INFO", "juju.worker.peergrouper", f"desired peer group members: {[m.host for m in decision.members]}")
        old = {member["_id"]: member for member in config["members"]}
        # One change at a time, as MongoDB 4.4 wants it.
        added, removed = decision.added[:1], set() if decision.added else {m.id for m in decision.removed[:1]}
        members = [_config(old.get(m.id), m) for m in decision.members if m.id in old or m in added]
        members += [one for key, one in old.items() if key not in {m.id for m in decision.members} and key not in removed]
        self.client.admin.command({"replSetReconfig": {**config, "version": config["version"] + 1, "members": members}})

    def _publish(self, machines: Any) -> None:
        """All controllers' addresses, for clients and for agents."""
        ids = self.database.controllers.find_one({"_id": "e"})["controller-ids"]
        own = {str(m["machineid"]): m for m in machines if m["model-uuid"] == self.model}
        port = int(self.conf.require("apiport"))
        fields = ("value", "addresstype", "networkscope", "spaceid")
        servers = [
            [{**{k: a[k] for k in fields if k in a}, "port": port} for a in merged_addresses(own[i])] for i in ids if i in own
        ]
        for which in ("apiHostPorts", "apiHostPortsForAgents"):
            self.database.controllers.update_one(
                {"_id": which, "apihostports": {"$ne": servers}}, {"$set": {"apihostports": servers}}
            )

    def _votes(self, nodes: Any, members: tuple[Member, ...]) -> None:
        voting = {m.machine_id: m.votes for m in members}
        for node in nodes:
            has = voting.get(str(node["_id"]).partition(":")[2], False)
            if bool(node.get("has-vote")) != has:
                self.database.controllerNodes.update_one({"_id": node["_id"]}, {"$set": {"has-vote": has}})

    # --- instance poller, provisioner

    def instance_poller(self) -> None:
        """The manual cloud knows a machine by the address in its instance id; the first one by the cloud's endpoint."""
        clouds = {c["name"]: c for c in self.database.clouds.find()}
        models = {m["_id"]: m for m in self.database.models.find()}
        for instance in self.database.instanceData.find():
            cloud = clouds.get(models.get(instance["model-uuid"], {}).get("cloud"), {})
            if cloud.get("type") != "manual" or not instance["instanceid"].startswith("manual:"):
                continue
            address = instance["instanceid"][len("manual:") :] or str(cloud["endpoint"]).rpartition("@")[2]
            key = f"{instance['model-uuid']}:{instance['machineid']}"
            if self.first:
                told = {"value": address, "addresstype": "ipv4", "networkscope": "public", "origin": "machine"}
                self.database.machines.update_one(
                    {"_id": key, "addresses.value": {"$ne": address}}, {"$set": {"addresses": [told]}}
                )

    def provisioner(self) -> None:
        """Harvesting: instances that no machine document knows, and those of dead machines, by the model's mode."""
        for model in self.database.models.find():
            settings = self.database.settings.find_one({"_id": f"{model['_id']}:e"})
            mode = ((settings or {}).get("settings") or {}).get("provisioner-harvest-mode", "destroyed")
            known = {i["instanceid"]: i["machineid"] for i in self.database.instanceData.find({"model-uuid": model["_id"]})}
            dead = {str(m["machineid"]) for m in self.database.machines.find({"model-uuid": model["_id"], "life": 2})}
            harvest(model["_id"], mode, known, dead)


def harvest(model: str, mode: str, known: dict[str, str], dead: set[str]) -> None:
    """Stops what the mode says, in the file that is the lab's cloud."""
    cloud = Path(os.environ.get("JUJU_LAB_CLOUD", CLOUD))
    if not cloud.exists():
        return
    with open(cloud, "r+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        instances = json.load(file)
        stopped = []
        for one in instances:
            if one["model"] != model or one["state"] != "running":
                continue
            unknown, gone = one["id"] not in known, known.get(one["id"]) in dead
            if (unknown and mode in ("unknown", "all")) or (gone and mode in ("destroyed", "all")):
                one["state"] = "stopped"
                stopped.append(one["id"])
        if stopped:
            log("INFO", "juju.worker.provisioner", f"stopping instances {stopped} of model {model} (harvest mode {mode})")
            file.seek(0)
            file.truncate()
            json.dump(instances, file, indent=1)


def _config(old: dict[str, Any] | None, member: Member) -> dict[str, Any]:
    """A member of the replica set configuration; without a vote it has no priority either."""
    config = {**(old or {}), "_id": member.id, "host": member.host, "tags": {MACHINE_TAG: member.machine_id}}
    return {**config, "votes": int(member.votes), "priority": float(member.votes)}
