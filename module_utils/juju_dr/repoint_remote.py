"""Runs on a workload machine, fed through ssh: points its agents at the new address and restarts what changed.

Only Python's standard library, and only what old Pythons (3.5) know: workload machines are of any age.
"""

import fcntl
import glob
import json
import os
import re
import socket
import subprocess
import time

DIAL_SECONDS = 3
RESTART_DUE = ".juju-dr-restart"


def with_addresses(text, addresses):
    """The text of an agent.conf with its apiaddresses replaced; every other byte stays."""
    items = "".join("- " + address + "\n" for address in addresses)
    found = r"(?m)^apiaddresses:[^\n]*\n(?:[ \t]*- [^\n]*(?:\n|\Z))*"
    return re.sub(found, lambda _: "apiaddresses:\n" + items, text, count=1)


def refusal(text, order):
    """Why an agent.conf is not one of this controller's workloads; empty when it is."""
    if not re.search(r"(?m)^controller: controller-" + re.escape(order["controller_uuid"]) + r"\s*$", text):
        return "it belongs to another controller"
    if re.sub(r"\s", "", order["ca_cert"]) not in re.sub(r"\s", "", text):
        return "it trusts another CA"
    if re.search(r"(?m)^controllerkey:[ \t]*[^\s\"']", text):
        return "it is a controller machine's own"
    if not re.search(r"(?m)^apiaddresses:", text):
        return "it has no apiaddresses"
    return ""


def put(path, text, mode, owner):
    """Writes a file whole or not at all."""
    fresh = path + ".juju-dr-new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline="") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.chown(fresh, *owner)
    os.chmod(fresh, mode)
    os.rename(fresh, path)


def replace(path, text, stamp):
    """Puts another text in a file's place, with its owner and mode; the old one stays beside it.

    That a restart is due is noted first: who is killed in between leaves it to the next run.
    """
    status = os.stat(path)
    owner = (status.st_uid, status.st_gid)
    kept = path + ".juju-dr-" + stamp
    if not os.path.exists(kept):
        os.link(path, kept)
    put(path + RESTART_DUE, stamp + "\n", 0o600, owner)
    put(path, text, status.st_mode & 0o777, owner)


def units_of(tags):
    """The services that run these agents."""
    # Unit agents of Juju 2.9 and 3.x run inside the machine agent; older deployments have units of their own.
    units = ["jujud-" + tag for tag in tags if tag.startswith("machine-")]
    units = units or [os.path.basename(p)[: -len(".service")] for p in glob.glob("/etc/systemd/system/jujud-machine-*.service")]
    own = ["jujud-" + tag for tag in tags if os.path.exists("/etc/systemd/system/jujud-" + tag + ".service")]
    return sorted(set(units + own))


def why_not(order):
    """Why an agent on this machine cannot reach the controller as agents do; empty when it can."""
    try:
        import ssl
    except ImportError:
        return ""
    reasons = []
    for address in order["addresses"]:
        host, _, port = address.rpartition(":")
        try:
            context = ssl.create_default_context(cadata=order["ca_cert"])
            with socket.create_connection((host.strip("[]"), int(port)), DIAL_SECONDS) as plain:
                with context.wrap_socket(plain, server_hostname="juju-apiserver"):
                    return ""
        except (OSError, ValueError) as error:
            reasons.append(address + ": " + str(error))
    return "; ".join(reasons)


def main(order, machine, root="/var/lib/juju"):
    """Points all agents of this machine.

    :param machine: ``tag`` and ``model`` of the machine that is meant: an address may lead to another one.
    """
    told = {"agents": [], "refused": [], "changed": [], "failed": [], "elsewhere": "", "controller": "", "clock": 0}
    paths = sorted(glob.glob(root + "/agents/*/agent.conf"))
    texts = {}
    for path in paths:
        with open(path, encoding="utf-8", newline="") as source:
            texts[path] = source.read()
    names = {}
    for path in paths:
        model = re.search(r"(?m)^model: model-(\S+)\s*$", texts[path])
        names[path] = os.path.basename(os.path.dirname(path)) + "@" + (model.group(1) if model else "")
    meant = machine["tag"] + "@" + machine["model"]
    if meant not in names.values():
        found = ", ".join(names[path] for path in paths if names[path].startswith("machine-"))
        told["elsewhere"] = "it has no agent " + meant + " but " + (found or "none")
        return told
    folder = os.open(root + "/agents", os.O_RDONLY)
    try:
        # A run whose ssh was cut may still be at work here.
        fcntl.flock(folder, fcntl.LOCK_EX)
        _point(order, paths, texts, names, told)
    finally:
        os.close(folder)
    told["controller"] = why_not(order)
    told["clock"] = time.time()
    return told


def _point(order, paths, texts, names, told):
    due = []
    for path in paths:
        tag = os.path.basename(os.path.dirname(path))
        why = refusal(texts[path], order)
        if why:
            told["refused"].append(names[path] + ": " + why)
            continue
        told["agents"].append(names[path])
        wanted = with_addresses(texts[path], order["addresses"])
        if wanted != texts[path]:
            told["changed"].append(tag)
            if order["apply"]:
                replace(path, wanted, order["stamp"])
        if wanted != texts[path] or os.path.exists(path + RESTART_DUE):
            due.append(tag)
    if due and order["apply"]:
        for unit in units_of(due):
            # An agent may take minutes to stop; that it came back is seen on the controller.
            if subprocess.call(["systemctl", "restart", "--no-block", unit]):
                told["failed"].append(unit)
        if not told["failed"]:
            for path in paths:
                if os.path.exists(path + RESTART_DUE):
                    os.remove(path + RESTART_DUE)
        # A restart that an earlier run owed counts as a change.
        told["changed"] += [tag for tag in due if tag not in told["changed"]]


def tell(order, machine):
    """Carries out an order, given as JSON (addresses, controller UUID, CA certificate, stamp, apply), and prints JSON."""
    print(json.dumps(main(json.loads(order), json.loads(machine))))
