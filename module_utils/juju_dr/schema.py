"""Which generation of Juju's schema a controller has."""

from __future__ import annotations

import re

from .errors import JujuDrError

# Juju 1.x: one environment without prefix in ids; then ids with the environment's UUID. 2.9 and 3.x: models.
GENERATIONS = ("1.18-1.20", "1.21-1.25", "2.9", "3.x")
ENVIRONMENTS = GENERATIONS[:2]
_CURES = {
    # Major versions that are not served, or not wholly.
    1: "Upgrade that environment to Juju 1.18 or later and back it up again",
    2: "Restore it with `juju restore-backup` of that Juju itself, which has it up to 2.8, or back up after an upgrade to 2.9",
}


def generation(version: str) -> str:
    """The generation of a Juju version such as ``3.6.26.1``.

    :raises JujuDrError: another version, or none.
    """
    matched = re.match(r"^(\d+)\.(\d+)[.-]", version + ".")
    major, minor = (int(matched.group(1)), int(matched.group(2))) if matched else (0, 0)
    if major == 1 and 18 <= minor <= 25:
        return "1.18-1.20" if minor <= 20 else "1.21-1.25"
    if (major, minor) == (2, 9):
        return "2.9"
    if major == 3:
        return "3.x"
    raise JujuDrError(
        f"Juju {version or '(no version)'} is not supported",
        _CURES.get(major, "Use archives of Juju 1.18 to 1.25, 2.9 or 3.x, or a juju-dr that knows this version"),
    )
