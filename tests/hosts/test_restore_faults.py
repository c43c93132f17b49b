"""What goes wrong around a restore: the message, and the state that is left."""

from __future__ import annotations

import gzip
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest
from ansible.module_utils.juju_dr.lock import this_run

from lab import faults, hosts
from lab.scale import rounds
from lab.target import AMID_LOAD, FIXTURE, TARGET, Target, end

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
# The process alone, not its shell, whose end systemd in a container would not be told of.
# systemd starts the agent again, and that counts against it.
KILL_JUJUD = f"until grep -q '\"prove\"' {WORK}/journal.json 2>/dev/null; do sleep 0.1; done; pkill -9 -f '[j]ujud machine'"
FILL = f"{LOADING}; mkdir -p {COMMON}/logs; cat /dev/zero > {COMMON}/logs/full"
CUT = f"{LOADING}; pkill -9 -f '^sshd: ubuntu'"
GONE = f"{LOADING}; systemctl stop ssh; pkill -9 -f '^sshd: ubuntu'"
# MongoDB's journal is 300 MiB, and 512 MiB more must be free before anything is done.
DISK = 1 << 30


@pytest.fixture(autouse=True)
def _nothing_goes_on(prepared: Target) -> Iterator[None]:
    yield
    prepared.inside("pkill -9 -f 'load[.]sock|juju-dr/[j]ournal'; true")


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


def jujud_dies(target: Target) -> None:
    """It has run on the restored data, which is therefore kept beside."""
    before, services = target.listing(), target.services()
    meanwhile(target, KILL_JUJUD)
    # Long enough for systemd to have started it again.
    ended = target.restore("-e", "prove_deadline=20")
    assert ended.code == 2
    assert re.search(r"jujud-machine-0 is \w+, restarted [1-9]\d* times", ended.printed), ended.printed[-3000:]
    assert "The old state of n0 is back" in ended.printed
    assert "What had run of the failed restore is kept beside until finalize.yml: " in ended.printed
    listed = target.listing()
    assert [line for line in listed if ".failed-" not in line] == before
    assert any(line.startswith("/var/snap/juju-db/common/db.failed-") for line in listed)
    assert at_rest(target.services()) == services
    assert lock_is_free(target)


def disk_fills(target: Target) -> None:
    """A disk of its own for juju-db, with room enough until the load has begun."""
    target.inside(f"tar -C {COMMON} -cpf /root/common.tar .")
    faults.small_disk(TARGET, COMMON, DISK)
    try:
        target.inside(f"tar -C {COMMON} -xpf /root/common.tar && rm /root/common.tar")
        before, services = target.listing(), target.services()
        meanwhile(target, FILL)
        ended = target.restore()
        assert ended.code == 2
        assert "No space left on device" in ended.printed, ended.printed[-3000:]
        assert "The old state of n0 is back" in ended.printed
        assert target.listing() == before
        assert at_rest(target.services()) == services
        assert lock_is_free(target)
    finally:
        target.inside("pkill -9 -x cat; true")
        faults.no_small_disk(TARGET, COMMON)


def ssh_is_cut(target: Target) -> None:
    """The load goes on there, and is asked for again."""
    meanwhile(target, CUT)
    ended = target.restore()
    assert ended.code == 0, ended.printed[-3000:]
    assert target.journal()["state"] == "restored"
    assert lock_is_free(target)


def ssh_is_gone(target: Target) -> None:
    """Nothing can be put back on a host that cannot be reached; the same command goes on."""
    meanwhile(target, GONE)
    try:
        ended = target.restore("-e", "juju_dr_reconnect_seconds=4")
    finally:
        target.inside("systemctl start ssh")
    assert ended.code
    assert re.search(r"juju_mongo_load runs on n0, which cannot be reached for 0:\d\d: ", ended.printed), ended.printed[-3000:]
    assert target.journal()["state"] == "restoring"
    assert not lock_is_free(target)
    again = target.restore()
    assert again.code == 0, again.printed[-3000:]
    assert "was taken over: that run is dead" in again.printed
    assert re.search(r"was interrupted after place-files; goes on with stop-services", again.printed)
    assert target.journal()["state"] == "restored"
    assert lock_is_free(target)


def two_at_once_with_clocks_that_are_off(target: Target) -> None:
    """Each of two control machines is days away from the host and from the other; nobody's time is compared with another's."""
    first = target.start_restore(environment=faults.clock_off(-3))
    try:
        deadline = time.monotonic() + 60
        while lock_is_free(target):
            assert first.poll() is None
            assert time.monotonic() < deadline, "the first run took no lock"
            time.sleep(0.1)
        owner = json.loads(target.inside(f"cat {WORK}/lock.json"))["run"]["name"]
        second = target.restore(environment=faults.clock_off(4))
        assert second.code == 2
        assert re.search(rf"{owner} does a restore on this host, begun .*, last sign of life \d\d? s ago", second.printed), (
            second.printed[-3000:]
        )
        assert f"set lock_override={owner}" in second.printed
        printed, _ = first.communicate(timeout=300)
        assert first.returncode == 0, printed[-3000:]
    finally:
        end(first)
    assert target.journal()["state"] == "restored"
    # Its clock was off indeed.
    assert target.journal()["run"][:8] == (datetime.now(timezone.utc) - timedelta(days=3)).strftime("%Y%m%d")
    assert lock_is_free(target)
    undone = target.run("rollback", environment=faults.clock_off(4))
    assert undone.code == 0, undone.printed[-3000:]
    assert target.journal()["state"] == "rolled back"


def another_archive(target: Target) -> None:
    """The same controller, packed anew: another archive nevertheless, taken once the first one is undone."""
    other = target.folder / "juju-backup-20261125-000000.tar.gz"
    other.write_bytes(gzip.compress(gzip.decompress(FIXTURE.read_bytes()), 1))
    before, services = target.listing(), target.services()
    assert target.restore(environment=AMID_LOAD).code == -9
    target.settle()
    interrupted = target.listing(), target.journal()
    refused = target.restore(archive=other)
    assert refused.code == 2
    assert "and this is another archive" in refused.printed
    assert "playbooks/rollback.yml" in refused.printed
    assert (target.listing(), target.journal()) == interrupted
    assert target.run("rollback").code == 0
    assert (target.listing(), at_rest(target.services())) == (before, services)
    ended = target.restore(archive=other)
    assert ended.code == 0, ended.printed[-3000:]
    refused = target.restore()
    assert refused.code == 2
    assert "ended well on this host, and this is another archive. Run playbooks/rollback.yml to undo it" in refused.printed
    assert target.journal()["archive"]["path"] == str(other)


# The cheapest first: make test tries that one.
FAULTS = [two_at_once_with_clocks_that_are_off, ssh_is_cut, ssh_is_gone, jujud_dies, disk_fills, another_archive]


@pytest.mark.torture
@pytest.mark.parametrize("fault", FAULTS[: rounds(1, len(FAULTS))])
def test_a_fault_amid_a_restore(target: Target, fault: Callable[[Target], None]) -> None:
    fault(target)
