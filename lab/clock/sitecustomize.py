"""The clock that Python programs of this machine see, some days off: Python imports this file by itself when it is on its path.

Only what asks the time of day is changed, not what waits. (libfaketime changes both, and Python then sleeps for days.)
"""

from __future__ import annotations

import datetime
import os
import time
from datetime import datetime as _real
from typing import Any

OFF = datetime.timedelta(days=int(os.environ["LAB_CLOCK_OFF_DAYS"]))
_time = time.time


class _Any(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _real)


class _Off(_real, metaclass=_Any):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _real.now(tz) + OFF

    @classmethod
    def utcnow(cls) -> Any:
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)


datetime.datetime = _Off  # type: ignore[misc]
time.time = lambda: _time() + OFF.total_seconds()
