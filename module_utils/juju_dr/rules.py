"""What a moved controller must have rewritten: one rule a thing, by field, each with the reason why it cannot stay.

A manual machine's nonce contains its address and must stay: jujud compares it with agent.conf and exits for good when they
differ. That is why nothing here works on text.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Container, Iterable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from .agent_conf import AgentConf
from .errors import JujuDrError
from .peergrouper import JOB_MANAGE_MODEL
from .rewrite import DELETE, UNCHANGED, UNSET, Document, Edit, Repository, Rule
from .schema import ENVIRONMENTS, generation

MANUAL = "manual:"
HARVEST_KEY = "provisioner-harvest-mode"
# What 1.18 to 1.20 have instead: true keeps instances that the database does not know.
SAFE_MODE_KEY = "provisioner-safe-mode"
HARVEST_DEFAULT = "destroyed"


@dataclass(frozen=True)
class Move:
    """One controller machine's move to another host.

    :param old_addresses: what the machine was reached at, new address excluded.
    :param lost: machine ids of the controllers that do not come back.
    :param lost_addresses: what those were reached at.
    :param model_uuid: of the controller model; of the state servers' environment on 1.x.
    :param generation: of the schema that the documents have.
    :param units: units of application ``controller`` on the machine (3.x); all units on it (1.x).
    :param ha_space_id: id of the space that juju-ha-space names; empty when it is not set.
    :param address_space_id: id of the space the new address is in, empty when in none that is known.
    :param instance_id: the provider's id of the new instance; empty: only ``manual:`` ids are rewritten.
    """

    machine_id: str
    model_uuid: str
    address: str
    cidr: str
    old_addresses: frozenset[str]
    generation: str
    lost: frozenset[str] = frozenset()
    lost_addresses: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    ha_space_id: str = ""
    address_space_id: str = ""
    instance_id: str = ""

    @property
    def document_id(self) -> str:
        return f"{self.model_uuid}:{self.machine_id}"

    def owns(self, document: Document) -> bool:
        """Whether a document of ``machines`` or ``instanceData`` is this machine's; up to 1.20 ids have no prefix."""
        return document["_id"] in (self.document_id, self.machine_id)

    def has(self, document: Document) -> bool:
        """Whether a document is of the controller model; up to 1.20 there is one environment."""
        return bool(document.get("model-uuid", document.get("env-uuid", self.model_uuid)) == self.model_uuid)

    def is_dead(self, address: str) -> bool:
        return address in self.old_addresses or address in self.lost_addresses


def move_from(repository: Repository, machine_id: str, address: str, cidr: str = "", instance_id: str = "") -> Move:
    """Reads from the documents what a machine's move to ``address`` means.

    :raises JujuDrError: the machine is no controller of this database.
    """
    servers = {str(one["_id"]): one for one in repository.find("stateServers")}
    if servers:
        return _environment_move(repository, servers, machine_id, address, cidr, instance_id)
    controllers = {str(one["_id"]): one for one in repository.find("controllers")}
    if "e" not in controllers:
        raise JujuDrError("The database names no controller machines", "Take an archive of a Juju controller")
    model = str(controllers["e"]["model-uuid"])
    ids = [str(one) for one in controllers["e"]["controller-ids"]]
    machines = {str(m["machineid"]): m for m in repository.find("machines") if m.get("model-uuid") == model}
    if machine_id not in machines:
        raise JujuDrError(
            f"Machine {machine_id} is no machine of the controller model",
            f"Choose one of the controllers {', '.join(ids)}",
        )
    config: Document = next((one for one in repository.find("settings") if one["_id"] == f"{model}:e"), {"settings": {}})
    lost = frozenset(one for one in ids if one != machine_id)
    units = {
        str(unit["name"])
        for unit in repository.find("units")
        if unit.get("model-uuid") == model and unit.get("application") == "controller" and unit.get("machineid") == machine_id
    }
    settings = controllers.get("controllerSettings", {}).get("settings", {})
    spaces = {str(s["name"]): str(s["spaceid"]) for s in repository.find("spaces") if s.get("model-uuid") == model}
    own = frozenset(addresses_of(machines[machine_id])) - {address}
    return Move(
        machine_id,
        model,
        address,
        cidr,
        own,
        generation(str(config["settings"].get("agent-version", ""))),
        lost,
        frozenset(one for i in lost if i in machines for one in addresses_of(machines[i])) - {address} - own,
        frozenset(units),
        spaces.get(str(settings.get("juju-ha-space") or ""), str(settings.get("juju-ha-space") or "")),
        _space_of(address, [s for s in repository.find("subnets") if s.get("model-uuid") == model]),
        instance_id,
    )


def _environment_move(
    repository: Repository, servers: Mapping[str, Document], machine_id: str, address: str, cidr: str, instance_id: str
) -> Move:
    """The same of Juju 1.x, where controllers are state servers and models environments."""
    known = [str(one["_id"]) for one in repository.find("environments")]
    first = servers.get("e", {})
    uuid = str(first.get("env-uuid") or (known[0] if len(known) == 1 else ""))
    config = next((one for one in repository.find("settings") if one["_id"] in ("e", f"{uuid}:e")), None)
    if not uuid or config is None:
        raise JujuDrError("The database does not say which environment is the state servers' own", "Take another archive")
    machines = {machine_id_of(m): m for m in repository.find("machines") if m.get("env-uuid", uuid) == uuid}
    # Juju itself goes by the job where the list is empty; a vote tells of one that was rewritten in part.
    ids = {i for i, m in machines.items() if JOB_MANAGE_MODEL in m.get("jobs", ()) or m.get("hasvote")}
    ids |= {str(one) for one in first.get("machineids") or []}
    if machine_id not in machines:
        raise JujuDrError(
            f"Machine {machine_id} is no machine of environment {uuid}",
            f"Choose one of the state servers {', '.join(sorted(ids))}",
        )
    units = [one for one in repository.find("units") if one.get("env-uuid", uuid) == uuid]
    own = frozenset(addresses_of(machines[machine_id])) - {address}
    lost = frozenset(ids - {machine_id})
    return Move(
        machine_id,
        uuid,
        address,
        cidr,
        own,
        generation(str(config.get("agent-version", ""))),
        lost,
        frozenset(one for i in lost if i in machines for one in addresses_of(machines[i])) - {address} - own,
        units_on({machine_id}, units),
        instance_id=instance_id,
    )


def machine_id_of(document: Document) -> str:
    """Id of a machine of its model; up to 1.20 the document's own."""
    return str(document.get("machineid", document["_id"]))


def unit_name(document: Document) -> str:
    """Name of a unit; up to 1.20 the document's id."""
    return str(document.get("name", document["_id"]))


def units_on(machines: Container[object], units: Sequence[Document]) -> frozenset[str]:
    """Names of the units on some machines, subordinates included: these name their principal instead of a machine."""
    principals = {unit_name(one) for one in units if one.get("machineid") in machines}
    return frozenset(principals | {unit_name(one) for one in units if one.get("principal") in principals})


def addresses_of(machine: Mapping[str, Any]) -> list[str]:
    """Where a machine was reached: all its addresses that are not of the machine itself."""
    listed = [*(machine.get("addresses") or []), *(machine.get("machineaddresses") or [])]
    listed += [machine[key] for key in ("preferredpublicaddress", "preferredprivateaddress") if machine.get(key)]
    return list(dict.fromkeys(str(a["value"]) for a in listed if a.get("value") and not _is_own(str(a["value"]))))


def _is_own(address: str) -> bool:
    """Loopback and link-local addresses mean the same on every machine."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost"
    return parsed.is_loopback or parsed.is_link_local


def _space_of(address: str, subnets: Iterable[Mapping[str, Any]]) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    inside = [s for s in subnets if s.get("cidr") and parsed in ipaddress.ip_network(str(s["cidr"]), strict=False)]
    return str(inside[0].get("space-id", "")) if inside else ""


def _moved(move: Move, address: Mapping[str, Any]) -> dict[str, Any]:
    """An address sub-document at the new place; what the document does not have is not added."""
    moved = {**address, "value": move.address}
    if "addresstype" in moved:
        moved["addresstype"] = _kind(move.address)
    if "cidr" in moved and move.cidr:
        moved["cidr"] = move.cidr
    if move.ha_space_id and move.ha_space_id == move.address_space_id:
        moved["spaceid"] = move.ha_space_id
    elif "spaceid" in moved and move.address_space_id:
        moved["spaceid"] = move.address_space_id
    return moved


def _kind(address: str) -> str:
    try:
        return f"ipv{ipaddress.ip_address(address).version}"
    except ValueError:
        return "hostname"


def _address_list(move: Move, value: Any, document: Document) -> Any:
    """Old addresses become the new one, once."""
    if not move.owns(document) or not value:
        return UNCHANGED
    return _replaced(move, value)


def _replaced(move: Move, addresses: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    dead = [one for one in addresses if move.is_dead(str(one.get("value")))]
    # One stands for all: the one that the others in the cloud use, where there is such a one.
    kept = next((one for one in dead if one.get("networkscope") == "local-cloud"), dead[0] if dead else None)
    result: list[Mapping[str, Any]] = []
    for address in addresses:
        new = _moved(move, kept) if kept is not None and address in dead else address
        if new.get("value") not in [one.get("value") for one in result]:
            result.append(new)
    return result


def _one_address(move: Move, value: Any, document: Document) -> Any:
    if not move.owns(document) or not value or not move.is_dead(str(value.get("value"))):
        return UNCHANGED
    return _moved(move, value)


def _host_ports(which: str) -> Any:
    def change(move: Move, value: Any, document: Document) -> Any:
        """One server is left: this machine's, at its new address."""
        if document["_id"] != which or not value:
            return UNCHANGED
        mine = [s for s in value if any(str(a.get("value")) in move.old_addresses | {move.address} for a in s)]
        return [_replaced(move, (mine or value)[0])]

    return change


def _ip_value(move: Move, value: Any, document: Document) -> Any:
    return move.address if _is_moved_ip(move, document) else UNCHANGED


def _ip_subnet(move: Move, value: Any, document: Document) -> Any:
    return move.cidr if _is_moved_ip(move, document) and move.cidr and value else UNCHANGED


def _ip_id(move: Move, value: Any, document: Document) -> Any:
    prefix, _, address = str(value).rpartition("#ip#")
    mine = prefix.startswith(f"{move.model_uuid}:m#{move.machine_id}#")
    return f"{prefix}#ip#{move.address}" if mine and address in move.old_addresses else UNCHANGED


def _is_moved_ip(move: Move, document: Document) -> bool:
    mine = document.get("model-uuid") == move.model_uuid and str(document.get("machine-id")) == move.machine_id
    return mine and str(document.get("value")) in move.old_addresses


def _instance_id(move: Move, value: Any, document: Document) -> Any:
    if not move.owns(document):
        return UNCHANGED
    if move.instance_id:
        return move.instance_id
    address = str(value)[len(MANUAL) :] if str(value).startswith(MANUAL) else ""
    return MANUAL + move.address if move.is_dead(address) else UNCHANGED


def _cloud_endpoint(move: Move, value: Any, document: Document) -> Any:
    if document.get("type") != "manual" or not value:
        return UNCHANGED
    # Only when this machine is the cloud's first one: a lost first machine would be given the new address, too.
    user, at, host = str(value).rpartition("@")
    return f"{user}{at}{move.address}" if host in move.old_addresses else UNCHANGED


def _controller_url(move: Move, value: Any, document: Document) -> Any:
    if not str(document["_id"]).startswith(f"{move.model_uuid}:a#controller#") or not value:
        return UNCHANGED
    url = urlsplit(str(value))
    if not move.is_dead(url.hostname or ""):
        return UNCHANGED
    host = f"[{move.address}]" if ":" in move.address else move.address
    return urlunsplit(url._replace(netloc=f"{host}:{url.port}" if url.port else host))


def _relation_address(move: Move, value: Any, document: Document) -> Any:
    scope, _, unit = str(document["_id"]).rpartition("#")
    if unit not in move.units or not scope.startswith((f"{move.model_uuid}:r#", "r#")) or not value:
        return UNCHANGED
    address, slash, _ = str(value).partition("/")
    if not move.is_dead(address):
        return UNCHANGED
    return move.address + (("/128" if ":" in move.address else "/32") if slash else "")


def _controller_ids(move: Move, value: Any, document: Document) -> Any:
    return [move.machine_id] if document["_id"] == "e" else UNCHANGED


def _controller_node(move: Move, value: Any, document: Document) -> Any:
    return UNCHANGED if document["_id"] == move.document_id else DELETE


def _vote(move: Move, value: Any, document: Document) -> Any:
    return True if document["_id"] == move.document_id else UNCHANGED


def _jobs(move: Move, value: Any, document: Document) -> Any:
    if not move.has(document) or machine_id_of(document) not in move.lost:
        return UNCHANGED
    return [job for job in value if job != JOB_MANAGE_MODEL]


def _ha_space(move: Move, value: Any, document: Document) -> Any:
    if document["_id"] != "controllerSettings" or not value or move.ha_space_id == move.address_space_id:
        return UNCHANGED
    return UNSET


def _harvest(move: Move, value: Any, document: Document) -> Any:
    return "none" if _is_config(document) else UNCHANGED


def _safe_mode(move: Move, value: Any, document: Document) -> Any:
    return True if _is_config(document) else UNCHANGED


def _is_config(document: Document) -> bool:
    """The configuration of any model; of the one environment up to 1.21."""
    return document["_id"] == "e" or str(document["_id"]).endswith(":e")


def _state_servers(move: Move, value: Any, document: Document) -> Any:
    return [move.machine_id] if document["_id"] == "e" else UNCHANGED


def _wants_vote(move: Move, value: Any, document: Document) -> Any:
    return False if move.owns(document) else UNCHANGED


def _has_vote(move: Move, value: Any, document: Document) -> Any:
    if move.owns(document):
        return True
    return False if move.has(document) and machine_id_of(document) in move.lost else UNCHANGED


def _unit_address(move: Move, value: Any, document: Document) -> Any:
    mine = move.has(document) and unit_name(document) in move.units
    return move.address if mine and value in move.old_addresses else UNCHANGED


def _bootstrap_host(move: Move, value: Any, document: Document) -> Any:
    mine = document["_id"] in ("e", f"{move.model_uuid}:e")
    # As with the manual cloud's endpoint: a lost first machine keeps it.
    return move.address if mine and value in move.old_addresses else UNCHANGED


_RELATION_REASON = "the controller charm tells its peers this address"
_MODELS = ("2.9", "3.x")
_ALL = (*_MODELS, *ENVIRONMENTS)

RULES: tuple[Rule[Move], ...] = (
    Rule(
        "api-host-ports",
        "clients are sent to these addresses",
        "controllers",
        "apihostports",
        _host_ports("apiHostPorts"),
    ),
    Rule(
        "api-host-ports-for-agents",
        "the address updater of every agent writes these into its agent.conf: a dead address comes back everywhere",
        "controllers",
        "apihostports",
        _host_ports("apiHostPortsForAgents"),
    ),
    Rule(
        "machine-addresses",
        "a stale provider address stays effective for good: the peergrouper moves the member to it",
        "machines",
        "addresses",
        _address_list,
        _ALL,
    ),
    Rule(
        "machine-observed-addresses",
        "with no provider address the peergrouper moves the member to this one",
        "machines",
        "machineaddresses",
        _address_list,
        _ALL,
    ),
    Rule(
        "preferred-public-address",
        "juju ssh and juju status use it",
        "machines",
        "preferredpublicaddress",
        _one_address,
        (*_MODELS, "1.21-1.25"),
    ),
    Rule(
        "preferred-private-address",
        "units are told it",
        "machines",
        "preferredprivateaddress",
        _one_address,
        (*_MODELS, "1.21-1.25"),
    ),
    Rule("ip-address-value", "spaces and bindings are computed from it", "ip.addresses", "value", _ip_value),
    Rule("ip-address-subnet", "spaces are found by it", "ip.addresses", '"subnet-cidr"', _ip_subnet),
    Rule("ip-address-id", "the document is looked up by device and address", "ip.addresses", "_id", _ip_id),
    Rule(
        "instance-id",
        "the instance poller asks the cloud for it, and the provisioner stops instances it does not know",
        "instanceData",
        "instanceid",
        _instance_id,
        _ALL,
    ),
    Rule(
        "manual-cloud-endpoint",
        "the manual cloud reports it as the address of its first machine: the instance poller brings the dead address back",
        "clouds",
        "endpoint",
        _cloud_endpoint,
    ),
    Rule(
        "controller-url",
        "the controller charm hands it to whoever relates to it",
        "settings",
        'settings."controller-url"',
        _controller_url,
        ("3.x",),
    ),
    Rule(
        "relation-ingress-address",
        _RELATION_REASON,
        "settings",
        'settings."ingress-address"',
        _relation_address,
        ("3.x",),
    ),
    Rule(
        "relation-private-address",
        _RELATION_REASON,
        "settings",
        'settings."private-address"',
        _relation_address,
        ("3.x",),
    ),
    Rule(
        "relation-egress-subnets",
        "firewalls of related models let this subnet in",
        "settings",
        'settings."egress-subnets"',
        _relation_address,
        ("3.x",),
    ),
    Rule(
        "controller-ids",
        "the peergrouper makes a member of every controller listed here, dead or not",
        "controllers",
        '"controller-ids"',
        _controller_ids,
    ),
    Rule("lost-controller-nodes", "enable-ha counts these and would do nothing", "controllerNodes", "", _controller_node),
    Rule("wants-vote", "a controller that wants no vote loses the last one", "controllerNodes", '"wants-vote"', _vote),
    Rule(
        "lost-controller-jobs",
        "a machine with this job is taken for a controller and cannot be removed",
        "machines",
        "jobs",
        _jobs,
        _ALL,
    ),
    Rule(
        "ha-space",
        "the peergrouper stops when the controller has no address in this space",
        "controllers",
        'settings."juju-ha-space"',
        _ha_space,
    ),
    Rule(
        "harvest-mode",
        "the provisioner stops instances that the restored database does not know",
        "settings",
        f'settings."{HARVEST_KEY}"',
        _harvest,
    ),
    # Juju 1.x
    Rule(
        "state-api-host-ports",
        "the address updater of every agent writes these into its agent.conf: a dead address comes back everywhere",
        "stateServers",
        "apihostports",
        _host_ports("apiHostPorts"),
        ENVIRONMENTS,
    ),
    Rule(
        "state-server-ids",
        "the peergrouper makes a member of every state server listed here, dead or not",
        "stateServers",
        "machineids",
        _state_servers,
        ENVIRONMENTS,
    ),
    Rule(
        "voting-state-server-ids",
        "ensure-availability counts these, and would take lost ones for votes",
        "stateServers",
        "votingmachineids",
        _state_servers,
        ENVIRONMENTS,
    ),
    Rule("no-vote", "a state server that wants no vote loses the last one", "machines", "novote", _wants_vote, ENVIRONMENTS),
    Rule(
        "has-vote",
        "only the peergrouper clears it, and it does not look at lost state servers any more",
        "machines",
        "hasvote",
        _has_vote,
        ENVIRONMENTS,
    ),
    Rule(
        "machine-instance-id",
        "up to 1.20 this one comes before instanceData's",
        "machines",
        "instanceid",
        _instance_id,
        ("1.18-1.20",),
    ),
    Rule("unit-public-address", "juju ssh and juju status use it", "units", "publicaddress", _unit_address, ENVIRONMENTS),
    Rule("unit-private-address", "charms are told it", "units", "privateaddress", _unit_address, ENVIRONMENTS),
    Rule(
        "unit-relation-address",
        "units that are related to one on this machine connect to it",
        "settings",
        '"private-address"',
        _relation_address,
        ENVIRONMENTS,
    ),
    Rule(
        "bootstrap-host",
        "the manual provider reports it as the address of its first machine: the instance poller brings the dead address back",
        "settings",
        '"bootstrap-host"',
        _bootstrap_host,
        ENVIRONMENTS,
    ),
    Rule(
        "environment-harvest-mode",
        "the provisioner stops instances that the restored database does not know",
        "settings",
        f'"{HARVEST_KEY}"',
        _harvest,
        ("1.21-1.25",),
    ),
    Rule(
        "safe-mode",
        "up to 1.20 it is off by default: the provisioner stops instances that the restored database does not know",
        "settings",
        f'"{SAFE_MODE_KEY}"',
        _safe_mode,
        ("1.18-1.20",),
    ),
)
# What tells how harvesting was before.
_HARVEST_RULES = ("harvest-mode", "environment-harvest-mode", "safe-mode")


def rules_for(known: str, skip: Sequence[str] = ()) -> list[Rule[Move]]:
    """The rules of one generation.

    :param known: the generation.
    :param skip: names of rules not to apply.
    :raises JujuDrError: a name in ``skip`` is no rule.
    """
    unknown = set(skip) - {rule.name for rule in RULES}
    if unknown:
        raise JujuDrError(f"There is no rule {', '.join(sorted(unknown))}", "Names of rules stand in the restore's report")
    return [rule for rule in RULES if known in rule.generations and rule.name not in skip]


def harvest_before(edits: Iterable[Edit], models: Iterable[Document]) -> list[dict[str, str]]:
    """What harvesting was set to, for each model by name, so that the operator can set it back.

    :param models: documents of ``models``, or of ``environments`` on 1.x.
    """
    names = {str(one["_id"]): f"{one['owner']}/{one['name']}" if "owner" in one else str(one["name"]) for one in models}
    only = next(iter(names.values())) if len(names) == 1 else ""
    return [
        {
            "model": names.get(str(e.document_id)[: -len(":e")]) or only or str(e.document_id),
            "before": str(e.before) if e.before else "false" if e.rule == "safe-mode" else HARVEST_DEFAULT,
        }
        for e in edits
        if e.rule in _HARVEST_RULES
    ]


def agent_conf_addresses(conf: AgentConf, address: str) -> dict[str, list[str]]:
    """The address lists of an agent.conf after the move: the new address alone, at the port it had.

    A state server of 1.x that speaks to itself by ``localhost`` alone still does.

    :returns: items by key; ``stateaddresses`` is in use on 1.x only.
    """
    host = f"[{address}]" if ":" in address else address
    wanted = {}
    for key, port_key, port in (("apiaddresses", "apiport", "17070"), ("stateaddresses", "stateport", "37017")):
        listed = conf.sequence(key)
        if key == "stateaddresses" and not (listed and conf.is_environment):
            continue
        if conf.is_environment and all(_is_own(one.rpartition(":")[0].strip("[]")) for one in listed):
            wanted[key] = listed
            continue
        ports = [one.rpartition(":")[2] for one in listed]
        wanted[key] = [f"{host}:{conf.scalar(port_key) or (ports or [port])[0]}"]
    return wanted
