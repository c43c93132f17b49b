"""The replica set arithmetic of Juju 1.20 to 1.25, where it differs from :mod:`.peergrouper`; 1.18 has no replica set.

The numbers in comments are the steps of Juju's own computation, in its order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping, Sequence

from .peergrouper import ALIVE, Controller, ControllerDocuments, Decision, Member, machine_order, merged_addresses
from .rewrite import Repository
from .rules import machine_id_of


def desired(documents: ControllerDocuments, members: Sequence[Member]) -> Decision:
    """The replica set that the peergrouper of 1.x wants."""
    # (1) The set is the ids that stateServers lists and that have a machine.
    known = {one.machine_id: one for one in documents.controllers}
    # (2) Members are matched by their tag. A stranger that can vote stops everything, another one goes.
    strangers = [one for one in members if one.machine_id not in known]
    errors = [f"voting non-machine member {one.id} found in peer group" for one in strangers if one.votes]
    if errors:
        return Decision(tuple(members), errors=tuple(errors))
    kept = {str(one.machine_id): one for one in members if one.machine_id in known}
    wanted = dict(kept)
    # (3) Who gets a vote and who loses it.
    gain = [i for i, m in kept.items() if known[i].wants_vote and not m.votes and m.healthy]
    lose = [i for i, m in kept.items() if not known[i].wants_vote and m.votes]
    _change_votes(wanted, sorted(gain, key=machine_order), sorted(lose, key=machine_order))
    # (5) A machine with an address and without a member gets one that does not vote.
    added = []
    next_id = max([one.id for one in members], default=0)
    for machine_id in sorted(set(known) - set(kept), key=machine_order):
        host = _host(documents, known[machine_id])
        if host:
            next_id += 1
            added.append(Member(next_id, host, machine_id, votes=False))
            wanted[machine_id] = added[-1]
    # (6) Every member goes by the address that its machine's documents select.
    for machine_id in kept:
        host = _host(documents, known[machine_id])
        if host:
            wanted[machine_id] = replace(wanted[machine_id], host=host)
    changed = [wanted[i] for i, m in kept.items() if (wanted[i].host, wanted[i].votes) != (m.host, m.votes)]
    return Decision(
        tuple(sorted(wanted.values(), key=lambda one: one.id)),
        tuple(added),
        tuple(one for one in strangers if not one.votes),
        tuple(changed),
        step_down=any(one.primary and not one.votes for one in changed),
    )


def _change_votes(wanted: dict[str, Member], gain: list[str], lose: list[str]) -> None:
    """(4) Votes are swapped one for one; the rest changes by twos, so that their number stays odd."""
    pairs = min(len(gain), len(lose))
    rest = (len(gain) - pairs) // 2 * 2, (len(lose) - pairs) // 2 * 2
    for machine_id in gain[: pairs + rest[0]]:
        wanted[machine_id] = replace(wanted[machine_id], votes=True)
    for machine_id in lose[: pairs + rest[1]]:
        wanted[machine_id] = replace(wanted[machine_id], votes=False)


def _host(documents: ControllerDocuments, controller: Controller) -> str:
    address = peer_address(controller.addresses)
    return f"{address}:{documents.state_port}" if address else ""


def peer_address(addresses: Iterable[Mapping[str, Any]]) -> str:
    """The first cloud-local address, else the first public one or one of unknown scope; empty where there is none."""
    listed = list(addresses)
    for scopes in (("local-cloud",), ("public", "")):
        for one in listed:
            if str(one.get("networkscope") or "") in scopes and one.get("value"):
                return str(one["value"])
    return ""


def documents_from(
    servers: Mapping[str, Any],
    machines: Iterable[Mapping[str, Any]],
    config: Mapping[str, Any],
    environment: str,
) -> ControllerDocuments:
    """What the peergrouper reads, from the documents themselves.

    :param servers: document ``e`` of ``stateServers``.
    :param config: the environment's configuration, document ``e`` of ``settings``.
    :param environment: its UUID.
    """
    known = {machine_id_of(one): one for one in machines if one.get("env-uuid", environment) == environment}
    # Ids are strings: a number that an old restore left names no machine.
    controllers = tuple(
        Controller(one, known[one].get("life", ALIVE) == ALIVE, not known[one].get("novote"), merged_addresses(known[one]))
        for one in servers["machineids"]
        if isinstance(one, str) and one in known
    )
    return ControllerDocuments(controllers, None, int(config.get("state-port", 37017)))


def read_documents(repository: Repository, environment: str) -> ControllerDocuments:
    """The same, from wherever documents are."""
    config = next((one for one in repository.find("settings") if one["_id"] in ("e", f"{environment}:e")), {})
    servers = next(one for one in repository.find("stateServers") if one["_id"] == "e")
    return documents_from(servers, repository.find("machines"), config, environment)
