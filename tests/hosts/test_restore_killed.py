"""A restore that is killed anywhere: a re-run finishes it, or rollback.yml brings the old state back byte for byte."""

from __future__ import annotations

import random
import re
import time

import pytest

from lab.judge import CONTROLLER, python_inside
from lab.scale import FULL, rounds
from lab.target import AMID_LOAD, TARGET, Ended, Target

UUID = "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd"
SEED = 20261125
# The files are placed and nobody has written that down.
FEW = [{"KILL_IN_TASK": "Keep what was placed", "KILL_AFTER": "0.0"}]
# More than there are; a run that ends before is a whole one.
ALL = [{"KILL_AT_TASK": str(number)} for number in range(1, 180)]
# Where one restore is killed again and again: part of a task's name, seconds into it, and whether in `make test` too.
AGAIN = [
    ("Unpack what arrived", 0.3, True),
    ("Keep what was moved", 0.0, False),
    ("Place the archive's files", 0.4, False),
    ("Keep what was placed", 0.0, True),
    ("Load the dump", 1.0, True),
    ("Rewrite the documents", 1.0, True),
    ("Database | Make the replica set member", 0.3, False),
    ("Prove database", 0.0, False),
    ("Delete the unpacked archive", 0.0, False),
]


def state(target: Target) -> str:
    """What the journal says; empty when there is none."""
    return str(target.journal().get("state", ""))


def good(ended: Ended) -> Ended:
    assert ended.code == 0, ended.printed[-4000:]
    return ended


def whole(target: Target) -> None:
    """The restored controller is as it must be; workload machines are not part of these tests."""
    deadline = time.monotonic() + 60
    while True:
        seen = python_inside(TARGET, CONTROLLER)
        right = seen["members"] == ["10.99.0.21:37017"] and seen["state"] == 1 and seen["harvest"] == ["none"]
        if right and all(one == ["10.99.0.21:17070"] for one in seen["apiaddresses"].values()):
            break
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)
    assert state(target) == "restored"
    assert not target.inside("ls -d /var/lib/juju-dr/restore-* /var/lib/juju-dr/lock.json 2>/dev/null || true")


def left_nothing(target: Target) -> None:
    """No stray folder, configuration, lock or half file."""
    names = " -o ".join(f"-name '{name}'" for name in ("*.aside-*", "*.juju-dr-new", "*juju-dr-aside", "juju-dr-socket"))
    assert target.inside(f"find / -xdev \\( {names} \\)") == ""
    assert not target.inside("ls -d /var/lib/juju-dr/restore-* /var/lib/juju-dr/lock.json 2>/dev/null || true")


def untimed(listing: list[str]) -> list[str]:
    """Without the times of folders."""
    return [re.sub(r"^(\S+ d \S+ \S+) \S+", r"\1", line) for line in listing]


def undone(target: Target, before: list[str], services: str) -> None:
    """rollback.yml brings the old state back, whatever was done before."""
    if state(target) not in ("", "rolled back"):
        good(target.run("rollback"))
        left_nothing(target)
    assert [line for line in target.listing() if ".failed-" not in line] == before
    assert target.services() == services


def killed_then(target: Target, undo: bool, environment: dict[str, str]) -> None:
    before, services = target.listing(), target.services()
    ended = target.restore(environment=environment)
    if ended.code != 0:
        assert ended.code == -9, ended.printed[-4000:]
        if not undo:
            good(target.restore())
            whole(target)
    undone(target, before, services)


@pytest.mark.torture
@pytest.mark.parametrize("number", range(rounds(len(FEW), len(FEW) + len(ALL))))
def test_killed_before_a_task(target: Target, number: int) -> None:
    killed_then(target, undo=number % 2 == 0, environment=[*FEW, *ALL][number])


@pytest.mark.torture
@pytest.mark.parametrize("number", range(rounds(1, 50)))
def test_killed_inside_the_load(target: Target, number: int) -> None:
    after = random.Random(SEED + number).uniform(0.0, 4.0)
    print(f"seed {SEED + number}: {after:.3f} s into the load")
    killed_then(target, undo=number % 2 == 0, environment={**AMID_LOAD, "KILL_AFTER": str(after)})


def test_killed_again_and_again_it_ends_all_the_same(target: Target) -> None:
    before, services = target.listing(), target.services()
    for task, after in [(task, after) for task, after, always in AGAIN if always or FULL]:
        ended = target.restore(environment={"KILL_IN_TASK": task, "KILL_AFTER": str(after)})
        assert ended.code == -9, (task, ended.printed[-4000:])
    good(target.restore())
    whole(target)
    undone(target, before, services)


def test_a_rollback_is_killed_too(target: Target) -> None:
    before, services = target.listing(), target.services()
    assert target.restore(environment=AMID_LOAD).code == -9
    for task, after in (("Stop them without asking", 0.2), ("Put the data back", 0.3), ("Start what ran before", 0.0)):
        assert target.run("rollback", environment={"KILL_IN_TASK": task, "KILL_AFTER": str(after)}).code == -9, task
    refused = target.restore()
    assert refused.code == 2
    assert "is being rolled back. Run playbooks/rollback.yml again to its end first" in refused.printed
    undone(target, before, services)


def test_a_whole_life(target: Target) -> None:
    """Restored, not restored again, undone, finalized."""
    before, services = target.listing(), target.services()
    # The last moment at which a run can be killed: all is done, and it still has the lock.
    ended = target.restore(environment={"KILL_IN_TASK": "Give the lock back", "KILL_AFTER": "0.0"})
    assert (ended.code, state(target)) == (-9, "restored"), ended.printed[-4000:]
    assert "was taken over: that run is dead" in good(target.restore()).printed
    whole(target)
    assert target.services().split() == ["active", "active", "enabled", "enabled"]
    again = good(target.restore())
    assert re.search(r"already restored from this archive by run [0-9-]+\. Nothing is changed", again.printed)
    assert "changed=0" in again.printed.partition(f"{TARGET} ")[2].splitlines()[0] or "changed=0" in again.printed
    undone(target, before, services)
    failed = target.inside("ls -d /var/lib/juju.failed-*").split()
    assert len(failed) == 1
    refused = target.run("finalize")
    assert refused.code
    assert re.search(rf"This deletes .* for good, .*{failed[0]}.* set finalize={UUID}\.", refused.printed)
    assert "for good" in target.run("finalize", "-e", "finalize=another").printed
    good(target.run("finalize", "-e", f"finalize={UUID}"))
    assert target.inside("ls -A /var/lib/juju-dr").split()[0].startswith("journal-")
    # What is deleted changes the time of the folder that held it.
    assert untimed(target.listing()) == untimed(before)
