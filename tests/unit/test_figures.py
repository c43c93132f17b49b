"""The bench's arithmetic and what it draws; that it runs is shown in tests/mongod/test_bench.py."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import chart, report, rows
from bench.figures import Growth, Result, Row, number, ratios, spread
from bench.ground import alternate

MACHINE = {"cpu": "a & b", "cores": 2, "memory_mib": 1, "python": "3", "date": "today", "runs": 3, "load_before": [0.1, 0, 0]}


def test_ratios_are_taken_run_by_run() -> None:
    assert ratios([10, 30, 10], [5, 10, 10]) == spread([2, 3, 1])
    assert spread([3.0, 1.0, 2.0]) == spread([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_runs_end_when_their_time_is_over_but_each_is_measured_once() -> None:
    assert alternate(5, 0, lambda: 1.0, lambda: 2.0) == [[1.0], [2.0]]
    assert alternate(2, 1, lambda: 1.0) == [[1.0, 1.0]]


@pytest.mark.parametrize(("value", "written"), [(0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1234"), (-120.4, "-120")])
def test_numbers_have_three_figures_that_count(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(("ratio", "met"), [(2.9, False), (3.0, True)])
def test_a_goal_is_met_by_the_median(ratio: float, met: bool) -> None:
    assert Row("x", ">= 3x", ratio=spread([ratio]), at_least=3).met is met
    assert Row("x", "", ratio=spread([ratio])).met is None


def test_growth_is_what_the_steepest_peak_does() -> None:
    table = rows.growth_table(["gzip"])
    tail = [100.0, 100.0, 50.0, 50.0]
    table.lines = [["a", "10", *tail], ["b", "20", 104.0, 100.0, 51.0, 53.0]]
    row = rows.memory_row(table)
    assert row is not None
    assert row.ours is not None
    assert row.ours.median == pytest.approx(6.0)
    assert row.met is False
    assert "from 10 to 20 documents: dump +4.0%, backup +0.0%, verify +2.0%, load +6.0%" in row.note
    assert rows.memory_row(rows.growth_table(["gzip"])) is None


def test_what_is_written_is_json_a_table_and_a_chart_within_its_frame(tmp_path: Path) -> None:
    result = Result(MACHINE)
    result.rows = [
        Row("fast", ">= 3x", spread([1.0]), spread([9.0]), spread([8.0, 9.0, 40.0]), at_least=3),
        Row("slow", ">= 3x", spread([1.0]), spread([2.0]), spread([2.0]), at_least=3, note="a <tag> & more"),
        Row("not here", ">= 2x", spread([1.0]), note="mongodump is not on PATH"),
    ]
    result.growths = [Growth("a thing", ["n", "s"], [["1", 2.0]])]
    report.write(result, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["rows"][0]["met"] is True
    text = (tmp_path / "out" / "bench.md").read_text()
    slow = next(line for line in text.splitlines() if line.startswith("| slow<br>a <tag> & more | >= 3x | "))
    assert slow.endswith("| 1.00 (1.00-1.00) s | 2.00 (2.00-2.00) s | 2.00 (2.00-2.00) x<br>1 of 3 runs | SHORT |")
    assert "| not here<br>mongodump is not on PATH | >= 2x | 1.00 (1.00-1.00) s |  |  |  |" in text
    drawn = ElementTree.fromstring((tmp_path / "out" / "bench.svg").read_text())
    across = [float(one.get(key, 0)) for one in drawn.iter() for key in ("x", "x1", "x2") if one.get(key)]
    assert 0 <= min(across) <= max(across) <= chart.WIDTH
    bars = [one for one in drawn.iter() if one.get("fill") in (chart.OURS, chart.SHORT)]
    assert [one.get("fill") for one in bars] == [chart.OURS, chart.SHORT]
    assert float(bars[0].get("width", 0)) / float(bars[1].get("width", 1)) == pytest.approx(4.5, rel=0.01)


def test_a_run_with_nothing_to_compare_still_has_a_chart() -> None:
    assert ElementTree.fromstring(chart.draw(Result(MACHINE))) is not None
