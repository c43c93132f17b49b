"""Points the agents of all other machines at the restored controller, with an identity that every machine trusts."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Callable, Iterable, Mapping, Sequence

from . import repoint_remote
from .peergrouper import JOB_MANAGE_MODEL, merged_addresses
from .rules import addresses_of

DEAD = 2
# ssh's own code; every other one is of the command over there.
SSH_FAILED = 255
# Sockets at the same time while it is found out who listens; well below the usual limit of 1024 open files.
KNOCKS = 400
KNOCK_SECONDS = 5.0
# Clocks that differ by less do no harm to certificates.
CLOCK_SECONDS = 120
REMOTE = ("sudo", "-n", "python3", "-IS", "-")

# Runs a command with a text on its standard input: code, output, errors.
Feed = Callable[["list[str]", str, float], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Machine:
    """A machine of any model, and the addresses to try, in order.

    :param parent: for a container, the machine it is in.
    """

    model: str
    model_uuid: str
    machine: str
    addresses: tuple[str, ...]
    agents: tuple[str, ...]
    parent: str = ""

    @property
    def tag(self) -> str:
        return "machine-" + self.machine.replace("/", "-")


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    :param outcome: ``done``, ``unchanged``, ``unreachable`` or ``refused``.
    :param reason: why it is not done.
    :param warning: why its agents may not log in although it is done.
    :param agents: TAG@MODEL-UUID of the agents on the machine.
    :param seen: of these agents, by which evidence its login was seen.
    """

    model: str
    machine: str
    address: str
    outcome: str
    reason: str = ""
    warning: str = ""
    agents: list[str] = field(default_factory=list)
    model_uuid: str = ""
    seen: dict[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Nothing is left to do for this machine."""
        return self.outcome in ("done", "unchanged") and set(self.agents) <= set(self.seen)


@dataclass(frozen=True)
class Order:
    """What every machine is told."""

    addresses: tuple[str, ...]
    controller_uuid: str
    ca_cert: str
    stamp: str
    apply: bool


@dataclass(frozen=True)
class Ways:
    """How machines are reached.

    :param options: further options of ssh, for example the identity.
    :param knock: seconds in which who listens must answer a first knock; 0 does without, for where ssh's own configuration
        leads elsewhere.
    :param timeout: seconds for one machine.
    """

    user: str = "ubuntu"
    port: int = 22
    options: tuple[str, ...] = ()
    parallel: int = 32
    timeout: float = 30
    knock: float = KNOCK_SECONDS


def with_identity(identity: str) -> tuple[str, ...]:
    """Options of ssh to log in with one identity and nothing else of the host's configuration.

    Machines get new host keys with their images; the agent's CA is what proves who they are.
    """
    settings = {
        "IdentitiesOnly": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "PreferredAuthentications": "publickey",
    }
    return ("-F", "/dev/null", "-i", identity, *(part for key, value in settings.items() for part in ("-o", f"{key}={value}")))


def machines_from(database: Any, own_model: str, left_out: Sequence[str]) -> list[Machine]:
    """All machines of all models that still live and have an agent, controllers excluded.

    :param left_out: machine ids of the controller model that are left out besides: controllers that are lost.
    """
    names = {str(m["_id"]): str(m["name"]) for m in database.models.find({}, {"name": 1})}
    units: dict[tuple[str, str], list[str]] = {}
    for unit in database.units.find({}, {"name": 1, "model-uuid": 1, "machineid": 1}):
        key = (str(unit["model-uuid"]), str(unit.get("machineid")))
        units.setdefault(key, []).append(f"unit-{str(unit['name']).replace('/', '-')}@{unit['model-uuid']}")
    found = []
    for document in database.machines.find({"life": {"$ne": DEAD}, "tools": {"$exists": True}}):
        model, machine = str(document["model-uuid"]), str(document["machineid"])
        controls = JOB_MANAGE_MODEL in (document.get("jobs") or ()) or machine in left_out
        if model == own_model and controls:
            continue
        addresses = addresses_of({"addresses": merged_addresses(document)})
        agents = [f"machine-{machine.replace('/', '-')}@{model}", *sorted(units.get((model, machine), []))]
        parent = machine.rpartition("/")[0].rpartition("/")[0]
        found.append(Machine(names.get(model, model), model, machine, tuple(addresses), tuple(agents), parent))
    return sorted(found, key=lambda one: (one.model, one.model_uuid, one.machine))


@lru_cache(maxsize=1)
def _source() -> str:
    loader = repoint_remote.__loader__
    # From a file or from the zip that Ansible sends: both loaders know the source.
    return str(loader.get_source(repoint_remote.__name__))  # type: ignore[union-attr]


def script(order: Order, machine: Machine) -> str:
    """What is fed to python3 on a machine. It holds nothing secret."""
    told, meant = json.dumps(asdict(order)), json.dumps({"tag": machine.tag, "model": machine.model_uuid})
    return f"{_source()}\ntell({told!r}, {meant!r})\n"


def feed(command: list[str], text: str, timeout: float) -> tuple[int, str, str]:
    """Runs a command with a text on its standard input."""
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return SSH_FAILED, "", f"no answer within {timeout:.0f} s"
    return done.returncode, done.stdout, done.stderr


def ssh(address: str, ways: Ways, via: str = "") -> list[str]:
    """The command that runs a script as root on one machine.

    :param via: address of the machine whose container this is.
    """
    connect = ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", f"ConnectTimeout={max(1, int(ways.timeout / 3))}"]
    common = ["ssh", *ways.options, *connect, "-p", str(ways.port)]
    if via:
        # Not ProxyJump, which would log in to the host without our options.
        jump = " ".join(shlex.quote(word) for word in [*common, "-W", "[%h]:%p", f"{ways.user}@{via}"])
        common += ["-o", f"ProxyCommand={jump}"]
    return [*common, f"{ways.user}@{address}", *REMOTE]


def listening(addresses: Iterable[str], port: int, timeout: float) -> set[str]:
    """Which addresses accept connections, all asked at once: the dead ones cost one time-out together, not one each."""

    async def knock(address: str, free: asyncio.Semaphore) -> str:
        async with free:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), timeout)
            except (OSError, asyncio.TimeoutError):
                return ""
            writer.close()
            return address

    async def all_of_them() -> set[str]:
        free = asyncio.Semaphore(KNOCKS)
        return {one for one in await asyncio.gather(*(knock(address, free) for address in set(addresses))) if one}

    return asyncio.run(all_of_them())


def repoint(
    machines: Sequence[Machine], order: Order, ways: Ways, run: Feed = feed, note: Callable[[Entry], None] = lambda _: None
) -> list[Entry]:
    """Tells every machine, many at once; one that cannot be reached is an entry like any other.

    :param note: called with each entry as soon as it is known, by one thread at a time.
    """
    every = [address for machine in machines for address in machine.addresses]
    open_ = listening(every, ways.port, ways.knock) if ways.knock else set(every)
    noting = threading.Lock()
    hosts = {(m.model_uuid, m.machine): [a for a in m.addresses if a in open_] for m in machines}

    def one(machine: Machine) -> Entry:
        direct = [(address, "") for address in machine.addresses if address in open_]
        # A container's addresses are often known to its host only.
        host = hosts.get((machine.model_uuid, machine.parent), [])
        entry = _tell(machine, direct or [(a, via) for via in host[:1] for a in machine.addresses], order, ways, run)
        with noting:
            note(entry)
        return entry

    with ThreadPoolExecutor(max(1, ways.parallel)) as workers:
        return list(workers.map(one, machines))


def _tell(machine: Machine, routes: Sequence[tuple[str, str]], order: Order, ways: Ways, run: Feed) -> Entry:
    where = ", ".join(machine.addresses)
    unreachable = f"nothing answers at port {ways.port}" if where else "the database knows no address of it"
    entry = Entry(
        machine.model, machine.machine, where, "unreachable", unreachable, "", list(machine.agents), machine.model_uuid
    )
    for address, via in routes:
        code, output, errors = run(ssh(address, ways, via), script(order, machine), ways.timeout)
        entry = replace(entry, address=address)
        if code == 0:
            entry = _entry(entry, _last_json(output), bool(via))
            if entry.outcome != "unreachable":
                return entry
            continue
        reason = (errors.strip().splitlines() or [f"ssh ended with code {code}"])[-1]
        if code != SSH_FAILED or "Permission denied" in reason:
            entry = replace(entry, outcome="refused", reason=reason)
            if code != SSH_FAILED:
                return entry
        else:
            entry = replace(entry, outcome="unreachable", reason=reason)
    return entry


def _last_json(output: str) -> dict[str, Any]:
    """What the script printed, behind whatever a login prints; empty when it printed nothing."""
    try:
        told: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return told


def _entry(entry: Entry, told: Mapping[str, Any], contained: bool) -> Entry:
    if not told:
        return replace(entry, outcome="refused", reason="its answer was cut off")
    if told["elsewhere"]:
        return replace(entry, outcome="unreachable", reason=f"{entry.address} is another machine: {told['elsewhere']}")
    agents = [str(agent) for agent in told["agents"]] or entry.agents
    if told["refused"] or told["failed"]:
        reason = "; ".join([*told["refused"], *(f"{unit} did not restart" for unit in told["failed"])])
        return replace(entry, outcome="refused", reason=reason, agents=agents)
    return replace(
        entry,
        outcome="done" if told["changed"] else "unchanged",
        reason="",
        warning=_warning(told, time.time()),
        agents=agents,
    )


def _warning(told: Mapping[str, Any], now: float) -> str:
    """What will keep agents away although they are pointed right."""
    ahead = float(told["clock"]) - now
    found = []
    if abs(ahead) > CLOCK_SECONDS:
        size = f"{abs(ahead) / 86400:.1f} days" if abs(ahead) > 86400 else f"{abs(ahead):.0f} s"
        found.append(f"its clock is {size} {'ahead' if ahead > 0 else 'behind'}: set it, certificates are judged by it")
    if told["controller"]:
        found.append(f"it cannot reach the controller ({told['controller']})")
    return "; ".join(found)
