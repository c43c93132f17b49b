"""Many machines on this one, to see what re-pointing costs: each has an address, agents and a /var/lib/juju of its own.

Usage: ``python -m lab.farm [--real] COUNT …``

The machines are loopback addresses 127.x.y.z. By default ``ssh`` is a small shell script on PATH that hands what it is fed to a
real Python with the machine's folder: what is measured is our own time, with the start of a process for ssh and one for Python
for each machine, and none of the network's. With ``--real`` it is OpenSSH's client and server of a lab host, logins, sudo and
all, both sides on the same two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible.module_utils.juju_dr.repoint import Entry, Machine, Order, Ways, repoint, with_identity

MODEL = "901f082c-b330-49e3-8f56-5fffb4a9c190"
CONTROLLER = "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd"
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
NEW = "127.0.0.1:9"
OLD = ("10.99.0.11:17070", "10.99.0.12:17070")
# Puts the machine's own folder in the place of Juju's.
ROOTED = 'sed "s#root=\\"/var/lib/juju\\"#root=\\"$root\\"#" | {sudo}env "PATH={folder}/bin:$PATH" python3 -IS -\n'
FAKE_SSH = (
    "#!/bin/sh\n"
    "for word; do case $word in *@127.*) root={folder}/machines/${{word#*@}};; esac; done\n"
    '[ -d "$root" ] || {{ echo "ssh: connect to host port 22: No route to host" >&2; exit 255; }}\n'
) + ROOTED.replace("{sudo}", "")
# What the machine's sshd runs whatever the client asks for; it tells the machines apart by the address that was dialled.
FORCED = "#!/bin/sh\nset -- $SSH_CONNECTION\nroot={folder}/machines/$3\n" + ROOTED.replace("{sudo}", "sudo -n ")


@dataclass(frozen=True)
class Figures:
    """What one run of re-pointing took.

    :param seconds: from the first question to the last entry.
    :param own: seconds of processor time of this process.
    :param processor: the same with all that it started: ssh, and with it the machines' side.
    :param memory: bytes that this process held at most.
    """

    machines: int
    seconds: float
    own: float
    processor: float
    memory: int

    @property
    def each(self) -> float:
        """Milliseconds for one machine."""
        return 1000 * self.seconds / self.machines


class Farm:
    """A number of machines below a folder."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        self._script("systemctl", '#!/bin/sh\necho "$@" >> "{folder}/restarts"\n')
        self.machines = [self._machine(number) for number in range(count)]
        self.order = Order((NEW,), CONTROLLER, CA, "20261125-020000", True)

    def _script(self, name: str, text: str) -> Path:
        path = self.folder / "bin" / name
        path.write_text(text.format(folder=self.folder), encoding="utf-8")
        path.chmod(0o755)
        return path

    def _machine(self, number: int) -> Machine:
        address = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        tags = (f"machine-{number}", f"unit-app-{number}", f"unit-log-{number}")
        for tag in tags:
            conf = self.folder / "machines" / address / "agents" / tag / "agent.conf"
            conf.parent.mkdir(parents=True)
            conf.write_text(
                f"# format 2.0\ntag: {tag}\ncacert: |\n  {CA.strip().replace(chr(10), chr(10) + '  ')}\n"
                f"controller: controller-{CONTROLLER}\nmodel: model-{MODEL}\napiaddresses:\n- {OLD[0]}\n- {OLD[1]}\n"
                "apipassword: never-shown\nvalues:\n  PROVIDER_TYPE: manual\n",
                encoding="utf-8",
            )
        return Machine("prod", MODEL, str(number), (address,), tuple(f"{tag}@{MODEL}" for tag in tags))

    def pointed(self) -> int:
        """How many agents name the new address and nothing else."""
        confs = self.folder.glob("machines/*/agents/*/agent.conf")
        return sum(f"apiaddresses:\n- {NEW}\napipassword" in conf.read_text(encoding="utf-8") for conf in confs)

    def restarts(self) -> int:
        """How many services were restarted."""
        return len((self.folder / "restarts").read_text(encoding="utf-8").splitlines())

    @contextlib.contextmanager
    def simulated(self) -> Iterator[Ways]:
        """The machines behind the script that stands for ssh."""
        self._script("ssh", FAKE_SSH)
        before = os.environ["PATH"]
        with socket.create_server(("0.0.0.0", 0), backlog=512) as knocked:
            threading.Thread(target=_accept, args=(knocked,), daemon=True).start()
            os.environ["PATH"] = f"{self.folder / 'bin'}:{before}"
            try:
                yield Ways(port=knocked.getsockname()[1])
            finally:
                os.environ["PATH"] = before
                knocked.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def real(self) -> Iterator[Ways]:
        """The machines behind OpenSSH's own server, as user ubuntu of this lab host."""
        forced = self._script("machine", FORCED)
        identity, port = self.folder / "identity", 2222
        subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(identity)], check=True)
        keys = self.folder / "authorized_keys"
        keys.write_text(f'command="{forced}" ' + identity.with_suffix(".pub").read_text(encoding="utf-8"), encoding="utf-8")
        self.folder.chmod(0o755)
        # Each real machine has an sshd of its own, which sees one of us.
        flags = ["-p", str(port), "-o", f"AuthorizedKeysFile={keys}", "-o", "MaxStartups=500", "-o", "StrictModes=no"]
        Path("/run/sshd").mkdir(exist_ok=True)
        with subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", *flags], stderr=subprocess.DEVNULL) as sshd:
            try:
                _wait(port)
                yield Ways(port=port, options=with_identity(str(identity)))
            finally:
                sshd.terminate()


def _accept(knocked: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            knocked.accept()[0].close()


def _wait(port: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def timed(farm: Farm, ways: Ways) -> tuple[Figures, list[Entry]]:
    """Points all machines of a farm."""
    before = [_processor(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    started = time.monotonic()
    entries = repoint(farm.machines, farm.order, ways)
    seconds = time.monotonic() - started
    own, others = (_processor(w) - b for w, b in zip((resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), before))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Figures(len(farm.machines), round(seconds, 2), round(own, 2), round(own + others, 2), memory), entries


def _processor(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def measure(count: int, real: bool = False) -> Figures:
    """Makes a farm, points it, checks that every agent was, and tells what it took.

    This is what the growth table over machines calls.
    """
    folder = Path(tempfile.mkdtemp(prefix="juju-farm-"))
    try:
        farm = Farm(folder, count)
        with farm.real() if real else farm.simulated() as ways:
            figures, entries = timed(farm, ways)
        wrong = [one for one in entries if one.outcome != "done"]
        if wrong or farm.pointed() != 3 * count:
            raise SystemExit(f"{len(wrong)} of {count} machines are not done, the first: {wrong[:1]}")
        return figures
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="lab.farm", description=__doc__)
    parser.add_argument("counts", type=int, nargs="+", metavar="COUNT")
    parser.add_argument("--real", action="store_true", help="OpenSSH on this lab host")
    told = parser.parse_args()
    for count in told.counts:
        print(json.dumps(asdict(measure(count, told.real))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
