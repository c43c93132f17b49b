"""What a run of the bench leaves: JSON, tables as text, one chart."""

from __future__ import annotations

import json
from pathlib import Path

from .chart import draw
from .figures import Growth, Result, Row, Spread

VERDICT = {True: "met", False: "SHORT", None: ""}


def write(result: Result, folder: Path) -> None:
    """bench.json, bench.md, and bench.svg, in a folder that is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(tables(result), encoding="utf-8")
    (folder / "bench.svg").write_text(draw(result), encoding="utf-8")


def tables(result: Result) -> str:
    """All figures as Markdown."""
    machine = result.machine
    lines = [
        f"# Figures of {machine['date']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mib']} MiB, Python {machine['python']}. "
        f"{machine['runs']} runs each: median (least-greatest). Load of the machine before: {machine['load_before'][0]}.",
        "",
        "![ratios](bench.svg)",
        "",
        "| what | goal | ours | baseline | ratio | |",
        "|---|---|---|---|---|---|",
        *(_row(row, machine["runs"]) for row in result.rows),
    ]
    for growth in result.growths:
        lines += ["", *_growth(growth)]
    return "\n".join(lines) + "\n"


def _row(row: Row, runs: int) -> str:
    def value(found: Spread | None, unit: str) -> str:
        return f"{found} {unit}".strip() if found else ""

    note = f"<br>{row.note}" if row.note else ""
    fewer = f"<br>{row.ratio.runs} of {runs} runs" if row.ratio and row.ratio.runs < runs else ""
    ratio = value(row.ratio, "x") + fewer
    cells = (row.what + note, row.goal, value(row.ours, row.unit), value(row.theirs, row.unit), ratio)
    return "| " + " | ".join([*cells, VERDICT[row.met]]) + " |"


def _growth(growth: Growth) -> list[str]:
    return [
        f"Growth with {growth.what}, one run each:",
        "",
        "| " + " | ".join(growth.columns) + " |",
        "|" + "---|" * len(growth.columns),
        *("| " + " | ".join(str(cell) for cell in line) + " |" for line in growth.lines),
    ]
