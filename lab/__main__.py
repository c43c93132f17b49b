"""The lab from the command line: ``python -m lab up SHAPE | lose | spare NAME | add-controller NAME | status | down``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from lab import fixtures, hosts
from lab.hosts import KEY, inside, present, start
from lab.shapes import SHAPES, SPARES, Host, Shape

AGENTS_SECONDS = 60


def up(shape: Shape, documents: int) -> None:
    """Starts the hosts of a shape and waits until its agents are logged in."""
    hosts.remove_all()
    start(shape.hosts)
    key = KEY.with_suffix(".pub").read_bytes()
    make = {"controller": fixtures.controller_files}
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda h: _unpack(h.name, make.get(h.role, fixtures.workload_files)(shape, h, key)), shape.hosts))
    first = shape.controllers[0]
    _write_cloud(shape)
    source = {f"root/lab-source/{name}": entry for name, entry in fixtures.dump(shape.release).items()}
    _unpack(first.name, source)
    for other in shape.controllers[1:]:
        inside(other.name, ["systemctl", "enable", "--quiet", "--now", "snap.juju-db.daemon"])
    told = {
        "hosts": [asdict(host) for host in shape.hosts],
        "passwords": {h.machine_id: fixtures.password(h.machine_id) for h in shape.hosts if h.machine_id != "0"},
        "documents": documents,
        "release": shape.release,
    }
    inside(first.name, ["python3", "-m", "lab.provision"], json.dumps(told))
    inside(first.name, ["rm", "-rf", "/root/lab-source"])
    for host in shape.hosts:
        inside(host.name, ["systemctl", "enable", "--quiet", "--now", f"jujud-machine-{host.machine_id}"])
    for host in shape.hosts:
        wait_for_login(host)


def _unpack(name: str, files: fixtures.Files) -> None:
    inside(name, ["tar", "-C", "/", "--numeric-owner", "-xpf", "-"], fixtures.write_tar(files))
    # The fixtures know syslog by a number of their own.
    folders = "/var/snap/juju-db/common/logs /var/snap/juju-db/common/db /var/log/juju"
    inside(name, ["sh", "-c", f"mkdir -p {folders} && chown -R syslog:adm /var/log/juju && systemctl daemon-reload"])


def _write_cloud(shape: Shape) -> None:
    """The small cloud: every instance that a machine document knows."""
    instances = [
        {"id": one["instanceid"], "model": one["model-uuid"], "machine": one["machineid"], "state": "running"}
        for one in fixtures.documents(shape.release, "instanceData")
    ]
    (hosts.CLOUD / "instances.json").write_text(json.dumps(instances, indent=1), encoding="utf-8")


def wait_for_login(host: Host, seconds: float = AGENTS_SECONDS) -> None:
    """Until the host's machine agent reports that it is connected."""
    log = f"/var/log/juju/machine-{host.machine_id}.log"
    deadline = time.monotonic() + seconds
    while "successfully connected" not in inside(host.name, ["sh", "-c", f"cat {log} 2>/dev/null || true"]):
        if time.monotonic() > deadline:
            raise SystemExit(
                f"{host.name}: no agent logged in within {seconds:.0f} s:\n" + inside(host.name, ["tail", "-n", "15", log])
            )
        time.sleep(0.2)


def spare(name: str, bootstrapped: str | None, small_disk: bool) -> None:
    """A new machine: with juju-db installed and nothing else, or freshly bootstrapped with an identity of its own."""
    host = Host(name, SPARES[name], "spare")
    start([host], ["--tmpfs", "/var/snap:rw,size=6m,mode=755"] if small_disk else [])
    key = KEY.with_suffix(".pub").read_bytes()
    files: fixtures.Files = {}
    if bootstrapped:
        from lab import bootstrap

        bootstrap.run(host, bootstrapped, key)
        return
    installed = fixtures.fixture("controller-files", "2.9")
    for entry, value in installed.items():
        if entry.startswith("etc/systemd/system/snap."):
            files[entry] = value
    fixtures.put(files, "home/ubuntu/.ssh/authorized_keys", key, 0o600, 1000)
    _unpack(name, files)


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    raise_ = verbs.add_parser("up", help="start a lab")
    raise_.add_argument("shape", choices=sorted(SHAPES))
    raise_.add_argument("--documents", type=int, default=20000)
    more = verbs.add_parser("spare", help="prepare a new machine")
    more.add_argument("name", choices=sorted(SPARES))
    kind = more.add_mutually_exclusive_group()
    kind.add_argument("--bare", action="store_true", help="juju-db installed, nothing else (the default)")
    kind.add_argument("--bootstrapped", metavar="RELEASE", choices=["2.9", "3.6"], help="a fresh controller of its own")
    more.add_argument("--small-disk", action="store_true", help="with no room for a database")
    joined = verbs.add_parser("add-controller", help="make a spare a second controller, as enable-ha does")
    joined.add_argument("name", choices=sorted(SPARES))
    verbs.add_parser("lose", help="destroy every controller machine for good")
    verbs.add_parser("status", help="list the hosts")
    verbs.add_parser("down", help="remove hosts and network")
    told = parser.parse_args()
    if told.verb == "up":
        up(SHAPES[told.shape], told.documents)
    elif told.verb == "spare":
        spare(told.name, told.bootstrapped, told.small_disk)
    elif told.verb == "add-controller":
        from lab import second

        second.add(told.name)
    elif told.verb == "lose":
        hosts.lose([host for host in present() if host.role == "controller"])
    elif told.verb == "down":
        hosts.remove_all()
    for host in present():
        print(f"{host.name:4} {host.address:12} {host.role}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
