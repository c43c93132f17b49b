"""Which generation of Juju's schema a controller has."""

from __future__ import annotations

import re

from .errors import JujuDrError

GENERATIONS = ("2.9", "3.x")


def generation(version: str) -> str:
    """``2.9`` or ``3.x`` for a Juju version such as ``3.6.26.1``.

    :raises JujuDrError: another version, or none.
    """
    matched = re.match(r"^(\d+)\.(\d+)[.-]", version + ".")
    major, minor = (int(matched.group(1)), int(matched.group(2))) if matched else (0, 0)
    if (major, minor) == (2, 9):
        return "2.9"
    if major == 3:
        return "3.x"
    raise JujuDrError(f"Juju {version or '(no version)'} is not supported", "Use archives and controllers of Juju 2.9 or 3.x")
