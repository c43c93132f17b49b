"""Makes a spare host a second controller of the restored one, as ``enable-ha --to`` does; the peergrouper does the rest."""

from __future__ import annotations

import json
import re
import time

from lab import fixtures
from lab.hosts import KEY, inside, present, start
from lab.shapes import SPARES, Host

RESTORED = "n0"
SECONDS = 60

# Runs on the restored controller; prints the new machine's id, nonce and agent.conf.
DOCUMENTS = """
import copy, json, sys
from pathlib import Path
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.load import MongoUser, make_users
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect
from lab.standin.common import password_hash
told = json.load(sys.stdin)
path = next(Path("/var/lib/juju/agents").glob("machine-*/agent.conf"))
conf = parse(path.read_text())
client = connect(access_from_agent_conf(conf, "/var/snap/juju-db/common"))
juju = client.juju
model, own = conf.require("model")[6:], conf.require("tag")[8:]
number = str(juju.sequence.find_one_and_update({"_id": model + ":machine"}, {"$inc": {"counter": 1}})["counter"])
nonce = "machine-%s:lab" % own
machine = copy.deepcopy(juju.machines.find_one({"_id": "%s:%s" % (model, own)}))
old, new = next(a["value"] for a in machine["machineaddresses"] if a["networkscope"] == "local-cloud"), told["address"]
text = lambda value: json.loads(json.dumps(value).replace(old, new))
for key in ("addresses", "machineaddresses", "preferredpublicaddress", "preferredprivateaddress"):
    machine[key] = text(machine[key])
machine.update({"_id": "%s:%s" % (model, number), "machineid": number, "nonce": nonce, "jobs": [1, 2], "principals": [],
                "passwordhash": password_hash(told["password"])})
juju.machines.insert_one(machine)
instance = juju.instanceData.find_one({"_id": "%s:%s" % (model, own)})
juju.instanceData.insert_one({**instance, "_id": machine["_id"], "machineid": number, "instanceid": "manual:" + new})
status = juju.statuses.find_one({"_id": "%s:m#%s" % (model, own)})
juju.statuses.insert_one({**status, "_id": "%s:m#%s" % (model, number), "status": "started"})
node = juju.controllerNodes.find_one({"_id": "%s:%s" % (model, own)})
juju.controllerNodes.insert_one({**node, "_id": machine["_id"], "has-vote": False, "wants-vote": True})
juju.controllers.update_one({"_id": "e"}, {"$push": {"controller-ids": number}})
make_users(client, [MongoUser("machine-" + number, told["password"])])
print(json.dumps({"id": number, "nonce": nonce, "conf": path.read_text()}))
"""
MEMBERS = """
import json
from ansible.module_utils.juju_dr.controller_host import controller_client
with controller_client("/var/lib/juju", "/var/snap/juju-db/common") as client:
    print(json.dumps([[m["name"], m["stateStr"]] for m in client.admin.command("replSetGetStatus")["members"]]))
"""


def add(name: str) -> None:
    """Starts the host, enters it into the documents, and waits until the replica set has two members at work."""
    host = Host(name, SPARES[name], "machine")
    start([host])
    told = {"address": host.address, "password": fixtures.password("second")}
    made = json.loads(inside(RESTORED, ["python3", "-c", DOCUMENTS], json.dumps(told)))
    number, text = str(made["id"]), str(made["conf"])
    for key, value in (
        ("tag", f"machine-{number}"),
        ("nonce", made["nonce"]),
        ("apipassword", told["password"]),
        ("statepassword", told["password"]),
        ("oldpassword", told["password"]),
    ):
        text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
    taken = inside(RESTORED, ["sh", "-c", TAKE]).encode("latin-1")
    inside(name, ["sh", "-c", "base64 -d | tar -C / -xpf -"], taken)
    restored = inside(RESTORED, ["sh", "-c", "basename /var/lib/juju/agents/machine-*"]).strip()[len("machine-") :]
    files: fixtures.Files = {}
    fixtures.put(files, f"var/lib/juju/agents/machine-{number}/agent.conf", text.encode())
    fixtures.put(files, "home/ubuntu/.ssh/authorized_keys", KEY.with_suffix(".pub").read_bytes(), 0o600, 1000)
    for ending, mode in ((".service", 0o644), ("-exec-start.sh", 0o755)):
        unit = inside(RESTORED, ["cat", f"/etc/systemd/system/jujud-machine-{restored}{ending}"])
        unit = unit.replace(f"machine-{restored}", f"machine-{number}").replace(
            f"--machine-id {restored}", f"--machine-id {number}"
        )
        fixtures.put(files, f"etc/systemd/system/jujud-machine-{number}{ending}", unit.encode(), mode)
    inside(name, ["tar", "-C", "/", "-xpf", "-"], fixtures.write_tar(files))
    inside(name, ["sh", "-c", START.replace("NUMBER", number).replace("RESTORED", restored)])
    deadline = time.monotonic() + SECONDS
    while True:
        members = json.loads(inside(RESTORED, ["python3", "-c", MEMBERS]))
        if sorted(state for _, state in members) == ["PRIMARY", "SECONDARY"]:
            print(f"members: {members}")
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"after {SECONDS} s the members are {members}; hosts: {[h.name for h in present()]}")
        time.sleep(0.3)


# The certificates, the key file and the tools are the same on all members.
TAKE = (
    "tar -C / -cf - var/snap/juju-db/common/server.pem var/snap/juju-db/common/ca.crt var/snap/juju-db/common/shared-secret "
    "var/snap/juju-db/common/juju-db.config var/lib/juju/server.pem var/lib/juju/tools etc/systemd/system/snap.* | base64 -w0"
)
START = (
    "set -e; mkdir -p /var/snap/juju-db/common/db /var/snap/juju-db/common/logs /var/log/juju; "
    "mv /var/lib/juju/tools/machine-RESTORED /var/lib/juju/tools/machine-NUMBER; "
    "systemctl daemon-reload; systemctl start snap.juju-db.daemon jujud-machine-NUMBER"
)
