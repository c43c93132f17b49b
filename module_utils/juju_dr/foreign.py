"""What an archive is of, known from its content whoever made it: juju-dr, create-backup, or the two backups of Juju 1.x.

An archive of Juju 1.x is a dump of one mongod 2.4 and the files of one state server. The ``juju-backup`` plugin stops mongod,
dumps all databases and writes no ``metadata.json``; ``juju backups create`` (the API, 1.21 and later) dumps hot and writes one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Mapping, Sequence

from .agent_conf import AgentConf
from .agent_conf import parse as parse_agent_conf
from .backup_metadata import BackupMetadata
from .backup_metadata import parse as parse_metadata
from .endpoints import old_endpoints
from .errors import JujuDrError
from .rules import addresses_of
from .schema import ENVIRONMENTS, generation

# Collections of database juju that tell what the archive is of; a reader decodes these.
DECODED = ("controllers", "controllerNodes", "environments", "machines", "stateServers")
# Of thousands of machines those that are controllers, told by a number in an array: their job is 2, on old hosts of 1.x also 3.
_MANAGES = re.compile(rb"[\x10\x12][0-9]\0[\x02\x03]\0\0\0")
AGAIN = "Fetch it again, or take another archive"
WRONG = "Do not use this archive"
JUJU_DR = "juju-dr"
PLUGIN = "juju-backup plugin"
API_1X = "juju backups create"

_MANIFEST = "juju-dr/manifest.json"
_NEEDED = ("metadata.json", "dump/juju/controllers.bson", "dump/juju/machines.bson", "dump/juju/models.bson")
_NEEDED_1X = ("root.tar", "dump/juju/machines.bson", "dump/juju/environments.bson", "dump/juju/settings.bson")
# mongodump writes no metadata beside these.
_WITHOUT_METADATA = ("oplog.bson", "system.indexes.bson")
# What the plugin lists, by the version that began to: it goes on when tar cannot read one.
_LISTED_1X = (("var/lib/juju/server.pem", 18), ("var/lib/juju/shared-secret", 20), ("var/lib/juju/system-identity", 20))
_LOCAL = ("localhost", "127.0.0.1", "::1")
API_PORT, STATE_PORT = 17070, 37017


def wanted(collection: str, raw: bytes) -> bool:
    """Whether a document of one of the collections :data:`DECODED` is to be decoded; it may be more than are needed."""
    return collection != "machines" or b"jobs" not in raw or _MANAGES.search(raw) is not None


@dataclass(frozen=True)
class Contents:
    """What a reader found. Names are those below ``juju-backup/``.

    :param files: size in bytes of each file.
    :param root: size in bytes of each regular file in root.tar, by its name there.
    :param small: content of each JSON file that is no collection's metadata, and of ``root/…/agent.conf``.
    :param documents: of the collections :data:`DECODED` of database ``juju`` those that are :func:`wanted`; a collection
        without any document is missing.
    """

    files: Mapping[str, int]
    root: Mapping[str, int]
    small: Mapping[str, bytes]
    documents: Mapping[str, Sequence[Mapping[str, Any]]]

    def by_id(self, collection: str) -> dict[str, Mapping[str, Any]]:
        return {str(one["_id"]): one for one in self.documents.get(collection, ())}


@dataclass(frozen=True)
class Described:
    """What the archive is of.

    :param format: ``juju-dr``, ``create-backup N``, ``juju-backup plugin`` or ``juju backups create`` (both Juju 1.x).
    :param model_uuid: the controller model; on 1.x the environment, which is the controller, too.
    :param addresses: where any controller machine was reached.
    :param endpoints: every host:port at which one may still answer, from all that names one; empty where nothing is restored.
    :param has_files: root.tar is there, and agent.conf in it.
    :param unproven: what the format could not prove, one sentence each.
    :param cannot_restore: why it cannot be restored onto a host, with the cure; empty when it can.
    """

    format: str
    controller_uuid: str
    model_uuid: str
    machine_id: str
    version: str
    generation: str
    hostname: str = ""
    instance_id: str = ""
    started: str = ""
    api_port: int = API_PORT
    state_port: int = STATE_PORT
    ca_cert: str = ""
    server_cert: str = ""
    controllers: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    endpoints: list[str] = field(default_factory=list)
    has_dqlite: bool = False
    has_agent_binary: bool = False
    has_files: bool = True
    unproven: list[str] = field(default_factory=list)
    cannot_restore: str = ""


def describe(path: str, contents: Contents) -> Described:
    """Says what an archive is of, and what it cannot prove.

    :param path: for messages.
    :raises JujuDrError: it is no backup of a controller, or contradicts itself, or is of a Juju that is not supported.
    """
    metadata = None
    if "metadata.json" in contents.files:
        metadata = parse_metadata(contents.small["metadata.json"].decode("utf-8", "replace"))
    _whole_dump(path, contents)
    if "dump/juju/stateServers.bson" in contents.files:
        return _describe_1x(path, contents, metadata)
    _have(path, contents, _NEEDED)
    assert metadata is not None
    return _describe_2x(path, contents, metadata)


def _have(path: str, contents: Contents, needed: Sequence[str]) -> None:
    for name in needed:
        if name not in contents.files:
            raise JujuDrError(f"{path} is no backup of a Juju controller: it has no {name}", "Name a juju-backup-….tar.gz")


def _whole_dump(path: str, contents: Contents) -> None:
    """Every collection has its documents and its metadata; a prelude says which server was dumped."""
    for name in contents.files:
        file = PurePosixPath(name)
        if file.parts[0] != "dump" or file.name in _WITHOUT_METADATA:
            continue
        if file.name.endswith(".bson"):
            other = file.with_name(file.name[: -len(".bson")] + ".metadata.json")
        elif file.name.endswith(".metadata.json"):
            other = file.with_name(file.name[: -len(".metadata.json")] + ".bson")
        else:
            continue
        if str(other) not in contents.files:
            raise JujuDrError(f"{path} is not whole: it has {file.name} and no {other.name}", AGAIN)
    prelude = contents.small.get("dump/prelude.json")
    if prelude is None:
        return
    try:
        said = json.loads(prelude.decode("utf-8"))
    except ValueError:
        said = None
    if not isinstance(said, dict) or not said.get("ServerVersion"):
        raise JujuDrError(f"dump/prelude.json in {path} names no server", AGAIN)


def _agent_conf(path: str, contents: Contents, machine_id: str) -> AgentConf:
    name = f"root/var/lib/juju/agents/machine-{machine_id}/agent.conf"
    if name not in contents.small:
        raise JujuDrError(f"{path} has no agent.conf of controller machine {machine_id}", AGAIN)
    return parse_agent_conf(contents.small[name].decode("utf-8", "replace"))


def _has_agent_binary(contents: Contents, version: str) -> bool:
    return any(size for name, size in contents.root.items() if name.endswith("/jujud") and f"/tools/{version}-" in name)


def _addresses(
    controllers: Sequence[Mapping[str, Any]], host_ports: Sequence[Mapping[str, Any]], conf: Sequence[str]
) -> list[str]:
    """Where each controller machine was reached, from all that knows it."""
    listed = [one for controller in controllers for one in controller["addresses"]]
    for document in host_ports:
        for server in document.get("apihostports") or []:
            listed += addresses_of({"addresses": server})
    listed += [one.rpartition(":")[0].strip("[]") for one in conf]
    return [one for one in dict.fromkeys(listed) if one not in _LOCAL]


# --- Juju 2.9 and 3.x --------------------------------------------------------------------------------------------------


def _describe_2x(path: str, contents: Contents, metadata: BackupMetadata) -> Described:
    controllers = contents.by_id("controllers")
    if "e" not in controllers:
        raise JujuDrError(f"{path} names no controller machines (controllers e)", AGAIN)
    known, version = generation(metadata.version), metadata.version
    model = str(controllers["e"]["model-uuid"])
    if known in ENVIRONMENTS or metadata.model_uuid not in ("", model):
        raise JujuDrError(f"metadata.json and the documents in {path} are of different controllers", WRONG)
    settings = controllers.get("controllerSettings", {}).get("settings", {})
    uuid = metadata.controller_uuid or str(settings.get("controller-uuid", ""))
    conf = None
    if "root.tar" in contents.files:
        conf = _agent_conf(path, contents, metadata.machine_id)
        if conf.scalar("controller") != f"controller-{uuid}" or conf.scalar("tag") != f"machine-{metadata.machine_id}":
            raise JujuDrError(f"agent.conf and metadata.json in {path} are of different controllers", WRONG)
    machines = {str(m["machineid"]): m for m in contents.documents["machines"] if m.get("model-uuid") == model}
    listed: list[dict[str, Any]] = [
        {"machine_id": str(one), "addresses": addresses_of(machines[str(one)]) if str(one) in machines else []}
        for one in controllers["e"]["controller-ids"]
    ]
    host_ports = [controllers[w] for w in ("apiHostPorts", "apiHostPortsForAgents") if w in controllers]
    ours = _MANIFEST in contents.small
    api_port = int((conf and conf.scalar("apiport")) or settings.get("api-port") or API_PORT)
    state_port = int((conf and conf.scalar("stateport")) or settings.get("state-port") or STATE_PORT)
    confs = [parse_agent_conf(t.decode("utf-8", "replace")) for n, t in contents.small.items() if n.endswith("/agent.conf")]
    members = json.loads(contents.small.get("juju-dr/dump-report.json", b"{}")).get("members", [])
    own = [machines[one["machine_id"]] for one in listed if one["machine_id"] in machines]
    described = Described(
        JUJU_DR if ours else f"create-backup {metadata.format_version}",
        uuid,
        model,
        metadata.machine_id,
        version,
        known,
        metadata.hostname,
        metadata.instance_id,
        metadata.started,
        api_port,
        state_port,
        conf.require("cacert") if conf else str(settings.get("ca-cert", "")),
        (conf.scalar("controllercert") if conf else None) or "",
        listed,
        _addresses(listed, host_ports, conf.sequence("apiaddresses") if conf else ()),
        old_endpoints(controllers.values(), own, confs, members, api_port, state_port),
        has_dqlite=any("/dqlite/" in name for name in contents.root),
        has_agent_binary=_has_agent_binary(contents, version),
        has_files=conf is not None,
        unproven=_unproven_2x(contents, metadata, ours),
        cannot_restore=""
        if conf
        else "It has no root.tar, so no agent.conf with the passwords that its documents ask for. Take another archive; "
        "a rehearsal shows what its database holds.",
    )
    if not described.has_agent_binary:
        described.unproven.append(f"it holds no agent binary (jujud) of version {version}")
    if known == "3.x" and not described.has_dqlite:
        described.unproven.append("it holds no dqlite/: leases start anew, and the target must have its own")
    return described


def _unproven_2x(contents: Contents, metadata: BackupMetadata, ours: bool) -> list[str]:
    found = [] if ours else [_NO_MANIFEST]
    if metadata.format_version == 0:
        found.append("metadata.json of format 0 names no controller: its documents do")
    if "root.tar" not in contents.files:
        found.append("it has no root.tar: none of the controller's files can be checked")
    if "dump/oplog.bson" not in contents.files:
        found.append("it has no oplog: its collections need not be of one instant")
    nodes = len(contents.documents.get("controllerNodes", ()))
    if metadata.ha_nodes and metadata.ha_nodes != nodes:
        found.append(f"metadata.json counts {metadata.ha_nodes} controllers, the documents {nodes}")
    return found


_NO_MANIFEST = "it has no manifest: that it is whole is proven, that it equals what the controller held is not"


# --- Juju 1.x ----------------------------------------------------------------------------------------------------------


def _describe_1x(path: str, contents: Contents, metadata: BackupMetadata | None) -> Described:
    _have(path, contents, _NEEDED_1X)
    servers = contents.by_id("stateServers")
    if "e" not in servers:
        raise JujuDrError(f"{path} names no state servers (stateServers e)", AGAIN)
    uuid = _environment(path, contents, servers["e"])
    machine_id = metadata.machine_id if metadata else _only_machine(contents)
    conf = _agent_conf(path, contents, machine_id)
    version = metadata.version if metadata else conf.require("upgradedToVersion")
    known = generation(version)
    told = {conf.scalar("environment") or f"environment-{uuid}", f"environment-{metadata.model_uuid if metadata else uuid}"}
    if known not in ENVIRONMENTS or conf.scalar("tag") != f"machine-{machine_id}" or told != {f"environment-{uuid}"}:
        raise JujuDrError(f"agent.conf, metadata.json and the documents in {path} are of different environments", WRONG)
    machines = {
        str(one.get("machineid", one["_id"])): one
        for one in contents.documents["machines"]
        if one.get("env-uuid", uuid) == uuid
    }
    # A restore by juju-restore 1.20 left numbers there.
    ids = [str(one) for one in servers["e"].get("machineids") or []]
    listed = [{"machine_id": i, "addresses": addresses_of(machines[i]) if i in machines else []} for i in ids]
    state = conf.sequence("stateaddresses")
    ports = [int(one.rpartition(":")[2]) for one in state]
    described = Described(
        API_1X if metadata else PLUGIN,
        uuid,
        uuid,
        machine_id,
        version,
        known,
        metadata.hostname if metadata else "",
        str(machines.get(machine_id, {}).get("instanceid") or ""),
        metadata.started if metadata else "",
        int(conf.scalar("apiport") or API_PORT),
        int(conf.scalar("stateport") or (ports or [STATE_PORT])[0]),
        conf.require("cacert"),
        conf.scalar("stateservercert") or "",
        listed,
        _addresses(listed, [servers.get("apiHostPorts", {})], [*conf.sequence("apiaddresses"), *state]),
        has_agent_binary=_has_agent_binary(contents, version),
        unproven=_unproven_1x(contents, version, metadata is not None),
        cannot_restore=f"Juju {version} runs on MongoDB 2.4, which is not put onto a host here. Rehearse the archive with "
        "verify.yml; readdress.yml makes of it an archive that names the new address, to be loaded by hand.",
    )
    if not described.has_agent_binary:
        described.unproven.append(f"it holds no agent binary (jujud) of version {version}")
    return described


def _environment(path: str, contents: Contents, servers: Mapping[str, Any]) -> str:
    """UUID of the environment that the state servers are in: hosted ones may be beside it."""
    known = contents.by_id("environments")
    uuid = str(servers.get("env-uuid") or (next(iter(known)) if len(known) == 1 else ""))
    if uuid not in known:
        raise JujuDrError(f"{path} does not say which environment is the state servers' own", AGAIN)
    return uuid


def _only_machine(contents: Contents) -> str:
    """The plugin runs on machine 0; still, its root.tar says it."""
    prefix = "var/lib/juju/agents/machine-"
    found = sorted({n[len(prefix) :].partition("/")[0] for n in contents.root if n.startswith(prefix)})
    return found[0] if len(found) == 1 else "0"


def _unproven_1x(contents: Contents, version: str, by_api: bool) -> list[str]:
    found = [_NO_MANIFEST]
    if by_api:
        found.append("its files are older than its documents: they were gathered first, while jujud ran")
        if "dump/oplog.bson" not in contents.files:
            found.append("it has no oplog: its collections need not be of one instant")
    else:
        found.append("it has no metadata.json: version and machine are what agent.conf in it says")
        if "environconfig.json" not in contents.files:
            found.append("it has no environconfig.json, which the plugin writes before it gathers files")
        if "dump/oplog.bson" in contents.files:
            found.append("it has an oplog, which the plugin never writes")
        minor = int(version.split(".")[1])
        lacks = [name for name, since in _LISTED_1X if minor >= since and name not in contents.root]
        if lacks:
            found.append(f"the plugin goes on when it cannot read a file: root.tar has no {', '.join(lacks)}")
    return found
