"""One chart of all ratios, as SVG: how many times faster, how far the runs lie apart, where the goal is."""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.sax.saxutils import escape

from .figures import Result, Row, number

WIDTH, LEFT, RIGHT, LINE, TOP, BOTTOM = 960, 430, 90, 34, 74, 46
OURS, SHORT, GOAL, QUIET = "#2c7a54", "#b3552d", "#333333", "#777777"


def draw(result: Result) -> str:
    """The chart of the rows that have a ratio."""
    rows = [row for row in result.rows if row.ratio is not None]
    most = max([1.0, *(max(row.ratio.high, row.at_least or 0) for row in rows if row.ratio)])
    step = next(size for size in (0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if most / size <= 10)
    end = math.ceil(most / step) * step

    def x(value: float) -> float:
        return LEFT + value / end * (WIDTH - LEFT - RIGHT)

    height = TOP + LINE * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 28, "How many times faster, against each baseline", size=17),
        _text(
            20,
            50,
            f"{result.machine['cpu']}, {result.machine['cores']} cores, {result.machine['date']}. "
            "Bar: median; line: all runs; mark: the goal.",
            colour=QUIET,
        ),
    ]
    bottom = TOP + LINE * len(rows)
    for number_of in range(int(end / step) + 1):
        value = number_of * step
        parts.append(_line(x(value), TOP - 6, x(value), bottom, "#bbbbbb" if value == 1 else "#e6e6e6"))
        parts.append(_text(x(value), bottom + 18, f"{value:g}x", colour=QUIET, anchor="middle"))
    for place, row in enumerate(rows):
        parts += _bar(row, TOP + LINE * place, x)
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, top: float, x: Callable[[float], float]) -> list[str]:
    assert row.ratio is not None
    middle = top + LINE / 2
    colour = SHORT if row.met is False else OURS
    parts = [
        _text(LEFT - 12, middle + 4, row.what, anchor="end"),
        f'<rect x="{x(0):.1f}" y="{top + 7:.1f}" width="{x(row.ratio.median) - x(0):.1f}" height="{LINE - 14}" '
        f'fill="{colour}"/>',
        _line(x(row.ratio.low), middle, x(row.ratio.high), middle, "#000000"),
    ]
    parts += [_line(x(end), middle - 4, x(end), middle + 4, "#000000") for end in (row.ratio.low, row.ratio.high)]
    if row.at_least is not None:
        parts.append(_line(x(row.at_least), top + 2, x(row.at_least), top + LINE - 2, GOAL, 3))
    furthest = max(row.ratio.high, row.ratio.median, row.at_least or 0)
    parts.append(_text(x(furthest) + 8, middle + 4, f"{number(row.ratio.median)}x"))
    return parts


def _text(x: float, y: float, words: str, colour: str = "#000000", anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'
