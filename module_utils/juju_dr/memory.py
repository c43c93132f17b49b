"""How the C library keeps memory that is done with."""

from __future__ import annotations

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 32 * 1024 * 1024


def keep_freed() -> None:
    """Lets glibc keep up to 32 MiB of what is freed; other libraries do as they do.

    Buffers of a megabyte come and go by the thousand. Given back each time, every page of them is a fault again, which takes
    a quarter of the time in which an archive is read.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _KEPT)
