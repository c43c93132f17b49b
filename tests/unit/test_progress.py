"""What a long run tells of itself, when it ends because nobody asks, and what a person sees of it."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.progress import (
    SILENT,
    Lines,
    Progress,
    Screen,
    State,
    Unattended,
    _Watched,
    attended,
    duration,
    parse,
    screen_for,
    size_of_of,
)
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_tells_at_most_once_a_second_and_loses_nothing() -> None:
    told: list[State] = []
    clock = Clock()
    progress = Progress(told.append, clock)
    progress.expect(bytes=1000, documents=10)
    for _ in range(20):
        clock.now += 0.25
        progress.add(bytes=50, documents=1)
    assert [(state.bytes, state.documents, state.seconds) for state in told] == [
        (200, 4, 1.0),
        (400, 8, 2.0),
        (600, 12, 3.0),
        (800, 16, 4.0),
        (1000, 20, 5.0),
    ]
    assert {(state.of_bytes, state.of_documents) for state in told} == {(1000, 10)}
    progress.doing("builds indexes")
    clock.now += 1
    progress.expect(bytes=500)
    assert (told[-1].doing, told[-1].of_bytes) == ("builds indexes", 1500)


def test_threads_count_into_one_sum() -> None:
    told: list[State] = []
    clock = Clock()
    progress = Progress(told.append, clock)

    def count() -> None:
        for _ in range(2000):
            progress.add(1, 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 1
    progress.add()
    assert (told[-1].bytes, told[-1].documents) == (8000, 8000)


def test_silence_is_free_of_files_and_threads() -> None:
    with attended("") as progress:
        assert progress is SILENT
        progress.add(1)
        progress.doing("x")


def test_a_watched_run_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "a.json"
    with attended(str(file)) as progress:
        assert (tmp_path / "runs" / "a.asked").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o700
        progress._last -= 5
        progress.add(bytes=7)
        assert file.stat().st_mode & 0o777 == 0o600
        state = parse(file.read_text())
        assert state is not None
        assert state.bytes == 7
    assert list((tmp_path / "runs").iterdir()) == []


def test_nobody_asks_for_it_any_more(tmp_path: Path) -> None:
    asked, clock = tmp_path / "a.asked", Clock()
    asked.touch()
    watched = _Watched(tmp_path / "a.json", asked, 300, clock)
    watched(State())
    clock.now += 299
    watched(State())
    # Asked again, by a control process whose host's clock was set back meanwhile.
    os.utime(asked, (1, 1))
    clock.now += 2
    watched(State())
    clock.now += 299
    watched(State())
    clock.now += 2
    with pytest.raises(Unattended, match=r"Nobody has asked for this run for 300 s.*Run the playbook again\."):
        watched(State())
    asked.unlink()
    with pytest.raises(Unattended, match="ended from outside"):
        watched(State())


def test_what_cannot_be_told_does_not_stop_the_work(tmp_path: Path) -> None:
    asked = tmp_path / "a.asked"
    asked.touch()
    (tmp_path / "a.new").mkdir()
    _Watched(tmp_path / "a.json", asked)(State(bytes=1))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"bytes": 1, "unknown": 2}'])
def test_a_text_that_is_no_state(text: str) -> None:
    assert parse(text) is None


@given(st.builds(State, st.integers(0), st.integers(0), st.integers(0), st.integers(0), st.text(), st.floats(0, 1e9)))
def test_a_state_survives_the_file(state: State) -> None:
    assert parse(json.dumps(asdict(state))) == state


MIB = 1 << 20


def test_lines_a_person_reads() -> None:
    lines = Lines("[c0] juju_mongo_dump")
    assert lines.line(State()) == "[c0] juju_mongo_dump: "
    lines = Lines("dump")
    assert lines.line(State(100 * MIB, 50_000, 400 * MIB, 0, "", 2.0)) == (
        "dump: 100.0 of 400.0 MiB, 50,000 documents, 50.0 MiB/s, 0:06 left"
    )
    # The rate is that of the last ten seconds.
    for second in range(3, 21):
        line = lines.line(State((100 + second) * MIB, 50_000, 400 * MIB, 0, "", float(second)))
    assert line == "dump: 120.0 of 400.0 MiB, 50,000 documents, 1.0 MiB/s, 4:40 left"
    assert lines.last(21.4) == "dump: done in 0:21 (seen last: 120.0 of 400.0 MiB, 50,000 documents)"


def test_lines_without_bytes_or_expectation() -> None:
    assert (
        Lines("x").line(State(0, 500, 0, 2000, "replays", 1.0))
        == "x: 500 of 2,000 documents, 500 documents/s, 0:03 left, replays"
    )
    assert Lines("x").line(State(5 * MIB, 0, 0, 0, "", 1.0)) == "x: 5.0 MiB, 5.0 MiB/s"
    assert Lines("x").line(State(doing="builds indexes", seconds=3.0)) == "x: builds indexes"
    assert Lines("x").last(2) == "x: done in 0:02"


def test_amounts_and_durations() -> None:
    assert size_of_of(1 << 30, 0) == "1.00 GiB"
    assert size_of_of(300 * MIB, 4 << 30) == "0.29 of 4.00 GiB"
    assert [duration(seconds) for seconds in (0, 59.6, 725, 10810)] == ["0:00", "1:00", "12:05", "3:00:10"]


def test_one_host_is_shown_in_place() -> None:
    shown: list[str] = []
    clock = Clock()
    screen = Screen(shown.append, 1, 20, clock)
    assert not screen.used
    screen.show("a line that is longer than the terminal")
    clock.now += 0.1
    screen.show("too early")
    clock.now += 1
    screen.show("next")
    screen.show("last", always=True)
    assert screen.used
    assert shown == ["a line that is long", "\033[1A\033[2Knext", "\033[1A\033[2Klast"]


def test_several_hosts_share_the_screen_line_by_line() -> None:
    shown: list[str] = []
    clock = Clock()
    screen = Screen(shown.append, 3, 80, clock)
    for second in range(7):
        screen.show(str(second))
        clock.now += 1
    assert shown == ["0", "3", "6"]


class Display:
    columns, verbosity = 80, 0

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, text: str) -> None:
        self.shown.append(text)


@pytest.mark.parametrize(
    ("terminal", "wanted", "environment", "shown"),
    [
        (True, "", None, "in place"),
        (False, "", None, None),
        (True, "never", None, None),
        (True, "", "never", None),
        (False, "", "always", "below"),
        (False, "always", "never", "below"),
        (True, "auto", "never", "in place"),
    ],
)
def test_who_sees_it(
    terminal: bool, wanted: str, environment: str | None, shown: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("JUJU_DR_PROGRESS", raising=False)
    if environment:
        monkeypatch.setenv("JUJU_DR_PROGRESS", environment)
    display = Display()
    screen = screen_for(display, terminal, wanted, 1)
    if screen is None:
        assert shown is None
        return
    screen.show("a", always=True)
    screen.show("b", always=True)
    assert display.shown == ["a", "\033[1A\033[2Kb" if shown == "in place" else "b"]
