from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from ansible.module_utils.juju_dr.repoint import Entry, Machine
from ansible.module_utils.juju_dr.repoint_ledger import Ledger, journal, merged, read, rest, table, with_seen, write

UUID = "e8ecd66d-8bbb-4161-85d8-ebcaabeef1fd"
NEW = ("10.99.0.21:17070",)


def entry(machine: str, outcome: str = "done", *seen: str, **more: str) -> Entry:
    agents = [f"machine-{machine}@m", f"unit-a-{machine}@m"]
    return Entry(
        "prod", machine, f"10.0.0.{machine}", outcome, agents=agents, model_uuid="m", seen=dict.fromkeys(seen, "log"), **more
    )


def machine(number: str, *agents: str) -> Machine:
    return Machine("prod", "m", number, (), agents)


BACK = entry("1", "done", "machine-1@m", "unit-a-1@m")
QUIET = entry("2", "unchanged", "machine-2@m", warning="its clock is 5.0 days behind")
GONE = entry("3", "unreachable", reason="nothing answers at port 22")
DENIED = entry("4", "refused", reason="it trusts another CA")
LEDGER = Ledger(UUID, NEW, ("1", "2"), (BACK, QUIET, GONE, DENIED))


def test_a_ledger_is_whole_closed_to_others_and_read_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "below"
    write(folder, LEDGER)
    assert read(folder) == LEDGER
    for name in ("repoint-ledger.json", "repoint-ledger.txt"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["repoint-ledger.json", "repoint-ledger.txt"]
    assert LEDGER.fits(UUID, list(NEW))
    assert not LEDGER.fits(UUID, ["10.99.0.22:17070"])


def test_a_run_that_was_ended_loses_nothing_it_had_done(tmp_path: Path) -> None:
    write(tmp_path, replace(LEDGER, machines=()))
    with journal(tmp_path) as noted:
        noted.write(json.dumps(asdict(GONE)) + "\n" + json.dumps(asdict(BACK)) + "\n" + json.dumps(asdict(QUIET))[:40])
    with journal(tmp_path) as noted:
        noted.write("\n" + json.dumps(asdict(replace(GONE, outcome="done"))) + "\n")
    ledger = read(tmp_path)
    assert ledger
    assert ledger.machines == (replace(GONE, outcome="done"), BACK)
    assert (tmp_path / "repoint-journal.jsonl").stat().st_mode & 0o777 == 0o600
    write(tmp_path, ledger)
    assert not (tmp_path / "repoint-journal.jsonl").exists()


def test_no_ledger_or_another_program_s_is_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    for text in ("[]", "{", '{"machines": [{"model": 1}]}'):
        (tmp_path / "repoint-ledger.json").write_text(text, encoding="utf-8")
        assert read(tmp_path) is None


def test_only_the_rest_is_left() -> None:
    machines = [machine(n, f"machine-{n}@m") for n in "12345"]
    left, kept = rest(machines, LEDGER, {})
    assert ([one.machine for one in left], [one.machine for one in kept]) == (["2", "3", "4", "5"], ["1"])
    left, kept = rest(machines, LEDGER, {"unit-a-2@m": "connection: 2", "machine-3@m": "log", "unit-a-3@m": "log"})
    assert [one.machine for one in left] == ["3", "4", "5"]
    assert kept[1].seen == {"machine-2@m": "log", "unit-a-2@m": "connection: 2"}
    assert rest(machines, None, {}) == (machines, [])


def test_a_unit_deployed_since_is_left_too() -> None:
    assert rest([machine("1", "machine-1@m", "unit-new-0@m")], LEDGER, {})[1] == []


def test_newer_entries_take_the_place_of_older_ones_and_evidence_stays() -> None:
    ledger = merged(
        LEDGER, [replace(GONE, outcome="done"), entry("5")], {"machine-3@m": "log", "machine-9@m": "log", "unit-a-5@m": ""}
    )
    assert [(one.machine, one.outcome) for one in ledger.machines][2:] == [("3", "done"), ("4", "refused"), ("5", "done")]
    assert ledger.machines[2].seen == {"machine-3@m": "log"}
    assert with_seen(ledger.machines, {}) == list(ledger.machines)


def test_the_table_shows_first_what_needs_a_hand() -> None:
    lines = table(LEDGER.machines)
    assert lines[0].split() == ["MODEL", "MACHINE", "ADDRESS", "OUTCOME", "SEEN", "REMARK"]
    assert [line.split()[1] for line in lines[1:]] == ["4", "3", "2", "1"]
    assert lines[3].endswith("unchanged    1/2   its clock is 5.0 days behind; not seen: unit-a-2")
    assert lines[4].split() == ["prod", "1", "10.0.0.1", "done", "2/2"]
    assert table([]) == ["MODEL  MACHINE  ADDRESS  OUTCOME  SEEN  REMARK"]
