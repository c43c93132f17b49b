"""The one exception family: what was tried, what was seen, and the cure."""

from __future__ import annotations


class JujuDrError(Exception):
    """A failure an operator can act on.

    :param problem: one sentence naming what was tried, on what, and what was seen.
    :param cure: one sentence telling what to do about it.
    """

    def __init__(self, problem: str, cure: str) -> None:
        self.problem = problem.rstrip(".")
        self.cure = cure.rstrip(".")
        super().__init__(f"{self.problem}. {self.cure}.")
