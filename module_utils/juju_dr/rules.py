"""What a moved controller must have rewritten: one rule a thing, by field, each with the reason why it cannot stay.

A manual machine's nonce contains its address and must stay: jujud compares it with agent.conf and exits for good when they
differ. That is why nothing here works on text.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from .agent_conf import AgentConf
from .errors import JujuDrError
from .peergrouper import JOB_MANAGE_MODEL
from .rewrite import DELETE, UNCHANGED, UNSET, Document, Edit, Repository, Rule

MANUAL = "manual:"
HARVEST_KEY = "provisioner-harvest-mode"
HARVEST_DEFAULT = "destroyed"


@dataclass(frozen=True)
class Move:
    """One controller machine's move to another host.

    :param old_addresses: what the machine was reached at, new address excluded.
    :param lost: machine ids of the controllers that do not come back.
    :param lost_addresses: what those were reached at.
    :param units: units of application ``controller`` on the machine (3.x).
    :param ha_space_id: id of the space that juju-ha-space names; empty when it is not set.
    :param address_space_id: id of the space the new address is in, empty when in none that is known.
    :param instance_id: the provider's id of the new instance; empty: only ``manual:`` ids are rewritten.
    """

    machine_id: str
    model_uuid: str
    address: str
    cidr: str
    old_addresses: frozenset[str]
    lost: frozenset[str] = frozenset()
    lost_addresses: frozenset[str] = frozenset()
    units: frozenset[str] = frozenset()
    ha_space_id: str = ""
    address_space_id: str = ""
    instance_id: str = ""

    @property
    def document_id(self) -> str:
        return f"{self.model_uuid}:{self.machine_id}"

    def is_dead(self, address: str) -> bool:
        return address in self.old_addresses or address in self.lost_addresses


def move_from(repository: Repository, machine_id: str, address: str, cidr: str = "", instance_id: str = "") -> Move:
    """Reads from the documents what a machine's move to ``address`` means.

    :raises JujuDrError: the machine is no controller of this database.
    """
    controllers = {str(one["_id"]): one for one in repository.find("controllers")}
    if "e" not in controllers:
        raise JujuDrError("The database names no controller machines", "Take an archive of a Juju 2.9 or 3.x controller")
    model = str(controllers["e"]["model-uuid"])
    ids = [str(one) for one in controllers["e"]["controller-ids"]]
    machines = {str(m["machineid"]): m for m in repository.find("machines") if m.get("model-uuid") == model}
    if machine_id not in machines:
        raise JujuDrError(
            f"Machine {machine_id} is no machine of the controller model",
            f"Choose one of the controllers {', '.join(ids)}",
        )
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
        lost,
        frozenset(one for i in lost if i in machines for one in addresses_of(machines[i])) - {address} - own,
        frozenset(units),
        spaces.get(str(settings.get("juju-ha-space") or ""), str(settings.get("juju-ha-space") or "")),
        _space_of(address, [s for s in repository.find("subnets") if s.get("model-uuid") == model]),
        instance_id,
    )


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
    if "cidr" in moved and move.cidr:
        moved["cidr"] = move.cidr
    if move.ha_space_id and move.ha_space_id == move.address_space_id:
        moved["spaceid"] = move.ha_space_id
    elif "spaceid" in moved and move.address_space_id:
        moved["spaceid"] = move.address_space_id
    return moved


def _address_list(move: Move, value: Any, document: Document) -> Any:
    """Old addresses become the new one, once."""
    if document["_id"] != move.document_id or not value:
        return UNCHANGED
    return _replaced(move, value)


def _replaced(move: Move, addresses: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    result: list[Mapping[str, Any]] = []
    for address in addresses:
        new = _moved(move, address) if move.is_dead(str(address.get("value"))) else address
        if new.get("value") not in [one.get("value") for one in result]:
            result.append(new)
    return result


def _one_address(move: Move, value: Any, document: Document) -> Any:
    if document["_id"] != move.document_id or not value or not move.is_dead(str(value.get("value"))):
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
    if document["_id"] != move.document_id:
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
    if unit not in move.units or not scope.startswith(f"{move.model_uuid}:r#") or not value:
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
    if document.get("model-uuid") != move.model_uuid or str(document.get("machineid")) not in move.lost:
        return UNCHANGED
    return [job for job in value if job != JOB_MANAGE_MODEL]


def _ha_space(move: Move, value: Any, document: Document) -> Any:
    if document["_id"] != "controllerSettings" or not value or move.ha_space_id == move.address_space_id:
        return UNCHANGED
    return UNSET


def _harvest(move: Move, value: Any, document: Document) -> Any:
    return "none" if str(document["_id"]).endswith(":e") else UNCHANGED


_RELATION_REASON = "the controller charm tells its peers this address"

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
    ),
    Rule(
        "machine-observed-addresses",
        "with no provider address the peergrouper moves the member to this one",
        "machines",
        "machineaddresses",
        _address_list,
    ),
    Rule(
        "preferred-public-address",
        "juju ssh and juju status use it",
        "machines",
        "preferredpublicaddress",
        _one_address,
    ),
    Rule(
        "preferred-private-address",
        "units are told it",
        "machines",
        "preferredprivateaddress",
        _one_address,
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
)


def rules_for(generation: str, skip: Sequence[str] = ()) -> list[Rule[Move]]:
    """The rules of one generation.

    :param skip: names of rules not to apply.
    :raises JujuDrError: a name in ``skip`` is no rule.
    """
    unknown = set(skip) - {rule.name for rule in RULES}
    if unknown:
        raise JujuDrError(f"There is no rule {', '.join(sorted(unknown))}", "Names of rules stand in the restore's report")
    return [rule for rule in RULES if generation in rule.generations and rule.name not in skip]


def harvest_before(edits: Iterable[Edit], models: Iterable[Document]) -> list[dict[str, str]]:
    """What harvesting was set to, for each model by name, so that the operator can set it back."""
    names = {str(model["_id"]): f"{model['owner']}/{model['name']}" for model in models}
    return [
        {
            "model": names.get(str(e.document_id)[: -len(":e")], str(e.document_id)),
            "before": e.before or HARVEST_DEFAULT,
        }
        for e in edits
        if e.rule == "harvest-mode"
    ]


def agent_conf_addresses(conf: AgentConf, address: str) -> list[str]:
    """The ``apiaddresses`` of an agent after the move: the new address alone, at the port it had."""
    ports = [one.rpartition(":")[2] for one in conf.sequence("apiaddresses")]
    host = f"[{address}]" if ":" in address else address
    return [f"{host}:{conf.scalar('apiport') or (ports or ['17070'])[0]}"]
