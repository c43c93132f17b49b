"""Runs on a lab controller: backs up again and again, kills each try at a random moment, and looks at what is there.

What it is told comes as JSON on stdin: ``seed``, ``rounds``, ``mode``. It prints one line a round and ends with an error at
the first round after which something is not as it must be.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ansible.module_utils.juju_dr.archive import inspect
from ansible.module_utils.juju_dr.backup import Host, archive_host, dump_host
from ansible.module_utils.juju_dr.controller_host import controller_client, start_unit
from ansible.module_utils.juju_dr.ends import Ended, tidily
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.lock import step

DATA, COMMON, SERVICE = "/var/lib/juju", "/var/snap/juju-db/common", "snap.juju-db.daemon"
BACKUPS = Path("/var/lib/juju-dr/backups")
STAGING = BACKUPS / ".unfinished"
CONFIG = Path(COMMON, "juju-db.config").read_bytes()


def run(command: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def backup(mode: str) -> None:
    """What the two modules do, one after the other."""
    host = Host(DATA, COMMON, "/var/log/juju", SERVICE)
    with tidily(), step():
        dump_host(STAGING, mode, "gzip", [], host, run)
    with tidily(), step():
        archive_host(STAGING, BACKUPS, "", [], host)


def whole(mode: str) -> int:
    child = os.fork()
    if not child:
        try:
            backup(mode)
        except (JujuDrError, Ended) as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return child


def main_pid() -> int:
    return int(run(["systemctl", "show", "--property", "MainPID", "--value", SERVICE])[1])


def until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not so after {seconds} s: {what}")
        time.sleep(0.05)


def serves() -> bool:
    try:
        with controller_client(DATA, COMMON) as client:
            return bool(client.admin.command("isMaster").get("ismaster"))
    except JujuDrError:
        return False


def look() -> None:
    """What must be true whenever nobody backs up: whole archives only, juju-db as ever."""
    for path in sorted(BACKUPS.glob("juju-backup-*.tar.gz")):
        digest = path.with_name(path.name + ".sha256").read_text().split()[0]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path
        assert inspect(str(path)).format == "juju-dr", path
        path.unlink()
        path.with_name(path.name + ".sha256").unlink()
    until(serves, "juju-db serves")
    until(lambda: Path(COMMON, "juju-db.config").read_bytes() == CONFIG, "juju-db has its configuration")
    for name in ("juju-db.config.juju-dr-aside", "juju-dr-socket"):
        assert not Path(COMMON, name).exists(), name


def seconds_of_one(mode: str) -> float:
    """How long a backup takes that nobody disturbs."""
    began = time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(whole(mode), 0)[1]) == 0
    took = time.monotonic() - began
    look()
    return took


def main() -> None:
    told = json.load(sys.stdin)
    random_ = random.Random(told["seed"])
    # The first one reads from the disk what the others find in memory: it would be too long a span.
    length = min(seconds_of_one(told["mode"]) for _ in range(2))
    print(f"one backup takes {length:.2f} s", flush=True)
    interrupted = 0
    for number in range(told["rounds"]):
        child = whole(told["mode"])
        # The moment is the test's to choose, not a wait for anything.
        time.sleep(random_.uniform(0, length))
        how = random_.choice(["SIGKILL", "SIGKILL", "SIGTERM", "mongod"])
        if how == "mongod":
            pid = main_pid()
            if pid:
                os.kill(pid, signal.SIGKILL)
        else:
            os.kill(child, getattr(signal, how))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        interrupted += code != 0
        left = sorted(str(path.relative_to(BACKUPS)) for path in BACKUPS.rglob("*"))
        print(f"{number}: {how}, ended with {code}, left {left}", flush=True)
        if how == "SIGTERM":
            # Told to end, it puts everything back itself.
            assert not STAGING.exists()
        if how == "mongod":
            # Whoever kills it so often in a few seconds has systemd's limit of starts against him.
            start_unit(run, SERVICE)
        look()
    assert interrupted, "every moment came too late"
    # The next run heals: it succeeds, and nothing but its archive is there.
    until(serves, "juju-db serves")
    assert os.waitstatus_to_exitcode(os.waitpid(whole(told["mode"]), 0)[1]) == 0
    names = sorted(path.name for path in BACKUPS.iterdir())
    assert names == [names[0], names[0] + ".sha256"], names
    look()
    until(lambda: "juju-dr-guard" not in run(["systemctl", "list-units", "--all", "--plain"])[1], "no guard is left")
    print(f"{interrupted} of {told['rounds']} were interrupted: all is as it must be", flush=True)


main()
