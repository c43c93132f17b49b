"""Runs on a workload machine, fed through ssh: points its agents at the new address and restarts what changed.

Only Python's standard library, and only what old Pythons (3.5) know: workload machines are of any age.
"""

import glob
import json
import os
import re
import subprocess


def with_addresses(text, addresses):
    """The text of an agent.conf with its apiaddresses replaced; every other byte stays."""
    items = "".join("- " + address + "\n" for address in addresses)
    return re.sub(r"(?m)^apiaddresses:[^\n]*\n(?:[ \t]*- [^\n]*\n)*", lambda _: "apiaddresses:\n" + items, text, count=1)


def refusal(text, order):
    """Why an agent.conf is not one of this controller's; empty when it is."""
    if "controller: controller-" + order["controller_uuid"] + "\n" not in text:
        return "it belongs to another controller"
    if re.sub(r"\s", "", order["ca_cert"]) not in re.sub(r"\s", "", text):
        return "it trusts another CA"
    return ""


def replace(path, text, stamp):
    """Writes the file whole or not at all, with its owner and mode; the old one stays beside it."""
    status = os.stat(path)
    kept = path + ".juju-dr-" + stamp
    if not os.path.exists(kept):
        os.link(path, kept)
    fresh = path + ".juju-dr-new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.chown(fresh, status.st_uid, status.st_gid)
    os.chmod(fresh, status.st_mode & 0o777)
    os.rename(fresh, path)


def main(order, root="/var/lib/juju"):
    agents, refused, changed = [], [], []
    for path in sorted(glob.glob(root + "/agents/*/agent.conf")):
        tag = os.path.basename(os.path.dirname(path))
        with open(path) as source:
            text = source.read()
        model = re.search(r"(?m)^model: model-(\S+)$", text)
        name = tag + "@" + (model.group(1) if model else "")
        why = refusal(text, order)
        if why:
            refused.append(name + ": " + why)
            continue
        agents.append(name)
        wanted = with_addresses(text, order["addresses"])
        if wanted != text:
            changed.append(tag)
            if order["apply"]:
                replace(path, wanted, order["stamp"])
    failed = []
    if changed and order["apply"]:
        # Unit agents of Juju 2.9 and 3.x run inside the machine agent; older deployments have units of their own.
        units = ["jujud-machine-" + tag[len("machine-") :].replace("/", "-") for tag in changed if tag.startswith("machine-")]
        units = units or [
            os.path.basename(p)[: -len(".service")] for p in glob.glob("/etc/systemd/system/jujud-machine-*.service")
        ]
        own = ["jujud-" + tag for tag in changed if os.path.exists("/etc/systemd/system/jujud-" + tag + ".service")]
        for unit in sorted(set(units + own)):
            # An agent may take minutes to stop; that it came back is seen on the controller.
            if subprocess.call(["systemctl", "restart", "--no-block", unit]):
                failed.append(unit)
    return {"agents": agents, "refused": refused, "changed": changed, "failed": failed}


def tell(order):
    """Carries out an order, given as JSON (addresses, controller UUID, CA certificate, stamp, apply), and prints JSON."""
    print(json.dumps(main(json.loads(order))))
