"""Samples, ratios between them, and the rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Spread:
    """What several runs gave."""

    median: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)}-{number(self.high)})"


def spread(values: Sequence[float]) -> Spread:
    """Median, least and greatest of at least one value."""
    return Spread(median(values), min(values), max(values), len(values))


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """How many times faster we are, run by run: both were measured one after the other, so that noise hits both."""
    return spread([their / our for their, our in zip(theirs, ours, strict=True)])


def number(value: float) -> str:
    """Three figures that count, as a person writes them."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


@dataclass
class Row:
    """One line of the table.

    :ivar unit: of ``ours`` and ``theirs``.
    :ivar at_least: the ratio that is the goal; None where the goal is no ratio.
    :ivar met: whether the goal is met; None where nothing could be measured.
    :ivar note: what a reader must know to judge the figure; why there is none.
    """

    what: str
    goal: str
    ours: Spread | None = None
    theirs: Spread | None = None
    ratio: Spread | None = None
    unit: str = "s"
    at_least: float | None = None
    met: bool | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.met is None and self.ratio is not None and self.at_least is not None:
            self.met = self.ratio.median >= self.at_least


@dataclass
class Growth:
    """How time and memory grow with one thing: a table of its own."""

    what: str
    columns: list[str]
    lines: list[list[float | str]] = field(default_factory=list)


@dataclass
class Result:
    """All of one run."""

    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    growths: list[Growth] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
