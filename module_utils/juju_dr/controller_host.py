"""What a host is: which controller machine, which versions, whether its database answers, how much room there is."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from .agent_conf import AgentConf, parse
from .errors import JujuDrError
from .files import size_of
from .mongo import access_from_agent_conf, connect, driver_version
from .schema import generation

if TYPE_CHECKING:
    from pymongo import MongoClient

Run = Callable[["list[str]"], "tuple[int, str, str]"]


def start_unit(run: Run, unit: str) -> tuple[int, str]:
    """Starts a unit of systemd however often it was started of late; returns the exit code and what was said.

    systemd refuses to start a unit that was started often in a short time, which a backup's stops and starts may add up to.
    """
    # Fails for a unit that is not loaded, whose starts are not counted either.
    run(["systemctl", "reset-failed", unit])
    code, _, errors = run(["systemctl", "start", unit])
    return code, errors.strip()


@dataclass(frozen=True)
class Agent:
    """The machine agent of a host: its machine id and its agent.conf."""

    machine_id: str
    path: Path
    conf: AgentConf


def machine_agent(data_dir: str) -> Agent:
    """The controller machine agent of this host.

    :raises JujuDrError: there is none, or it is no controller's.
    """
    found = []
    for path in sorted(Path(data_dir).glob("agents/machine-*/agent.conf")):
        conf = parse(path.read_text(encoding="utf-8"))
        if conf.scalar("controllerkey"):
            found.append(Agent(path.parent.name[len("machine-") :], path, conf))
    if len(found) != 1:
        raise JujuDrError(
            f"There are {len(found)} controller machine agents below {data_dir}/agents",
            "Name a controller machine's data_dir",
        )
    return found[0]


def controller_client(data_dir: str, mongo_common: str) -> MongoClient[dict[str, Any]]:
    """A client of this controller machine's own member, logged in as its machine agent does.

    :raises JujuDrError: no controller agent here, or its database does not answer.
    """
    return connect(access_from_agent_conf(machine_agent(data_dir).conf, mongo_common))


def describe(data_dir: str, mongo_common: str, service: str, run: Run) -> dict[str, Any]:
    """All that choosing a member and judging a target need. Never fails because something is down."""
    unit_known = run(["systemctl", "cat", service])[0] == 0
    result: dict[str, Any] = {
        "is_controller": False,
        "reason": "",
        "machine_id": "",
        "controller_uuid": "",
        "model_uuid": "",
        "version": "",
        "generation": "",
        "api_port": 0,
        "state_port": 0,
        "api_addresses": [],
        "jujud_service": "",
        "juju_db_service": service if unit_known else "",
        "juju_db_installed": unit_known,
        "has_dqlite": _not_empty(Path(data_dir) / "dqlite"),
        "pymongo": driver_version(),
        "python": platform.python_version(),
        "replica_set": {"available": False, "reason": "there is no controller on this host", "members": []},
        "sizes": {"database": size_of(Path(mongo_common) / "db"), "files": size_of(Path(data_dir))},
        "free": {place: _free(place) for place in (data_dir, mongo_common)},
    }
    try:
        agent = machine_agent(data_dir)
        conf = agent.conf
        result.update(
            is_controller=True,
            machine_id=agent.machine_id,
            controller_uuid=conf.require("controller")[len("controller-") :],
            model_uuid=conf.require("model")[len("model-") :],
            version=conf.require("upgradedToVersion"),
            generation=generation(conf.require("upgradedToVersion")),
            api_port=int(conf.require("apiport")),
            state_port=int(conf.require("stateport")),
            api_addresses=conf.sequence("apiaddresses"),
            jujud_service=f"jujud-machine-{agent.machine_id}",
        )
        result["replica_set"]["reason"] = ""
        result["replica_set"].update(_replica_set(conf, mongo_common))
    except JujuDrError as error:
        result["reason" if not result["is_controller"] else "replica_set"] = (
            str(error) if not result["is_controller"] else {**result["replica_set"], "reason": str(error)}
        )
    return result


def _replica_set(conf: AgentConf, mongo_common: str) -> dict[str, Any]:
    with connect(access_from_agent_conf(conf, mongo_common)) as client:
        if not client.admin.command("isMaster").get("setName"):
            raise JujuDrError("The replica set is not initiated", "Let jujud start, or restore this controller")
        config = client.admin.command("replSetGetConfig")["config"]
        status = client.admin.command("replSetGetStatus")
    states = {one["_id"]: one for one in status["members"]}
    newest = max((one["optimeDate"] for one in status["members"] if "optimeDate" in one), default=None)
    members = []
    for one in config["members"]:
        state = states.get(one["_id"], {})
        lag = (newest - state["optimeDate"]).total_seconds() if newest and "optimeDate" in state else None
        members.append(
            {
                "id": one["_id"],
                "host": one["host"],
                "machine_id": (one.get("tags") or {}).get("juju-machine-id"),
                "state": state.get("stateStr", "UNKNOWN"),
                "health": state.get("health", 0),
                "lag_seconds": lag,
            }
        )
    own = next((m["id"] for m in members if states.get(m["id"], {}).get("self")), None)
    return {"available": True, "name": config["_id"], "self": own, "members": members}


def _not_empty(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _free(place: str) -> int:
    """Bytes free where the place is, or will be."""
    path = Path(place)
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
