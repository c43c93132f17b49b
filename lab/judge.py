"""Judges a restored lab from outside, with nothing of the restore's own reasoning.

``plant`` puts canaries into the living controller, ``grow`` lets the cloud change after the backup; ``judge`` demands the
canaries back, and looks at what agents, replica set and cloud have become; ``judge-foreign`` does without canaries.
Usage: ``python -m lab.judge plant|grow|judge|judge-foreign``
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.hosts import hosts_of, inside

CANARY = "survives-the-loss-of-every-controller"
NEW = "10.99.0.21"
CLOUD = Path(__file__).resolve().parent.parent / ".lab" / "cloud" / "instances.json"

# Runs on a lab host; prints JSON. The stand-in's agents write their files on their own time, so `judge` asks again.
PRELUDE = """
import glob, json, re, sys
sys.path.insert(0, "/usr/local/lib/juju-lab")
from ansible.module_utils.juju_dr.agent_conf import parse
from ansible.module_utils.juju_dr.mongo import access_from_agent_conf, connect
confs = {p.split("/")[-2]: parse(open(p).read()) for p in glob.glob("/var/lib/juju/agents/*/agent.conf")}
machine = next(c for t, c in confs.items() if t.startswith("machine-"))
HARVEST = "provisioner-harvest-mode"
def database():
    return connect(access_from_agent_conf(machine, "/var/snap/juju-db/common"))
"""
PLANT = (
    PRELUDE
    + """
client = database()
client.juju.statuseshistory.update_one({"_id": "CANARY"}, {"$set": {"statusinfo": "CANARY"}}, upsert=True)
for model in client.juju.models.find({"name": "prod"}):
    key = model["_id"] + ":e"
    client.juju.settings.update_one({"_id": key}, {"$set": {"settings.provisioner-harvest-mode": "all"}})
print("true")
""".replace("CANARY", CANARY)
)
CONTROLLER = (
    PRELUDE
    + """
client = database()
config = client.admin.command("replSetGetConfig")["config"]
status = client.admin.command("replSetGetStatus")
print(json.dumps({
    "canary document": client.juju.statuseshistory.count_documents({"statusinfo": "CANARY"}),
    "canary file": glob.glob("/var/lib/juju/agents/canary") != [],
    "members": [m["host"] for m in config["members"]],
    "state": status["myState"],
    "harvest": sorted({str(d["settings"].get(HARVEST)) for d in client.juju.settings.find({"_id": {"$regex": ":e$"}})}),
    "apiaddresses": {tag: conf.sequence("apiaddresses") for tag, conf in confs.items()},
}))
""".replace("CANARY", CANARY)
)
AGENTS = PRELUDE + 'print(json.dumps({tag: conf.sequence("apiaddresses") for tag, conf in confs.items()}))\n'


def python_inside(host: str, script: str) -> Any:
    return json.loads(inside(host, ["python3", "-"], script))


def plant() -> None:
    """Canaries into database and files; model prod harvests everything it does not know."""
    controllers = hosts_of("juju_controllers")
    python_inside(controllers[0], PLANT)
    for controller in controllers:
        inside(controller, ["sh", "-c", f"printf {CANARY} > /var/lib/juju/agents/canary"])


def grow() -> None:
    """A machine was added after the backup: the restored database does not know it, and it must live on."""
    instances = json.loads(CLOUD.read_text(encoding="utf-8"))
    model = next(one["model"] for one in instances if one["machine"] == "0" and one["id"] != "manual:")
    instances.append({"id": "manual:10.99.0.77", "model": model, "machine": "77", "state": "running"})
    CLOUD.write_text(json.dumps(instances, indent=1), encoding="utf-8")


def faults(planted: bool) -> list[str]:
    """What is wrong with the restored lab; empty when it is as it must be.

    :param planted: the archive was made after :func:`plant`, so the canaries must be there.
    """
    (controller,) = hosts_of("juju_restore_target")
    seen = python_inside(controller, CONTROLLER)
    wrong = []
    if planted and not seen["canary document"]:
        wrong.append("the canary document is gone")
    if planted and not seen["canary file"]:
        wrong.append("the canary file is gone")
    if seen["members"] != [f"{NEW}:37017"] or seen["state"] != 1:
        wrong.append(f"replica set members are {seen['members']}, state {seen['state']}")
    if seen["harvest"] != ["none"]:
        wrong.append(f"harvest modes are {seen['harvest']}")
    addresses = {f"{controller} {tag}": value for tag, value in seen["apiaddresses"].items()}
    for host in hosts_of("juju_workloads"):
        for tag, value in python_inside(host, AGENTS).items():
            addresses[f"{host} {tag}"] = value
    wrong += [f"{who} dials {value}" for who, value in addresses.items() if value != [f"{NEW}:17070"]]
    stopped = [i["id"] for i in json.loads(CLOUD.read_text(encoding="utf-8")) if i["state"] != "running"]
    wrong += [f"instance {one} was stopped" for one in stopped]
    return wrong


def judge_foreign() -> int:
    """The same for an archive that knows nothing of canaries."""
    return judge(planted=False)


def judge(planted: bool = True, deadline_seconds: float = 60) -> int:
    """Prints the verdict; waits for what comes about in its own time, and demands that it then stays."""
    end = time.monotonic() + deadline_seconds
    clean_since = None
    while True:
        wrong = faults(planted)
        now = time.monotonic()
        clean_since = None if wrong else (clean_since or now)
        # Two rounds of the stand-in's peergrouper, provisioner and address updater, which run every 2 s.
        if clean_since is not None and now - clean_since > 5:
            print("The restored controller is as it must be.")
            return 0
        if now > end:
            print("\n".join(wrong), file=sys.stderr)
            return 1
        time.sleep(0.5)


if __name__ == "__main__":
    verbs: dict[str, Callable[[], int | None]] = {"plant": plant, "grow": grow, "judge": judge, "judge-foreign": judge_foreign}
    sys.exit(verbs[sys.argv[1]]())
