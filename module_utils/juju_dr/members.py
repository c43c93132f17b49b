"""Which member of each controller a backup is taken from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from .errors import JujuDrError

POLICIES = ("secondary", "primary", "machine")


@dataclass(frozen=True)
class Candidate:
    """One host of the inventory, as far as choosing needs to know it.

    :param reason: why it cannot be backed up; empty when it can.
    :param state: replica set state in Mongo's words, for example ``SECONDARY``.
    :param lag_seconds: how far it is behind the primary; 0 on the primary.
    :param address: how the inventory reaches the host.
    :param members: addresses of all members of its replica set.
    """

    host: str
    controller_uuid: str
    machine_id: str
    state: str
    lag_seconds: float
    reason: str
    unreachable: bool = False
    address: str = ""
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A member that can be backed up, and why it has this rank.

    :param rank: 0 is backed up; the others, one after the other, when those before them failed.
    :param last: whether no other follows it.
    """

    controller_uuid: str
    host: str
    machine_id: str
    state: str
    why: str
    rank: int = 0
    last: bool = True


def candidate(info: Mapping[str, Any]) -> Candidate:
    """Reads one result of ``juju_controller_info`` (plus ``inventory_hostname``)."""
    replica_set = info.get("replica_set") or {}
    own = [m for m in replica_set.get("members") or [] if str(m.get("machine_id")) == str(info.get("machine_id"))]
    state = str(own[0].get("state", "")) if own else ""
    if info.get("unreachable"):
        reason = "it cannot be reached by ssh"
    elif not info.get("is_controller"):
        reason = str(info.get("reason") or "it is not a controller machine")
    elif not replica_set.get("available"):
        reason = str(replica_set.get("reason") or "its database does not answer")
    elif state not in ("PRIMARY", "SECONDARY"):
        reason = f"its replica set member is {state or 'unknown'}, neither PRIMARY nor SECONDARY"
    else:
        reason = ""
    return Candidate(
        host=str(info["inventory_hostname"]),
        controller_uuid=str(info.get("controller_uuid") or ""),
        machine_id=str(info.get("machine_id") or ""),
        state=state,
        lag_seconds=float(own[0].get("lag_seconds") or 0) if own else 0.0,
        reason=reason,
        unreachable=bool(info.get("unreachable")),
        address=str(info.get("address") or ""),
        members=tuple(str(m.get("host", "")).rsplit(":", 1)[0] for m in replica_set.get("members") or []),
    )


def unaccounted(candidates: Sequence[Candidate]) -> list[str]:
    """Hosts that cannot be reached and are no member of a controller that can: a whole controller may be among them."""
    known = {member for one in candidates for member in one.members}
    return [c.host for c in candidates if c.unreachable and c.address not in known]


def choose(candidates: Sequence[Candidate], policy: str, machine_id: str, max_lag_seconds: float) -> list[Choice]:
    """The members of every controller among the candidates in the order in which they are tried, by controller UUID.

    :raises JujuDrError: no candidate at all, or a controller none of whose members can be backed up.
    """
    controllers: dict[str, list[Candidate]] = {}
    for one in candidates:
        if one.controller_uuid:
            controllers.setdefault(one.controller_uuid, []).append(one)
    strays = [f"{c.host}: {c.reason}" for c in candidates if not c.controller_uuid and not c.unreachable]
    if strays or not controllers:
        raise JujuDrError(
            "These hosts of group juju_controllers cannot be backed up: " + "; ".join(strays)
            if strays
            else f"No host of group juju_controllers can be reached by ssh ({len(candidates)} are listed)",
            "List only controller machines of Juju 2.9 or 3.x there, and check that ssh reaches them",
        )
    ordered = [_in_order(uuid, controllers[uuid], policy, machine_id, max_lag_seconds) for uuid in sorted(controllers)]
    return [one for choices in ordered for one in choices]


def _in_order(uuid: str, candidates: Sequence[Candidate], policy: str, machine_id: str, max_lag_seconds: float) -> list[Choice]:
    usable = [c for c in candidates if not c.reason]
    if policy == "machine":
        usable = [c for c in usable if c.machine_id == machine_id]
    elif policy == "primary":
        usable = [c for c in usable if c.state == "PRIMARY"]
    if not usable:
        seen = "; ".join(f"{c.host} (machine {c.machine_id}): {c.reason or c.state}" for c in candidates)
        wanted = f"machine {machine_id}" if policy == "machine" else f"policy {policy}"
        raise JujuDrError(
            f"No member of controller {uuid} can be backed up with {wanted}: {seen}",
            "Start juju-db on one of them, or choose another choose_member_policy",
        )

    def healthy(one: Candidate) -> bool:
        return one.state == "SECONDARY" and one.lag_seconds <= max_lag_seconds

    usable.sort(key=lambda c: (not healthy(c), c.state != "PRIMARY", c.lag_seconds, c.machine_id))
    return [
        Choice(uuid, c.host, c.machine_id, c.state, _why(c, rank, healthy(c), policy), rank, rank == len(usable) - 1)
        for rank, c in enumerate(usable)
    ]


def _why(one: Candidate, rank: int, healthy: bool, policy: str) -> str:
    if rank:
        return "in case those before it fail"
    if policy != "secondary":
        return f"asked for by policy {policy}"
    if healthy:
        return "a healthy secondary, so that the primary is left alone"
    return "the primary: no secondary is healthy" if one.state == "PRIMARY" else "the only member that answers"
