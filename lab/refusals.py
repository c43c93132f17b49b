"""Tries, on a lab of shape single-3.6, everything that a backup or restore must refuse; each refusal changes nothing.

Usage: ``python -m lab.refusals``
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab import foreign
from lab.hosts import inside
from lab.podman import FOLDER, ROOT

FIXTURE = ROOT / "tests" / "data" / "fixtures" / "juju-3.6.26-single.tar.gz"
SCRATCH = FOLDER / "refusals"
PYMONGO = "/usr/lib/python3/dist-packages/pymongo"
CONF = "/var/lib/juju/agents/machine-0/agent.conf"
# What is on a host, without what its running services write.
STATE = (
    "find /var/lib/juju /etc/systemd/system /var/snap/juju-db/common /home/ubuntu/.ssh -not -path '*/common/db*' "
    "-not -path '*/common/logs*' -not -path '*.failed-*' -type f -printf '%p %s %m\\n' 2>/dev/null | sort; "
    "systemctl is-active snap.juju-db.daemon jujud-machine-0 || true"
)


@dataclass(frozen=True)
class Refusal:
    """One thing to try.

    :param words: what the refusal must say, a regular expression.
    :param host: whose state must not change.
    """

    name: str
    arguments: list[str]
    words: str
    host: str = "n0"
    before: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None


def restore(archive: Path | str, *more: str) -> list[str]:
    return ["playbooks/restore.yml", "-e", f"archive={archive}", *more]


def lab(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-m", "lab", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def on(host: str, script: str) -> Callable[[], object]:
    return lambda: inside(host, ["sh", "-c", script])


def cut() -> Path:
    path = SCRATCH / "cut.tar.gz"
    path.write_bytes(FIXTURE.read_bytes()[:-1000])
    return path


def no_archive() -> Path:
    path = SCRATCH / "text.tar.gz"
    path.write_text("this is no archive", encoding="utf-8")
    return path


def cases() -> list[Refusal]:
    plugin = foreign.plugin(SCRATCH / "juju-backup.tgz", foreign.Environment("1.20.14"))
    bare = foreign.create_backup(SCRATCH / "bare.tar.gz", "3.6", 1, root_tar=False)
    answers = "An old controller machine still answers at 10.99.0.15"
    # Everything is tried while the old controller lives.
    return [
        Refusal(
            "wrong path",
            restore("/nowhere.tar.gz"),
            "There is no archive at /nowhere.tar.gz",
            before=lab("spare", "n0", "--bare"),
        ),
        Refusal("no tar.gz", restore(no_archive()), "is not a tar.gz"),
        Refusal("cut archive", restore(cut()), "ends early"),
        Refusal("Juju 1.x", restore(plugin), r"runs on MongoDB 2\.4"),
        Refusal("no root.tar", restore(bare), r"It has no root\.tar"),
        Refusal("other controller", restore(FIXTURE, "-e", "expected_controller_uuid=another"), "expected was another"),
        Refusal("3.x onto a host without dqlite", restore(FIXTURE), "makes that folder only at bootstrap"),
        Refusal(
            "no pymongo on the host",
            restore(FIXTURE),
            "apt-get install python3-pymongo",
            before=on("n0", f"mv {PYMONGO} {PYMONGO}.away"),
            after=on("n0", f"mv {PYMONGO}.away {PYMONGO}"),
        ),
        Refusal(
            "no space", restore(FIXTURE), r"MiB are needed: make room", before=lab("spare", "n0", "--bare", "--small-disk")
        ),
        Refusal("no archive named", ["playbooks/restore.yml"], "Name the archive"),
        Refusal("the old controller lives", restore(FIXTURE), answers, before=lab("spare", "n0", "--bootstrapped", "3.6")),
        Refusal("the old controller lives, in check mode", restore(FIXTURE, "--check"), answers),
        Refusal(
            "wrong password",
            ["playbooks/backup.yml"],
            r"refused user machine-0: Authentication failed",
            host="c0",
            before=on("c0", f"cp -p {CONF} {CONF}.kept; sed -i 's/^statepassword: .*/statepassword: wrong/' {CONF}"),
            after=on("c0", f"mv {CONF}.kept {CONF}"),
        ),
        Refusal(
            "a failure half-way puts the old state back",
            restore(FIXTURE, "-e", '{"rewrite_addresses_skip_rules": ["machine-observed-addresses"]}'),
            r"still name an old controller address[\s\S]*The old state of n0 is back[\s\S]*jujud-machine-0 runs again",
            before=lab("lose"),
        ),
        Refusal(
            "host unreachable",
            restore(FIXTURE),
            r"n0 \(10\.99\.0\.21\) cannot be reached",
            host="",
            before=on("n0", "systemctl stop ssh.socket ssh; pkill sshd || true"),
        ),
        Refusal(
            "no controller reachable", ["playbooks/backup.yml"], "No host of group juju_controllers can be reached", host=""
        ),
    ]


def attempt(refusal: Refusal) -> str:
    """Tries it; returns what is wrong with how it was refused, or nothing."""
    refusal.before()
    state = inside(refusal.host, ["sh", "-c", STATE]) if refusal.host else ""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), *refusal.arguments, "-e", f"backup_dest={SCRATCH}"]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    # One line a message: what is asked is what it says, not where it is broken.
    environment["ANSIBLE_CALLBACK_RESULT_FORMAT"] = "json"
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    same = state == (inside(refusal.host, ["sh", "-c", STATE]) if refusal.host else "")
    refusal.after()
    if not done.returncode:
        return "it was not refused"
    if not re.search(refusal.words, done.stdout):
        return f"it does not say {refusal.words!r}: {done.stdout[-1500:]}"
    return "" if same else "something was changed"


def main() -> int:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    failed = 0
    for refusal in cases():
        wrong = attempt(refusal)
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'refused'}: {refusal.name}{': ' + wrong if wrong else ''}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
