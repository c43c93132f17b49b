"""Rewrites a moved controller: documents in the database or planned from an archive, and the agents' files."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Iterable, Mapping, Sequence, cast

import bson

from . import peergrouper_1x
from .agent_conf import drop_mapping_keys, parse, replace_sequence
from .bson_stream import split
from .controller_host import Run, machine_agent
from .errors import JujuDrError
from .files import write_whole
from .leftovers import in_database, pattern
from .loading_server import loading_server
from .peergrouper import JOB_MANAGE_MODEL, ControllerDocuments, Member, desired, documents_from, read_collections
from .rewrite import Edit, Repository, apply, plan
from .rules import Move, agent_conf_addresses, harvest_before, machine_id_of, move_from, rules_for
from .schema import ENVIRONMENTS

# What the rules and the move read.
COLLECTIONS = (
    "clouds",
    "controllerNodes",
    "controllers",
    "environments",
    "instanceData",
    "ip.addresses",
    "machines",
    "models",
    "settings",
    "spaces",
    "stateServers",
    "subnets",
    "units",
)


@dataclass(frozen=True)
class Wanted:
    """The move that is asked for."""

    machine_id: str
    address: str
    cidr: str = ""
    instance_id: str = ""
    skip_rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rewritten:
    """The edits that were planned or made, and what harvesting was before.

    :param files: edits of files, where these were planned too.
    """

    edits: Sequence[Edit]
    harvest_before: list[dict[str, str]] = field(default_factory=list)
    files: Sequence[dict[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        by_rule: dict[str, int] = {}
        for edit in self.edits:
            by_rule[edit.rule] = by_rule.get(edit.rule, 0) + 1
        edits = [json.loads(json.dumps(edit.to_json(), default=str)) for edit in self.edits] + list(self.files)
        return {"edits": edits, "by_rule": by_rule, "harvest_before": self.harvest_before}

    def diff(self) -> dict[str, str]:
        return as_diff(self.to_json()["edits"])


def as_diff(edits: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Before and after, one line an edit, for ``--diff``."""
    lines = sorted((f"{e['where']} {e['field']}".strip(), json.dumps(e["before"]), json.dumps(e["after"])) for e in edits)
    return {
        "before": "".join(f"{where}: {before}\n" for where, before, _ in lines),
        "after": "".join(f"{where}: {after}\n" for where, _, after in lines),
    }


class Live:
    """Documents of a running database ``juju``."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def find(self, collection: str) -> Iterable[dict[str, Any]]:
        found: Iterable[dict[str, Any]] = self._database[collection].find()
        return found


class Archived:
    """Documents and agents of an archive, read from the file: nothing is unpacked or loaded.

    :ivar agents: text of each agent.conf, by its path on the host.
    """

    def __init__(self, path: str, identity: str = "") -> None:
        # Not above: what reads archives is much, and only a plan needs it.
        from .archive import files_of

        self._documents: dict[str, list[dict[str, Any]]] = {}
        self.agents: dict[str, str] = {}
        wanted = {f"dump/juju/{name}.bson": name for name in COLLECTIONS}
        for name, content in files_of(path, identity):
            if name.startswith("root/") and name.endswith("/agent.conf"):
                self.agents[name[len("root") :]] = content.read().decode("utf-8")
            elif name in wanted:
                self._documents[wanted[name]] = [bson.decode(raw) for raw in split(cast("BinaryIO", content), name)]

    def find(self, collection: str) -> Iterable[dict[str, Any]]:
        return self._documents.get(collection, [])


def plan_documents(repository: Repository, wanted: Wanted) -> Rewritten:
    """What a restore of these documents would rewrite in them."""
    move = _move(repository, wanted)
    edits = plan(rules_for(move.generation, wanted.skip_rules), repository, move)
    models = repository.find("environments" if move.generation in ENVIRONMENTS else "models")
    return Rewritten(edits, harvest_before(edits, models))


def _move(repository: Repository, wanted: Wanted) -> Move:
    return move_from(repository, wanted.machine_id, wanted.address, wanted.cidr, wanted.instance_id)


def plan_from_archive(path: str, wanted: Wanted, identity: str = "") -> Rewritten:
    """What a restore of this archive would rewrite, in documents and files.

    :param identity: path of the secret key, for an encrypted archive.
    """
    archived = Archived(path, identity)
    planned = plan_documents(archived, wanted)
    files = [edit for _, _, edits in plan_files(archived.agents, wanted.machine_id, wanted.address) for edit in edits]
    return Rewritten(planned.edits, planned.harvest_before, files)


def rewrite_database(database: Any, wanted: Wanted, apply_edits: bool = True) -> Rewritten:
    """Rewrites a running database and makes sure that nothing is left to rewrite.

    :raises JujuDrError: a second look still finds something to do.
    """
    done = plan_documents(Live(database), wanted)
    if apply_edits:
        apply(done.edits, database)
        again = plan_documents(Live(database), wanted).edits
        if again:
            raise JujuDrError(f"{again[0].rule} does not hold after it was applied", "Report this as a fault of juju-dr")
    return done


def rewrite_live(wanted: Wanted, data_dir: str, mongo_common: str, service: str, run: Run, apply_edits: bool) -> Rewritten:
    """Rewrites juju-db's database while nothing else uses it.

    :raises JujuDrError: afterwards a document still names a dead address, or Juju would not keep the member. Nothing was
        started then.
    """
    with loading_server(mongo_common, service, run) as client:
        if not apply_edits:
            return rewrite_database(client.juju, wanted, apply_edits)
        return rewrite_checked(client, wanted, int(machine_agent(data_dir).conf.require("stateport")))


def rewrite_checked(client: Any, wanted: Wanted, state_port: int) -> Rewritten:
    """Rewrites the database of a server that nothing else uses, and looks at the result as Juju will.

    :raises JujuDrError: as :func:`refuse_unsafe`.
    """
    move = _move(Live(client.juju), wanted)
    done = rewrite_database(client.juju, wanted)
    refuse_unsafe(client, move, state_port)
    return done


def refuse_unsafe(client: Any, move: Move, state_port: int) -> None:
    """Looks at the rewritten documents as Juju will: what is wrong now would send agents to a dead address.

    :raises JujuDrError: what is wrong, with the place.
    """
    dead = sorted(move.old_addresses | move.lost_addresses)
    found = [f for f in in_database(client, pattern(dead), move.lost_addresses) if f.kind == "live"] if dead else []
    if found:
        raise JujuDrError(
            f"{len(found)} places still name an old controller address, the first is {found[0]}",
            "Report this as a missing rule of juju-dr; nothing was started",
        )
    if move.generation in ENVIRONMENTS:
        documents = peergrouper_1x.read_documents(Live(client.juju), move.model_uuid)
    else:
        documents = documents_from(read_collections(client.juju))
    judge(Live(client.juju), documents, move, state_port)


def judge(repository: Repository, documents: ControllerDocuments, move: Move, state_port: int) -> None:
    """Whether rewritten documents agree with each other, and Juju would keep the one member.

    :param documents: what the peergrouper reads.
    :raises JujuDrError: they do not, or it would not.
    """
    broken = _invariants(repository, move)
    if broken:
        raise JujuDrError(
            f"The rewritten documents contradict each other: {broken}", "Report this as a fault; nothing was started"
        )
    host = f"{move.address}:{state_port}"
    member = Member(1, host, move.machine_id, healthy=True, primary=True)
    decide = peergrouper_1x.desired if move.generation in ENVIRONMENTS else desired
    decision = decide(documents, [member])
    if not (decision.keeps(move.machine_id, host) and decision.steady):
        raise JujuDrError(
            f"Juju's peergrouper would not keep {host} as the member of machine {move.machine_id}: "
            + ("; ".join(decision.errors) or f"it wants {[m.host for m in decision.members]}"),
            "Check that the address is one agents can reach; nothing was started",
        )


def _invariants(repository: Repository, move: Move) -> str:
    """What Juju takes for granted between documents; empty when it holds."""
    if move.generation in ENVIRONMENTS:
        return _invariants_1x(repository, move)
    ids = next(set(map(str, one["controller-ids"])) for one in repository.find("controllers") if one["_id"] == "e")
    nodes = {str(one["_id"]).partition(":")[2] for one in repository.find("controllerNodes")}
    own = [one for one in repository.find("machines") if one.get("model-uuid") == move.model_uuid]
    jobs = {str(one["machineid"]) for one in own if JOB_MANAGE_MODEL in one.get("jobs", [])}
    if not ids == nodes == jobs:
        return f"controllers are {sorted(ids)} by id, {sorted(nodes)} by node, {sorted(jobs)} by job"
    for one in repository.find("ip.addresses"):
        subnet = str(one.get("subnet-cidr") or "")
        if one.get("value") == move.address and subnet and not _contains(subnet, move.address):
            return f"{move.address} is not in subnet {subnet} of its own document"
    return ""


def _invariants_1x(repository: Repository, move: Move) -> str:
    servers = next(one for one in repository.find("stateServers") if one["_id"] == "e")
    own = [one for one in repository.find("machines") if move.has(one)]
    jobs = {machine_id_of(one) for one in own if JOB_MANAGE_MODEL in one.get("jobs", ())}
    votes = {machine_id_of(one) for one in own if one.get("hasvote")}
    ids, voting = set(servers["machineids"]), set(servers["votingmachineids"])
    if not ids == voting == jobs == votes:
        return f"state servers are {sorted(ids)} by id, {sorted(jobs)} by job, {sorted(voting)} and {sorted(votes)} by vote"
    return ""


def _contains(subnet: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False)


def rewrite_files(data_dir: str, machine_id: str, address: str, apply_edits: bool) -> list[dict[str, Any]]:
    """Points this controller's own agents at the new address."""
    paths = sorted(Path(data_dir).glob("agents/*/agent.conf"))
    planned = plan_files({str(path): path.read_text(encoding="utf-8") for path in paths}, machine_id, address)
    for path, text, _ in planned:
        if apply_edits:
            status = Path(path).stat()
            write_whole(Path(path), text, status.st_mode & 0o777, status)
    return [edit for _, _, edits in planned for edit in edits]


def plan_files(agents: Mapping[str, str], machine_id: str, address: str) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Path, new text and edits of every agent.conf that must change.

    jujud of 3.x remembers deployed controller units; where such a unit's folder did not come back, the memory is taken out,
    so that the deployer makes the agent anew.

    :param agents: text of each agent.conf, by path.
    """
    own = next((path for path in agents if path.endswith(f"/machine-{machine_id}/agent.conf")), None)
    if own is None:
        raise JujuDrError(f"There is no agent.conf of machine {machine_id}", "Restore the machine that was backed up")
    wanted = agent_conf_addresses(parse(agents[own]), address)
    names = {Path(path).parent.name for path in agents}
    planned = []
    for path, text in sorted(agents.items()):
        conf, new, edits = parse(text), text, []
        for key, items in wanted.items():
            if conf.sequence(key) not in ([], items):
                new = replace_sequence(new, key, items)
                edits.append(_edit("agent-conf-addresses", path, key, conf.sequence(key), items))
        for key in ("deployed-units", "stopped-units") if path == own else ():
            units = [unit for unit in conf.mapping("values").get(key, "").split(",") if unit]
            if any(f"unit-{unit.replace('/', '-')}" not in names for unit in units):
                new = drop_mapping_keys(new, "values", [key])
                edits.append(_edit("agent-conf-units", path, f"values.{key}", ",".join(units), None))
        if edits:
            planned.append((path, new, edits))
    return planned


def _edit(rule: str, path: str, name: str, before: Any, after: Any) -> dict[str, Any]:
    return {"rule": rule, "where": path, "field": name, "before": before, "after": after}
