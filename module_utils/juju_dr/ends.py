"""A run that is told to end does so tidily: a signal becomes an error, and what every error puts back is put back."""

from __future__ import annotations

import contextlib
import signal
from typing import Any, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """The run was ended from outside. No error: whoever waits for something and tries again must not swallow it."""


@contextlib.contextmanager
def tidily() -> Iterator[None]:
    """Raises :class:`Ended` in the main thread when this process is told to end; only the main thread may enter."""

    def end(number: int, _: Any) -> None:
        raise Ended(f"This run was ended by {signal.Signals(number).name}. Run the playbook again.")

    before = {one: signal.signal(one, end) for one in SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
