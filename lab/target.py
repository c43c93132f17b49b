"""The host that becomes the controller, for tests: put back quickly, playbooks run against it, its whole state listed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import hosts

ROOT = Path(__file__).resolve().parent.parent
PLAYBOOK = str(Path(sys.executable).parent / "ansible-playbook")
FIXTURE = ROOT / "tests" / "data" / "fixtures" / "juju-2.9.61-single.tar.gz"
TARGET = "n0"
# Environment of a restore that is killed amid its load.
AMID_LOAD = {"KILL_IN_TASK": "Load the dump", "KILL_AFTER": "0.5"}


def lab(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lab", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@dataclass(frozen=True)
class Ended:
    """How a playbook ended: exit code (negative for a signal) and what it printed."""

    code: int
    printed: str


# What a restore touches. Overlay file systems cannot rename a folder of an image, so the disk is kept as a tar file on it.
PLACES = "var/lib/juju var/snap/juju-db/common etc/systemd/system home/ubuntu/.ssh"
# systemd in a container may call a unit stopped whose mongod still writes its last page.
STOP = """
systemctl stop jujud-machine-0 snap.juju-db.daemon
timeout 60 sh -c 'while pgrep -x mongod; do sleep 0.1; done'
"""
KEEP = f"tar -C / --format=pax -cpf /root/kept.tar {PLACES}"
RESET = f"""{STOP}
systemctl reset-failed
rm -rf /var/lib/juju /var/lib/juju.* /var/lib/juju-dr /var/snap/juju-db/common /etc/systemd/system /home/ubuntu/.ssh
tar -C / -xpf /root/kept.tar
systemctl daemon-reload
"""


@dataclass
class Target:
    """The host that becomes the controller, stopped, so that what is on its disk holds still.

    :ivar folder: of reports.
    """

    folder: Path

    def keep(self) -> None:
        """Remembers the disk as it is."""
        self.stop()
        self.inside(KEEP)

    def reset(self) -> None:
        """Makes it what it was when it was kept; in no time, and whatever a killed run left working."""
        self.settle()
        self.inside(RESET)

    def stop(self) -> None:
        """Until neither the agent nor the database writes any more."""
        self.inside(STOP)

    def start(self, playbook: str, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        command = [PLAYBOOK, f"playbooks/{playbook}.yml", "-e", f"backup_dest={self.folder}", *arguments]
        told = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_CALLBACK_PLUGINS": f"{ROOT}/callback_plugins:{ROOT}/lab/callbacks",
            "ANSIBLE_CALLBACKS_ENABLED": "kill_at",
            **(environment or {}),
        }
        # A process group of its own, so that what kills it kills nothing else.
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=told,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, playbook: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        return ended(self.start(playbook, *arguments, environment=environment))

    def start_restore(
        self, *arguments: str, archive: Path = FIXTURE, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        told = ["-e", f"archive={archive}", "-e", "repoint_agents_timeout=5", *arguments]
        return self.start("restore", *told, environment=environment)

    def restore(self, *arguments: str, archive: Path = FIXTURE, environment: Mapping[str, str] | None = None) -> Ended:
        return ended(self.start_restore(*arguments, archive=archive, environment=environment))

    def journal(self) -> dict[str, Any]:
        """The journal of the last restore; empty when there is none."""
        told: dict[str, Any] = json.loads(self.inside("cat /var/lib/juju-dr/journal.json 2>/dev/null || echo {}"))
        return told

    def inside(self, script: str) -> str:
        return hosts.inside(TARGET, ["sh", "-c", script])

    def services(self) -> str:
        """Whether juju-db and the agent run, and whether they start with the host."""
        units = "snap.juju-db.daemon jujud-machine-0"
        return self.inside(f"systemctl is-active {units}; systemctl is-enabled {units} 2>&1; true")

    def settle(self) -> None:
        """Until no process of a killed run works here any more: what is compared must hold still."""
        deadline = time.monotonic() + 120
        while self.inside("pgrep -f 'ansible|Ansi' | grep -vx $$ || true").strip():
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def listing(self, running: bool = False) -> list[str]:
        """What belongs to the state: path, mode, owner, time and digest or link of everything.

        :param running: leave out what running services write.
        """
        left_out = "-path '*/common/db*' -o -path '*/common/logs*'" if running else "-path '*/common/logs*'"
        places = "/var/lib/juju /var/snap/juju-db/common /etc/systemd/system /home/ubuntu/.ssh"
        lines = self.inside(
            f"find {places} \\( {left_out} \\) -prune -o -printf '%p %y %m %u:%g %T@ %l\\n' 2>/dev/null | sort; "
            f"find {places} \\( {left_out} \\) -prune -o -type f -print0 2>/dev/null | sort -z | xargs -0r sha256sum"
        )
        return lines.splitlines()


def ended(process: subprocess.Popen[str]) -> Ended:
    """How a run ends that is waited for."""
    printed, _ = process.communicate(timeout=900)
    return Ended(process.returncode, printed)


def end(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a run and everything it started here."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
