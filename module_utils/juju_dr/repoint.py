"""Points the agents of all other machines at the restored controller, from there, with the identity every machine trusts."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from . import repoint_remote
from .controller_host import controller_client, machine_agent
from .files import write_whole
from .peergrouper import merged_addresses
from .rules import addresses_of

DEAD = 2
# ssh's own code; every other one is of the command over there.
SSH_FAILED = 255
LEDGER = Path("/var/lib/juju-dr/repoint-ledger.json")

# Runs a command with a script on its standard input: code, output, errors.
Feed = Callable[["list[str]", str, float], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Machine:
    """A machine of any model, and the addresses to try, in order."""

    model: str
    machine: str
    addresses: tuple[str, ...]
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    :param outcome: ``done``, ``unchanged``, ``unreachable`` or ``refused``.
    :param agents: TAG@MODEL-UUID of the agents on the machine.
    """

    model: str
    machine: str
    address: str
    outcome: str
    reason: str
    agents: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What every machine is told."""

    addresses: tuple[str, ...]
    controller_uuid: str
    ca_cert: str
    stamp: str
    apply: bool


def machines_from(database: Any, own_model: str, controllers: Sequence[str]) -> list[Machine]:
    """All machines of all models that still live.

    :param controllers: machine ids of the controller model that are left out: the restored one, and those that are lost.
    """
    names = {str(m["_id"]): str(m["name"]) for m in database.models.find()}
    units: dict[tuple[str, str], list[str]] = {}
    for unit in database.units.find({}, {"name": 1, "model-uuid": 1, "machineid": 1}):
        key = (str(unit["model-uuid"]), str(unit.get("machineid")))
        units.setdefault(key, []).append(f"unit-{str(unit['name']).replace('/', '-')}@{unit['model-uuid']}")
    found = []
    for document in database.machines.find({"life": {"$ne": DEAD}}):
        model, machine = str(document["model-uuid"]), str(document["machineid"])
        addresses = addresses_of({"addresses": merged_addresses(document)})
        if (model == own_model and machine in controllers) or not addresses:
            continue
        agents = [f"machine-{machine.replace('/', '-')}@{model}", *sorted(units.get((model, machine), []))]
        found.append(Machine(names.get(model, model), machine, tuple(addresses), tuple(agents)))
    return sorted(found, key=lambda one: (one.model, one.machine))


def script(order: Order) -> str:
    """What is fed to python3 on each machine. It holds nothing secret."""
    loader = repoint_remote.__loader__
    # From a file or from the zip that Ansible sends: both loaders know the source.
    source = loader.get_source(repoint_remote.__name__)  # type: ignore[union-attr]
    told = json.dumps({**order.__dict__, "addresses": list(order.addresses)})
    return f"{source}\ntell({told!r})\n"


def feed(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
    """Runs a command with a text on its standard input."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return 255, "", f"no answer within {timeout:.0f} s"
    return done.returncode, done.stdout, done.stderr


def ssh(address: str, user: str, identity: str, connect_seconds: int) -> list[str]:
    """The command that runs a script as root on one machine."""
    options = {
        "BatchMode": "yes",
        "IdentitiesOnly": "yes",
        # Machines get new host keys with their images; the agent's CA is what proves who they are.
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ConnectTimeout": str(connect_seconds),
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return ["ssh", "-i", identity, *flags, f"{user}@{address}", "sudo", "-n", "python3", "-"]


def repoint(
    machines: Sequence[Machine], order: Order, user: str, identity: str, parallel: int, timeout: float, run: Feed = feed
) -> list[Entry]:
    """Tells every machine, many at once; one that cannot be reached is an entry like any other."""
    text = script(order)

    def one(machine: Machine) -> Entry:
        return _tell(machine, text, user, identity, timeout, run)

    with ThreadPoolExecutor(max(1, parallel)) as workers:
        return list(workers.map(one, machines))


def _tell(machine: Machine, text: str, user: str, identity: str, timeout: float, run: Feed) -> Entry:
    reason = "it has no address"
    for address in machine.addresses:
        code, output, errors = run(ssh(address, user, identity, max(1, int(timeout / 3))), text, timeout)
        if code == 0:
            return _entry(machine, address, json.loads(output.strip().splitlines()[-1]))
        reason = (errors.strip().splitlines() or [f"ssh ended with code {code}"])[-1]
        if code != SSH_FAILED:
            return Entry(machine.model, machine.machine, address, "refused", reason, list(machine.agents))
    return Entry(machine.model, machine.machine, ", ".join(machine.addresses), "unreachable", reason, list(machine.agents))


def _entry(machine: Machine, address: str, told: Mapping[str, Any]) -> Entry:
    agents = [str(agent) for agent in told["agents"]]
    if told["refused"] or told["failed"]:
        reason = "; ".join([*told["refused"], *(f"{unit} did not restart" for unit in told["failed"])])
        return Entry(machine.model, machine.machine, address, "refused", reason, agents or list(machine.agents))
    return Entry(machine.model, machine.machine, address, "done" if told["changed"] else "unchanged", "", agents)


def write_ledger(entries: Sequence[Entry], path: Path = LEDGER) -> None:
    """Keeps the ledger on the controller, whole or not at all."""
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    write_whole(path, json.dumps([entry.__dict__ for entry in entries], indent=1) + "\n")


def repoint_all(
    data_dir: str,
    mongo_common: str,
    addresses: Sequence[str],
    lost_controllers: Sequence[str],
    user: str,
    parallel: int,
    timeout: float,
    apply: bool,
) -> list[Entry]:
    """Re-points every machine of every model, from the restored controller's own database."""
    agent = machine_agent(data_dir)
    with controller_client(data_dir, mongo_common) as client:
        machines = machines_from(
            client.juju, agent.conf.require("model")[len("model-") :], [agent.machine_id, *lost_controllers]
        )
    order = Order(
        tuple(addresses),
        agent.conf.require("controller")[len("controller-") :],
        agent.conf.require("cacert"),
        datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S"),
        apply,
    )
    return repoint(machines, order, user, str(Path(data_dir) / "system-identity"), parallel, timeout)
