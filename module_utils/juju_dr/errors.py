"""The one exception family: what was tried, what was seen, and the cure."""

from __future__ import annotations

import errno


class JujuDrError(Exception):
    """A failure an operator can act on.

    :param problem: one sentence naming what was tried, on what, and what was seen.
    :param cure: one sentence telling what to do about it.
    """

    def __init__(self, problem: str, cure: str) -> None:
        self.problem = problem.rstrip(".")
        self.cure = cure.rstrip(".")
        super().__init__(f"{self.problem}. {self.cure}.")


def sentence(error: JujuDrError | OSError) -> str:
    """What a module says of an error; a full disk is an operator's matter, not a traceback."""
    if isinstance(error, JujuDrError):
        return str(error)
    where = error.filename or "this host"
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return f"The disk that holds {where} is full. Make room there, then run this again."
    return f"{where}: {error.strerror or error}. Look at that file and its disk, then run this again."
