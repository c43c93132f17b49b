"""Juju's replica set arithmetic: what its peergrouper worker would make of a replica set and the controller's documents.

The numbers in comments are the steps of Juju's own computation, in its order. The restore asks this before it initiates a
member and proves it afterwards; the lab's stand-in for jujud acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

JOB_MANAGE_MODEL = 2
ALIVE = 0
MACHINE_TAG = "juju-machine-id"
HEALTHY_STATES = (1, 2)
PRIMARY = 1


@dataclass(frozen=True)
class Controller:
    """One controller machine as its documents tell it.

    :param addresses: provider's first, then the machine's own, each an address sub-document.
    :param pending: its machine status is pending.
    """

    machine_id: str
    alive: bool
    wants_vote: bool
    addresses: tuple[Mapping[str, Any], ...] = ()
    pending: bool = False


@dataclass(frozen=True)
class ControllerDocuments:
    """What the peergrouper reads from the database.

    :param ha_space_id: id of the space named by juju-ha-space; None when the setting is empty.
    """

    controllers: tuple[Controller, ...]
    ha_space_id: str | None = None
    state_port: int = 37017


@dataclass(frozen=True)
class Member:
    """One replica set member.

    :param healthy: PRIMARY or SECONDARY, and reached by the others.
    """

    id: int
    host: str
    machine_id: str | None
    votes: bool = True
    healthy: bool = False
    primary: bool = False


@dataclass(frozen=True)
class Decision:
    """What the peergrouper would do.

    :ivar members: the set it wants, in order of member id.
    :ivar errors: in Juju's words; with one of these it changes nothing.
    :ivar step_down: it would make the primary step down first.
    """

    members: tuple[Member, ...] = ()
    added: tuple[Member, ...] = ()
    removed: tuple[Member, ...] = ()
    changed: tuple[Member, ...] = ()
    errors: tuple[str, ...] = ()
    step_down: bool = False

    def keeps(self, machine_id: str, host: str) -> bool:
        """Whether this machine's member stays at this host, with its vote."""
        wanted = [m for m in self.members if m.machine_id == machine_id]
        return not self.errors and not self.step_down and [(m.host, m.votes) for m in wanted] == [(host, True)]

    @property
    def steady(self) -> bool:
        """Whether there is nothing left to change."""
        return not (self.added or self.removed or self.changed or self.errors or self.step_down)


class NoAddress(Exception):
    """Juju cannot tell which address of a controller the others shall use."""


def desired(documents: ControllerDocuments, members: Sequence[Member]) -> Decision:
    """The replica set that the peergrouper wants."""
    # (1) Pending machines are not looked at at all.
    known = {c.machine_id: c for c in documents.controllers if not c.pending}
    errors = []
    removed = []
    kept: dict[str, Member] = {}
    for member in members:
        # (2) Members are matched to controllers by their tag; strangers that can vote stop everything.
        if member.machine_id is None:
            if member.votes:
                errors.append(f"non juju voting member {member.id} found in peer group")
            else:
                removed.append(member)
        # (3) A member whose machine is gone or not alive goes.
        elif member.machine_id not in known or not known[member.machine_id].alive:
            removed.append(member)
        else:
            kept[member.machine_id] = member
    wanted: dict[str, Member] = {}
    added = []
    next_id = max([m.id for m in members], default=0)
    for machine_id in sorted(known, key=machine_order):
        controller, current = known[machine_id], kept.get(machine_id)
        if not controller.alive:
            continue
        try:
            host = _host(documents, controller, current)
        except NoAddress as error:
            errors.append(str(error))
            continue
        if current is None:
            # (4) A controller that wants a vote and has no member gets one, which votes once it is healthy.
            if controller.wants_vote:
                next_id += 1
                new = Member(next_id, host, machine_id, votes=False)
                added.append(new)
                wanted[machine_id] = new
            continue
        votes = current.votes
        if controller.wants_vote and not votes and current.healthy:
            votes = True
        elif not controller.wants_vote and votes:
            votes = False
        wanted[machine_id] = Member(current.id, host, machine_id, votes, current.healthy, current.primary)
    _keep_odd(wanted, kept)
    changed = [m for i, m in wanted.items() if i in kept and (kept[i].host, kept[i].votes) != (m.host, m.votes)]
    last_voter = sum(m.votes for m in wanted.values()) <= 1
    step_down = any(m.primary for m in removed) or any(m.primary and not m.votes for m in changed if not last_voter)
    if errors:
        return Decision(tuple(members), errors=tuple(errors))
    return Decision(
        tuple(sorted(wanted.values(), key=lambda m: m.id)),
        tuple(added),
        tuple(removed),
        tuple(changed),
        step_down=step_down,
    )


def _keep_odd(wanted: dict[str, Member], kept: Mapping[str, Member]) -> None:
    """(5) With an even number of voters the newest candidate waits, or else a secondary loses its vote."""
    voters = [m for m in wanted.values() if m.votes]
    if len(voters) % 2 or not voters:
        return
    fresh = [m for i, m in wanted.items() if m.votes and i in kept and not kept[i].votes]
    candidates = fresh or [m for m in voters if not m.primary]
    last = max(candidates, key=lambda m: machine_order(m.machine_id or ""))
    wanted[last.machine_id or ""] = Member(last.id, last.host, last.machine_id, False, last.healthy, last.primary)


def _host(documents: ControllerDocuments, controller: Controller, current: Member | None) -> str:
    """(7) The address that the other members use for this one."""
    if documents.ha_space_id is not None:
        inside = [a for a in controller.addresses if str(a.get("spaceid", "")) == documents.ha_space_id]
        if not inside:
            raise NoAddress(
                "computing desired peer group: updating member addresses: "
                f"machine {controller.machine_id} has no address in juju-ha-space"
            )
        return f"{inside[0]['value']}:{documents.state_port}"
    candidates = usable_addresses(controller.addresses)
    hosts = [f"{address}:{documents.state_port}" for address in candidates]
    if len(hosts) == 1:
        return hosts[0]
    if current is not None and current.host in hosts:
        return current.host
    raise NoAddress(
        "computing desired peer group: updating member addresses: juju-ha-space is not set and a unique usable address "
        f"was not found for machines: {controller.machine_id}"
    )


def usable_addresses(addresses: Iterable[Mapping[str, Any]]) -> list[str]:
    """Cloud-local addresses, or public ones where there is none; host routes only when nothing else is there."""
    everything = list(addresses)
    for scope in ("local-cloud", "public"):
        scoped = [a for a in everything if a.get("networkscope") == scope]
        wide = [a for a in scoped if not str(a.get("cidr", "")).endswith(("/32", "/128"))]
        chosen = list(dict.fromkeys(str(a["value"]) for a in (wide if len(scoped) > 1 and wide else scoped)))
        if chosen:
            return chosen
    return []


def merged_addresses(machine: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """A machine's addresses as Juju merges them: the provider's first, the machine's own with other values behind."""
    provider = list(machine.get("addresses") or [])
    values = {a.get("value") for a in provider}
    return (*provider, *(a for a in machine.get("machineaddresses") or [] if a.get("value") not in values))


@dataclass(frozen=True)
class Collections:
    """The collections of database ``juju`` that the peergrouper reads, each a list of documents."""

    controllers: Sequence[Mapping[str, Any]]
    controller_nodes: Sequence[Mapping[str, Any]]
    machines: Sequence[Mapping[str, Any]]
    statuses: Sequence[Mapping[str, Any]] = field(default_factory=list)
    spaces: Sequence[Mapping[str, Any]] = field(default_factory=list)


def documents_from(collections: Collections) -> ControllerDocuments:
    """What the peergrouper reads, from the documents themselves."""
    by_id = {str(one["_id"]): one for one in collections.controllers}
    model = str(by_id["e"]["model-uuid"])
    machines = {str(m["machineid"]): m for m in collections.machines if m.get("model-uuid") == model}
    nodes = {str(n["_id"]).partition(":")[2]: n for n in collections.controller_nodes}
    statuses = {str(s["_id"]): s.get("status") for s in collections.statuses}
    controllers = []
    for machine_id in by_id["e"]["controller-ids"]:
        machine, node = machines.get(str(machine_id)), nodes.get(str(machine_id))
        if machine is None or node is None:
            continue
        controllers.append(
            Controller(
                str(machine_id),
                machine.get("life", ALIVE) == ALIVE,
                bool(node.get("wants-vote")),
                merged_addresses(machine),
                statuses.get(f"{model}:m#{machine_id}") == "pending",
            )
        )
    settings = by_id.get("controllerSettings", {}).get("settings", {})
    space = str(settings.get("juju-ha-space") or "")
    ids = [str(s["spaceid"]) for s in collections.spaces if s.get("name") == space and s.get("model-uuid") == model]
    return ControllerDocuments(tuple(controllers), (ids[0] if ids else space) or None, int(settings.get("state-port", 37017)))


def members_from(config: Mapping[str, Any], status: Mapping[str, Any]) -> list[Member]:
    """Members, from replSetGetConfig's ``config`` and replSetGetStatus."""
    states = {m["_id"]: m for m in status.get("members", [])}
    return [
        Member(
            int(m["_id"]),
            str(m["host"]),
            (m.get("tags") or {}).get(MACHINE_TAG),
            bool(m.get("votes", 1)),
            states.get(m["_id"], {}).get("state") in HEALTHY_STATES and states[m["_id"]].get("health", 0) == 1,
            states.get(m["_id"], {}).get("state") == PRIMARY,
        )
        for m in config["members"]
    ]


def read_collections(database: Any) -> Collections:
    """The collections, from a live database ``juju``."""
    return Collections(
        *(list(database[name].find()) for name in ("controllers", "controllerNodes", "machines", "statuses", "spaces"))
    )


def machine_order(machine_id: str) -> tuple[int, str]:
    return (int(machine_id), "") if machine_id.isdigit() else (2**31, machine_id)
