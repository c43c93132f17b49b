"""``restore.yml --check --diff`` in every state a host can be in: it says what a run would do, and changes nothing."""

from __future__ import annotations

import re

import pytest

from lab.scale import rounds
from lab.target import AMID_LOAD, Target

WORK = "/var/lib/juju-dr"
STATES = ["nothing begun", "interrupted", "restored", "rolled back"]


def reach(target: Target, state: str) -> None:
    if state in ("interrupted", "rolled back"):
        assert target.restore(environment=AMID_LOAD).code == -9
    if state == "rolled back":
        assert target.run("rollback").code == 0
    if state == "restored":
        ended = target.restore()
        assert ended.code == 0, ended.printed[-3000:]
    target.settle()
    # What is compared must hold still.
    target.stop()
    target.settle()


@pytest.mark.torture
@pytest.mark.parametrize("state", STATES[: rounds(1, len(STATES))])
def test_check_tells_and_changes_nothing(target: Target, state: str) -> None:
    reach(target, state)
    work = f"ls -lA --time-style=full-iso {WORK} 2>/dev/null; cat {WORK}/journal.json 2>/dev/null; true"
    listing, services, kept = target.listing(), target.services(), target.inside(work)
    checked = target.restore("--check", "--diff")
    assert checked.code == 0, checked.printed[-3000:]
    target.settle()
    after = target.listing()
    assert [line for line in after if line not in listing] == []
    assert (after, target.services(), target.inside(work)) == (listing, services, kept)
    if state == "restored":
        assert re.search(r"already restored from this archive by run [0-9-]+\. Nothing is changed", checked.printed)
        assert not re.search(r"^n0 .*changed=[1-9]", checked.printed, re.MULTILINE)
        assert "+10.99.0.21" not in checked.printed
        return
    # The edits are shown, and that something would change.
    assert re.search(r"^\+.*10\.99\.0\.21", checked.printed, re.MULTILINE), checked.printed[-3000:]
    assert re.search(r"^n0 .*changed=[1-9]", checked.printed, re.MULTILINE), checked.printed[-1500:]
    interrupted = re.search(r"was interrupted after place-files; goes on with stop-services", checked.printed)
    assert bool(interrupted) == (state == "interrupted")
