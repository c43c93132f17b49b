"""The bench runs from end to end; its figures at this size mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent


def bench(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OUT": str(tmp_path / "out"), "PYTHONPATH": "", **settings}
    # Others' tools are not asked for here: they may be on somebody's PATH.
    environment.update(MONGODUMP="", MONGORESTORE="", PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin")
    command = [sys.executable, "-m", "bench"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_row_is_measured_and_written(tmp_path: Path) -> None:
    done = bench(
        tmp_path,
        SIZES="0.001 0.002",
        RUNS="1",
        PROBES="20",
        ROWS="pause dump backup transfer load machines growth",
        MACHINES="3",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "bench.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    assert rows["load, against a plain loop of what these flags mean"]["ratio"]["median"] > 0
    probes = rows["writes failed or delayed > 1 s in hot backups"]["note"].partition(" writes")[0]
    assert int(probes.replace(",", "")) >= 20
    machines, growth = result["growths"]
    assert machines["lines"][0][0] == "3"
    assert [line[0] for line in growth["lines"]] == ["0.001 GB", "0.002 GB"]
    assert all(len(line) == len(growth["columns"]) for line in growth["lines"])
    assert ElementTree.fromstring((tmp_path / "out" / "bench.svg").read_text()).tag.endswith("svg")
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith("juju-dr-bench-")]
    assert left == []


def test_a_row_that_there_is_not_is_named(tmp_path: Path) -> None:
    done = bench(tmp_path, ROWS="load speed")
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "not speed" in done.stderr
