"""Archives that others made: create-backup's formats 0 to 2 of the fixtures' data, and both backups of Juju 1.x.

No archive of Juju 1.x is at hand: documents, files and layout are made here as that code writes them, and a dump as MongoDB
2.4's mongodump writes it (bare keys in metadata.json, system.indexes.bson, users in each database).

Usage: ``python -m lab.foreign RELEASE FORMAT PATH`` makes create-backup's archive of that format.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bson
from bson import Int64, ObjectId, Timestamp

from lab import fixtures

ENVIRONMENT = "6f5d8a3e-1c11-4a4e-8f0f-0a3b5c7d9e21"
STATE_SERVERS = ("10.99.0.41", "10.99.0.42", "10.99.0.43")
WORKLOAD = "10.99.0.44"
PASSWORD = "statepassword-of-machine-0"
Document = dict[str, Any]

# create-backup: the keys of each format, as its metadata.json has them.
_SINCE_1 = ("FormatVersion", "ModelUUID", "ControllerUUID", "HANodes", "ControllerMachineID", "ControllerMachineInstanceID")
# 1.x: collections whose ids carry the environment's UUID since 1.21, and the others' that do since 1.22.
_PREFIXED_21 = ("machines", "instanceData", "units", "services", "relations", "relationscopes", "cleanups", "sequence")
_GLOBAL = ("stateServers", "environments", "users", "txns", "txns.log", "toolsmetadata", "restoreInfo")


def create_backup(path: Path, release: str, number: int, root_tar: bool = True, **metadata: Any) -> Path:
    """The fixture of 2.9 or 3.6 as create-backup of another format would have made it.

    :param metadata: keys of metadata.json to replace; None takes the key out.
    """
    files = fixtures.fixture("single", release)
    said = json.loads(files["juju-backup/metadata.json"][1])
    if number < 2:
        said = {**said, "Checksum": "", "ChecksumFormat": "", "Size": 0, "FormatVersion": number}
    if number == 0:
        said.update(Environment=said["ModelUUID"], CACert="", CAPrivateKey="")
        said = {key: value for key, value in said.items() if key not in _SINCE_1}
    said = {key: value for key, value in {**said, **metadata}.items() if value is not None}
    fixtures.put(files, "juju-backup/metadata.json", json.dumps(said).encode() + b"\n")
    if not root_tar:
        del files["juju-backup/root.tar"]
    return _pack(path, files)


@dataclass(frozen=True)
class Environment:
    """A Juju 1.x environment to make an archive of.

    :param version: of jujud, for example ``1.20.14``.
    :param servers: number of state servers; 1.18 has one.
    :param provider: ``ec2`` or ``manual``.
    :param hosted: another environment is hosted beside (1.25).
    """

    version: str
    servers: int = 1
    provider: str = "ec2"
    hosted: bool = False

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])

    def instance(self, machine: int) -> str:
        if self.provider == "manual":
            return "manual:" if machine == 0 else f"manual:{STATE_SERVERS[machine]}"
        return f"i-0000000{machine}"


def plugin(path: Path, environment: Environment) -> Path:
    """What the ``juju-backup`` plugin makes: mongod stopped, all databases, no metadata.json."""
    files: fixtures.Files = {}
    _dump(files, environment)
    settings = documents(environment)["settings"]
    exported = "".join(json.dumps(one, default=str) + "\n" for one in settings)
    fixtures.put(files, "juju-backup/environconfig.json", exported.encode(), 0o644)
    fixtures.put(files, "juju-backup/root.tar", _root(environment, "plugin"), 0o644)
    return _pack(path, files)


def api(path: Path, environment: Environment, machine: int = 0) -> Path:
    """What ``juju backups create`` makes: hot, with oplog and metadata.json."""
    files: fixtures.Files = {}
    said = {"ID": "", "Checksum": "", "ChecksumFormat": "", "Size": 0, "Stored": "0001-01-01T00:00:00Z"}
    said.update(Started="2016-03-01T10:00:00Z", Finished="0001-01-01T00:00:00Z", Notes="", Environment=ENVIRONMENT)
    said.update(Machine=str(machine), Hostname=f"ip-10-99-0-4{machine + 1}", Version=environment.version)
    fixtures.put(files, "juju-backup/metadata.json", json.dumps(said).encode())
    _dump(files, environment)
    fixtures.put(files, "juju-backup/dump/oplog.bson", b"".join(map(bson.encode, oplog(environment))))
    fixtures.put(files, "juju-backup/root.tar", _root(environment, "api", machine))
    return _pack(path, files)


def _pack(path: Path, files: fixtures.Files) -> Path:
    """Folders are members of their own, as tar writes them."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        made: set[str] = set()
        for name, (info, content) in files.items():
            for folder in reversed(Path(name).parents[:-1]):
                if str(folder) not in made and str(folder) not in files:
                    made.add(str(folder))
                    entry = tarfile.TarInfo(str(folder))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            info.name, info.size = name, len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


# --- Juju 1.x ----------------------------------------------------------------------------------------------------------


def documents(environment: Environment) -> dict[str, list[Document]]:
    """Database ``juju``: what holds identity, addresses and votes, and some of what else is there."""
    ids = [str(n) for n in range(environment.servers)]
    # A workload machine and its unit; another unit, with a subordinate, stands on the first state server.
    other = str(environment.servers)
    made: dict[str, list[Document]] = {
        "machines": [_machine(environment, int(n)) for n in ids] + [_workload(environment, other)],
        "instanceData": [
            {"_id": n, "instanceid": environment.instance(int(n)), "status": "running", "arch": "amd64", "mem": Int64(1740)}
            for n in ids
        ]
        + [{"_id": other, "instanceid": "i-0000000f", "status": "running", "arch": "amd64", "mem": Int64(1740)}],
        "units": [
            _unit("gui/0", machineid="0", address=STATE_SERVERS[0], subordinates=["ntp/0"]),
            _unit("ntp/0", principal="gui/0", address=STATE_SERVERS[0]),
            _unit("blog/0", machineid=other, address=WORKLOAD),
        ],
        "services": [{"_id": n, "series": "trusty", "life": 0, "unitcount": 1} for n in ("blog", "gui", "ntp")],
        "settings": [
            _config(environment),
            {"_id": "s#blog#cs:trusty/blog-1", "key\uff0ewith\uff0edots": "a.b$c"},
            {"_id": "r#0#requirer#gui/0", "private-address": STATE_SERVERS[0]},
            {"_id": "r#0#provider#blog/0", "private-address": WORKLOAD},
        ],
        "statuses": [{"_id": f"m#{n}", "status": "started", "statusinfo": "", "statusdata": {}} for n in [*ids, other]],
        "constraints": [{"_id": f"m#{n}"} for n in [*ids, other]],
        "charms": [{"_id": "cs:trusty/blog-1", "bundlesha256": "ab" * 32}],
        "relations": [{"_id": "gui:site blog:site", "id": 0, "life": 0}],
        "sequence": [{"_id": "machine", "counter": environment.servers + 1}],
        "stateServers": _state_servers(environment, ids),
        "environments": [{"_id": ENVIRONMENT, "name": "prod", "life": 0}],
        "users": [{"_id": "admin", "name": "admin", "passwordhash": "x"}],
        "txns": [{"_id": ObjectId(f"{1:024x}"), "s": 6, "o": [{"c": "machines", "d": "0", "u": {"$set": {"life": 0}}}]}],
        "txns.log": [{"_id": ObjectId(f"{1:024x}"), "machines": {"d": ["0"], "r": [Int64(2)]}}],
    }
    for collection, listed in made.items():
        for one in listed:
            if collection not in ("txns", "txns.log"):
                one.update({"txn-revno": Int64(2), "txn-queue": [f"{1:024x}_0000000a"]})
            _as_of(environment, collection, one)
    if environment.minor >= 21:
        made["environments"][0].update(owner="admin@local", **{"server-uuid": ENVIRONMENT})
    if environment.hosted:
        made["environments"].append({"_id": "hosted-uuid", "name": "hosted", "owner": "bob@local", "server-uuid": ENVIRONMENT})
        made["settings"].append({"_id": "hosted-uuid:e", "env-uuid": "hosted-uuid", "name": "hosted", "type": "ec2"})
        there = _workload(environment, "0")
        there.update({"_id": "hosted-uuid:0", "machineid": "0", "env-uuid": "hosted-uuid", "txn-revno": Int64(2)})
        made["machines"].append(there)
    return made


def _as_of(environment: Environment, collection: str, one: Document) -> None:
    """Ids and fields as the version has them."""
    if collection in _GLOBAL:
        return
    local = one["_id"]
    if environment.minor >= (21 if collection in _PREFIXED_21 else 22):
        one.update({"_id": f"{ENVIRONMENT}:{local}", "env-uuid": ENVIRONMENT})
    if environment.minor < 21:
        return
    if collection in ("machines", "instanceData"):
        one["machineid"] = local
        if collection == "machines":
            one.pop("instanceid", None)
    if collection in ("units", "services"):
        one["name"] = local


def _address(value: str, scope: str, kind: str = "ipv4", **more: Any) -> Document:
    return {"value": value, "addresstype": kind, "networkscope": scope, **more}


def _machine(environment: Environment, number: int) -> Document:
    value = STATE_SERVERS[number]
    origin = {"origin": "provider"} if environment.minor >= 25 else {}
    seen = {"origin": "machine"} if environment.minor >= 25 else {}
    name = f"ec2-10-99-0-4{number + 1}.example"
    provided = [_address(name, "public", "hostname", **origin), _address(value, "local-cloud", **origin)]
    machine: Document = {
        "_id": str(number),
        # A manual machine is named by its address; jujud compares this with agent.conf.
        "nonce": "user-admin:bootstrap" if number == 0 else f"manual:{value}:0123",
        "series": "trusty",
        "containertype": "",
        "principals": ["gui/0"] if number == 0 else [],
        "life": 0,
        "tools": {"version": f"{environment.version}-trusty-amd64", "url": "", "size": Int64(0), "sha256": ""},
        "jobs": [2, 1] if number == 0 else [1, 2],
        "novote": False,
        "hasvote": True,
        "passwordhash": password_hash(PASSWORD),
        "clean": number > 0,
        "addresses": provided if environment.provider == "ec2" else provided[1:],
        "machineaddresses": [_address(value, "local-cloud", **seen), _address("127.0.0.1", "local-machine", **seen)],
        "supportedcontainersknown": True,
        "supportedcontainers": ["lxc"],
        "instanceid": environment.instance(number),
    }
    if environment.minor >= 25:
        machine["preferredpublicaddress"] = machine["addresses"][0]
        machine["preferredprivateaddress"] = machine["addresses"][-1]
    return machine


def _workload(environment: Environment, number: str) -> Document:
    addresses = [_address(WORKLOAD, "local-cloud")]
    machine = {**_machine(environment, 0), "_id": number, "jobs": [1], "hasvote": False, "nonce": "machine-0:77"}
    machine.pop("preferredpublicaddress", None)
    machine.pop("preferredprivateaddress", None)
    return {**machine, "principals": ["blog/0"], "addresses": addresses, "machineaddresses": [], "instanceid": "i-0000000f"}


def _unit(name: str, machineid: str = "", principal: str = "", address: str = "", subordinates: Any = ()) -> Document:
    return {
        "_id": name,
        "service": name.partition("/")[0],
        "series": "trusty",
        "principal": principal,
        "subordinates": list(subordinates),
        "machineid": machineid,
        "life": 0,
        "passwordhash": password_hash(name),
        "publicaddress": address,
        "privateaddress": address,
    }


def _config(environment: Environment) -> Document:
    config: Document = {
        "_id": "e",
        "name": "prod",
        "type": environment.provider,
        "agent-version": environment.version,
        "state-port": 37017,
        "api-port": 17070,
        "ca-cert": _pem("cacert"),
        "authorized-keys": "ssh-rsa AAAA juju-system-key",
    }
    if environment.provider == "manual":
        config["bootstrap-host"] = STATE_SERVERS[0]
    if environment.minor >= 21:
        config["provisioner-harvest-mode"] = "destroyed"
    return config


def _state_servers(environment: Environment, ids: list[str]) -> list[Document]:
    servers = [[_address(STATE_SERVERS[int(n)], "local-cloud", port=17070)] for n in ids]
    first: Document = {"_id": "e", "machineids": ids, "votingmachineids": list(ids)}
    if environment.minor >= 21:
        first["env-uuid"] = ENVIRONMENT
    serving = {"_id": "stateServingInfo", "apiport": 17070, "stateport": 37017, "sharedsecret": "c2VjcmV0"}
    serving.update(cert=_pem("controllercert"), privatekey=_pem("controllerkey"))
    return [first, {"_id": "apiHostPorts", "apihostports": servers}, serving]


def password_hash(password: str) -> str:
    """As Juju keeps agents' passwords: the first 18 bytes of SHA-512."""
    return base64.b64encode(hashlib.sha512(password.encode()).digest()[:18]).decode()


def oplog(environment: Environment) -> list[Document]:
    """The window of a hot dump as MongoDB 2.4 writes it: an insert, an update, a removal, an index, another database."""
    machine = documents(environment)["machines"][0]["_id"]
    made: list[Document] = [
        {"op": "i", "ns": "juju.cleanups", "o": {"_id": ObjectId(f"{9:024x}"), "kind": "units"}},
        {"op": "u", "ns": "juju.machines", "o2": {"_id": machine}, "o": {"$set": {"clean": True}}},
        {"op": "d", "ns": "juju.txns", "b": True, "o": {"_id": ObjectId(f"{1:024x}")}},
        {
            "op": "i",
            "ns": "juju.system.indexes",
            "o": {"_id": ObjectId(f"{8:024x}"), "ns": "juju.cleanups", "key": {"kind": 1}, "name": "kind_1"},
        },
        {
            "op": "u",
            "ns": "presence.presence.pings",
            "o2": {"_id": f"{ENVIRONMENT}:1456826400"},
            "o": {"$set": {"alive.0": Int64(7)}},
        },
        {"op": "i", "ns": "admin.system.users", "o": {"_id": ObjectId(f"{7:024x}"), "user": "new", "pwd": "x", "roles": []}},
    ]
    return [{"ts": Timestamp(1456826400, n + 1), "h": Int64(n), "v": 2, **one} for n, one in enumerate(made)]


def _dump(files: fixtures.Files, environment: Environment) -> None:
    """``dump/`` as mongodump 2.4 writes it."""
    user = {"_id": ObjectId(f"{2:024x}"), "user": "machine-0", "pwd": "0" * 32, "roles": ["readWriteAnyDatabase"]}
    databases: dict[str, dict[str, list[Document]]] = {
        "juju": documents(environment),
        "presence": {
            "presence.pings": [{"_id": f"{ENVIRONMENT}:1456826400", "slot": Int64(1456826400), "alive": {"0": Int64(3)}}]
        },
        "admin": {"system.users": [{**user, "user": "admin"}]},
    }
    if environment.minor < 21:
        databases["juju"]["system.users"] = databases["presence"]["system.users"] = [user]
    else:
        databases["admin"]["system.users"].append(user)
        databases["blobstore"] = {
            "blobstore.files": [{"_id": "one", "length": Int64(4), "chunkSize": 261120}],
            "blobstore.chunks": [{"_id": ObjectId(f"{3:024x}"), "files_id": "one", "n": 0, "data": b"blob"}],
        }
    if environment.minor >= 24:
        databases["logs"] = {"logs": [{"_id": ObjectId(f"{4:024x}"), "x": f"dialed {STATE_SERVERS[0]}:17070"}]}
    for database, collections in databases.items():
        indexes: list[Document] = []
        for collection, listed in collections.items():
            stem = f"juju-backup/dump/{database}/{collection}"
            fixtures.put(files, f"{stem}.bson", b"".join(map(bson.encode, listed)), 0o644)
            own: list[Document] = [{"v": 1, "key": {"_id": 1}, "ns": f"{database}.{collection}", "name": "_id_"}]
            if collection == "units":
                own.append({"v": 1, "key": {"principal": 1}, "ns": f"{database}.{collection}", "name": "principal_1"})
            indexes += own
            options = {"create": collection, "capped": True, "size": 10485760} if collection == "txns.log" else {}
            text = "{options : " + json.dumps(options) + ", " if options else "{"
            text += "indexes:[" + ", ".join(json.dumps(one) for one in own) + "]}"
            fixtures.put(files, f"{stem}.metadata.json", text.encode(), 0o644)
        fixtures.put(files, f"juju-backup/dump/{database}/system.indexes.bson", b"".join(map(bson.encode, indexes)), 0o644)


def _pem(key: str) -> str:
    """A certificate or key of the 2.9 fixture: any will do."""
    from ansible.module_utils.juju_dr.agent_conf import parse

    files = fixtures.fixture("controller-files", "2.9")
    value = parse(files["var/lib/juju/agents/machine-0/agent.conf"][1].decode()).scalar(key)
    assert value
    return value


def agent_conf(environment: Environment, machine: int = 0) -> str:
    """agent.conf of a state server, format 1.18."""
    servers = STATE_SERVERS[: environment.servers]
    # 1.18 speaks to itself by name, and so does any first state server until the address updater has run.
    state = [f"{one}:37017" for one in servers] if environment.servers > 1 else ["localhost:37017"]
    own = [f"{one}:17070" for one in servers] if environment.minor >= 20 else ["localhost:17070"]
    nonce = documents(environment)["machines"][machine]["nonce"]
    text = f"# format 1.18\ntag: machine-{machine}\ndatadir: /var/lib/juju\nlogdir: /var/log/juju\nnonce: {nonce}\n"
    text += f"jobs:\n- JobManageEnviron\n- JobHostUnits\nupgradedToVersion: {environment.version}\n"
    text += _block("cacert", _pem("cacert")) + "stateaddresses:\n" + "".join(f"- {one}\n" for one in state)
    text += f"statepassword: {PASSWORD}\n" + (f"environment: environment-{ENVIRONMENT}\n" if environment.minor >= 23 else "")
    text += (
        "apiaddresses:\n"
        + "".join(f"- {one}\n" for one in own)
        + f"apipassword: {PASSWORD}\noldpassword: hash-of-admin-secret\n"
    )
    text += f"values:\n  AGENT_SERVICE_NAME: jujud-machine-{machine}\n  PROVIDER_TYPE: {environment.provider}\n"
    text += _block("stateservercert", _pem("controllercert")) + _block("stateserverkey", _pem("controllerkey"))
    if environment.minor >= 22:
        text += _block("caprivatekey", _pem("caprivatekey"))
    text += "apiport: 17070\n"
    return text + ("stateport: 37017\nsharedsecret: c2VjcmV0\nsystemidentity: identity\n" if environment.minor >= 20 else "")


def _block(key: str, text: str) -> str:
    return f"{key}: |\n" + "".join(f"  {line}\n" for line in text.splitlines())


def _root(environment: Environment, by: str, machine: int = 0) -> bytes:
    """root.tar, with what the version gathers."""
    minor = environment.minor
    files: fixtures.Files = {}
    tools = f"var/lib/juju/tools/{environment.version}-trusty-amd64"
    fixtures.put(files, f"var/lib/juju/agents/machine-{machine}/agent.conf", agent_conf(environment, machine).encode())
    fixtures.put(files, f"{tools}/jujud", b"#!/bin/false\n", 0o755)
    link = tarfile.TarInfo(f"var/lib/juju/tools/machine-{machine}")
    link.type, link.linkname = tarfile.SYMTYPE, f"/{tools}"
    files[link.name] = (link, b"")
    fixtures.put(files, "var/lib/juju/server.pem", b"pem")
    if minor >= 20:
        fixtures.put(files, "var/lib/juju/shared-secret", b"c2VjcmV0")
        fixtures.put(files, "var/lib/juju/system-identity", b"identity")
        fixtures.put(files, "var/lib/juju/nonce.txt", b"nonce")
    if by == "plugin" or minor <= 22:
        fixtures.put(files, "etc/init/juju-db.conf", b"exec mongod --replSet juju\n", 0o644)
        fixtures.put(files, f"etc/init/jujud-machine-{machine}.conf", b"exec jujud machine\n", 0o644)
    home = "root" if by == "plugin" else "home/ubuntu"
    fixtures.put(files, f"{home}/.ssh/authorized_keys", b"ssh-rsa AAAA juju-system-key\n")
    fixtures.put(files, "etc/rsyslog.d/25-juju.conf", f":syslogtag action @{STATE_SERVERS[0]}:6514\n".encode(), 0o644)
    return fixtures.write_tar(files)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("release", choices=["2.9", "3.6"])
    parser.add_argument("format", type=int, choices=[0, 1, 2])
    parser.add_argument("path", type=Path)
    asked = parser.parse_args()
    asked.path.parent.mkdir(parents=True, exist_ok=True)
    create_backup(asked.path, asked.release, asked.format)
    return 0


if __name__ == "__main__":
    sys.exit(main())
