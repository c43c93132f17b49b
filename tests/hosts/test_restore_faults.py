"""What goes wrong around a restore: the message, and the state that is left."""

from __future__ import annotations

import json
import re
import socket
import subprocess

from ansible.module_utils.juju_dr.lock import this_run

from lab import hosts
from lab.target import TARGET, Target

COMMON, WORK = "/var/snap/juju-db/common", "/var/lib/juju-dr"
TAKE = """
import json, sys
from ansible.module_utils.juju_dr.lock import Run, take
told = json.load(sys.stdin)
take(Run(told["run"], "backup", told["control"]), 7200)
"""
LOADING = f"until test -S {COMMON}/juju-dr-socket/load.sock; do sleep 0.05; done"
# Whatever starts mongod again: it does not live long.
KILL_MONGOD = f"{LOADING}; for n in $(seq 100); do pkill -9 mongod; sleep 0.1; done"


def meanwhile(target: Target, script: str) -> None:
    """Starts a script on the target that goes on while a playbook runs."""
    target.inside(f"nohup sh -c '{script.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}' > /dev/null 2>&1 &")


def at_rest(services: str) -> str:
    """A unit that was killed has failed; it does not run, which is all that is compared."""
    return services.replace("failed", "inactive")


def lock_is_free(target: Target) -> bool:
    return target.inside(f"ls {WORK}/lock.json 2>/dev/null || true") == ""


def test_a_second_run_waits_for_the_first_and_takes_over_when_it_is_dead(target: Target) -> None:
    first = subprocess.Popen(["sleep", "600"])
    told = this_run("somebody", socket.gethostname(), first.pid)
    hosts.inside(TARGET, ["python3", "-c", TAKE], json.dumps(told))
    refused = target.run("rollback")
    assert refused.code == 2
    assert re.search(rf"{told['run']} does a backup on this host, begun .*, last sign of life \d+ s ago", refused.printed)
    assert f"set lock_override={told['run']}" in refused.printed
    assert json.loads(target.inside(f"cat {WORK}/lock.json"))["run"]["name"] == told["run"]
    first.kill()
    first.wait()
    after = target.run("rollback")
    assert f"The lock of {told['run']} (backup" in after.printed
    assert "was taken over: that run is dead" in after.printed
    assert "There is nothing to undo on n0" in after.printed
    assert lock_is_free(target)


def test_mongod_killed_amid_the_load_brings_the_old_state_back(target: Target) -> None:
    before, services = target.listing(), target.services()
    meanwhile(target, KILL_MONGOD)
    ended = target.restore()
    assert ended.code == 2
    assert re.search(r"MongoDB refused the load|mongod (ended|did not answer within \d+ s) for loading", ended.printed), (
        ended.printed[-3000:]
    )
    assert "The old state of n0 is back" in ended.printed
    assert "What the failed restore had placed is removed" in ended.printed
    assert target.listing() == before
    assert at_rest(target.services()) == services
