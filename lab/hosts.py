"""The lab's hosts as they are now: started, found, entered, lost."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict

from lab import image
from lab.podman import FOLDER, ROOT, limits, podman
from lab.shapes import GATEWAY, GROUPS, SUBNET, Host

NETWORK = "juju-dr-lab"
STATE = FOLDER / "state.json"
KEY = FOLDER / "ssh" / "id_ed25519"
CLOUD = FOLDER / "cloud"
LIBRARY = "/usr/local/lib/juju-lab"
START_SECONDS = 90


def present() -> list[Host]:
    """The hosts that are up."""
    return [Host(**one) for one in json.loads(STATE.read_text(encoding="utf-8"))] if STATE.exists() else []


def hosts_of(group: str) -> list[str]:
    """Names of the hosts of an inventory group."""
    return [host.name for host in present() if GROUPS[host.role] == group]


def remember(hosts: Sequence[Host]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    STATE.write_text(json.dumps([asdict(host) for host in hosts], indent=1) + "\n", encoding="utf-8")


def inside(name: str, command: Sequence[str], stdin: str | bytes = "") -> str:
    """Runs a command in a host and returns what it printed."""
    return podman("exec", "-i", "--env", f"PYTHONPATH={LIBRARY}", container(name), *command, stdin=stdin)


def container(name: str) -> str:
    return f"juju-dr-{name}"


def ensure_network() -> None:
    """The lab's own bridge; nothing on it reaches outside.

    :raises SystemExit: this machine uses the subnet already.
    """
    if NETWORK in podman("network", "ls", "--format", "{{.Name}}").split():
        return
    wanted = ipaddress.ip_network(SUBNET)
    routes = json.loads(subprocess.run(["ip", "-json", "route"], capture_output=True, text=True, check=True).stdout or "[]")
    for route in routes:
        if route["dst"] != "default" and ipaddress.ip_network(route["dst"], strict=False).overlaps(wanted):
            raise SystemExit(
                f"The lab needs subnet {SUBNET}, but this machine routes {route['dst']} to {route.get('dev')}: "
                "the addresses are those of the test data. Take that network down while the lab runs."
            )
    podman("network", "create", "--internal", "--disable-dns", "--subnet", SUBNET, "--gateway", GATEWAY, NETWORK)


def ensure_key() -> None:
    """The key that Ansible logs in with."""
    if not KEY.exists():
        KEY.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(KEY)], check=True)


def start(hosts: Sequence[Host], more: Sequence[str] = ()) -> None:
    """Starts hosts, all at once, and waits until each answers by ssh.

    :param more: further flags of ``podman run``.
    """
    name = image.ensure()
    ensure_network()
    ensure_key()
    CLOUD.mkdir(parents=True, exist_ok=True)
    for host in hosts:
        podman("rm", "--force", "--volumes", "--time", "0", "--ignore", container(host.name))
        podman(
            "run",
            "--detach",
            "--systemd=always",
            "--cap-add=AUDIT_WRITE",
            *limits(),
            "--name",
            container(host.name),
            "--hostname",
            host.name,
            "--network",
            NETWORK,
            "--ip",
            host.address,
            "--volume",
            f"{ROOT}/module_utils/juju_dr:{LIBRARY}/ansible/module_utils/juju_dr:ro",
            "--volume",
            f"{ROOT}/lab:{LIBRARY}/lab:ro",
            "--volume",
            f"{CLOUD}:/srv/juju-lab-cloud:rw",
            *more,
            name,
            "/lib/systemd/systemd",
        )
    remember([*(h for h in present() if h.name not in {one.name for one in hosts}), *hosts])
    for host in hosts:
        _wait_ssh(host)


def _wait_ssh(host: Host) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection((host.address, 22), 1) as connection:
                connection.settimeout(2)
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            failed = podman("exec", container(host.name), "systemctl", "--failed", "--no-legend", check=False)
            raise SystemExit(f"{host.name} does not answer by ssh after {START_SECONDS} s; failed units: {failed or 'none'}")
        time.sleep(0.1)


def lose(hosts: Sequence[Host]) -> None:
    """Destroys hosts with everything on them."""
    for host in hosts:
        podman("rm", "--force", "--volumes", "--time", "0", "--ignore", container(host.name))
    gone = {host.name for host in hosts}
    remember([host for host in present() if host.name not in gone])


def remove_all() -> None:
    """Removes every host of the lab and its network."""
    names = podman("ps", "--all", "--filter", "name=^juju-dr-", "--format", "{{.Names}}").split()
    if names:
        podman("rm", "--force", "--volumes", "--time", "0", *names)
    STATE.unlink(missing_ok=True)
    podman("network", "rm", "--force", NETWORK, check=False)
