"""What an interrupted restore means: resume, start over, nothing to do, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr import journal as journals
from ansible.module_utils.juju_dr.errors import JujuDrError
from ansible.module_utils.juju_dr.journal import STEPS, Archive, Aside, Journal, begin, decide, end_step, read, write

ONE = Archive("/b/one.tar.gz", "1" * 64, "cu", "0")
OTHER = Archive("/b/other.tar.gz", "2" * 64, "cu", "0")
SERVICES = [{"unit": "snap.juju-db.daemon", "active": True}, {"unit": "jujud-machine-0", "active": False}]


def interrupted(after: str) -> Journal:
    """A restore that was killed after a step, with the next one begun, as it always is."""
    journal, decision = begin(None, ONE, "10.99.0.21", "run-1", "root@a:1", SERVICES)
    for step in STEPS[: STEPS.index(after) + 1] if after else ():
        end_step(journal, step, {"fact": step}, decision.todo)
    return journal


def test_it_is_read_as_written_and_private(tmp_path: Path) -> None:
    journal = interrupted("set-aside")
    journal.aside = Aside([{"from": "/a", "to": "/b"}], bytes=7)
    write(journal, tmp_path)
    assert read(tmp_path) == journal
    assert (tmp_path / journals.NAME).stat().st_mode & 0o777 == 0o600
    assert "password" not in (tmp_path / journals.NAME).read_text(encoding="utf-8")


def test_no_journal_is_none_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    for text in ("{", "{}", "[]", json.dumps({"aside": None, "archive": {}})):
        (tmp_path / journals.NAME).write_text(text, encoding="utf-8")
        with pytest.raises(JujuDrError, match=r"cannot be read.*names what is set aside"):
            read(tmp_path)


def test_a_fresh_host_begins() -> None:
    journal, decision = begin(None, ONE, "10.99.0.21", "run-1", "root@a:1", SERVICES)
    assert (decision.verb, decision.todo) == ("begin", STEPS)
    assert journal.running_before == ["snap.juju-db.daemon"]
    assert journal.began("upload")
    assert not journal.ended("upload")


@pytest.mark.parametrize(
    ("after", "first"),
    [
        ("", "upload"),
        ("upload", "stop-services"),
        ("stop-services", "stop-services"),
        ("set-aside", "stop-services"),
        ("place-files", "stop-services"),
        ("mongo-load", "stop-services"),
        ("rewrite-addresses", "interlock"),
        ("interlock", "interlock"),
        ("start-services", "interlock"),
        ("prove", None),
    ],
)
def test_where_it_goes_on(after: str, first: str | None) -> None:
    journal = interrupted(after)
    journal, decision = begin(journal, ONE, "10.99.0.21", "run-2", "root@a:2", [])
    assert decision.verb == "resume"
    if first == "interlock":
        assert decision.todo == ("stop-services", "interlock", "start-services", "prove")
    else:
        assert decision.todo == (STEPS[STEPS.index(first) :] if first else ())
    assert (journal.run, journal.services, len(journal.runs)) == ("run-1", SERVICES, 2)
    for step in decision.todo:
        end_step(journal, step, {}, decision.todo)
    assert decide(journal, ONE).todo == ()


def test_another_address_starts_over_until_the_controller_was_started() -> None:
    for after in ("mongo-load", "rewrite-addresses"):
        journal = interrupted(after)
        assert not journal.started
        assert decide(journal, ONE, "10.99.0.22").todo == STEPS[STEPS.index("stop-services") :]
    journal = interrupted("interlock")
    assert journal.started
    # Killed again before anything was started anew: it was started all the same.
    journal, _ = begin(journal, ONE, "10.99.0.21", "run-2", "root@a:2", [])
    assert not journal.began("start-services")
    with pytest.raises(JujuDrError, match=r"has started the controller at 10\.99\.0\.21 already\. Restore to 10\.99\.0\.21"):
        decide(journal, ONE, "10.99.0.22")


@pytest.mark.parametrize("state", [journals.RESTORING, journals.RESTORED])
def test_another_archive_is_refused_until_rollback(state: str) -> None:
    journal = interrupted("set-aside")
    journal.state = state
    with pytest.raises(JujuDrError, match=r"run-1.*another archive.*playbooks/rollback\.yml"):
        decide(journal, OTHER)


def test_a_rollback_is_ended_first() -> None:
    journal = interrupted("set-aside")
    journal.state = journals.ROLLING_BACK
    with pytest.raises(JujuDrError, match=r"is being rolled back\. Run playbooks/rollback\.yml again"):
        decide(journal, ONE)


def test_a_restored_controller_is_not_restored_again() -> None:
    journal = interrupted("prove")
    journal.state = journals.RESTORED
    decision = decide(journal, ONE)
    assert (decision.verb, decision.todo) == ("restored", ())
    assert "already restored" in decision.why


def test_after_a_rollback_any_archive_begins() -> None:
    journal = interrupted("set-aside")
    journal.state, journal.failed = journals.ROLLED_BACK, ["/x.failed"]
    again, decision = begin(journal, OTHER, "10.99.0.21", "run-2", "root@a:1", [])
    assert (decision.verb, again.run, again.failed, again.aside) == ("begin", "run-2", ["/x.failed"], None)
