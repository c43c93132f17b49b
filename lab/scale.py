"""How often a test that tries many times tries: few in `make test`, all in `make torture`."""

from __future__ import annotations

import os

FULL = os.environ.get("JUJU_DR_TORTURE") == "full"


def rounds(few: int, full: int) -> int:
    """The number for this run."""
    return full if FULL else few
