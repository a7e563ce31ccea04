"""Until when the handler that runs now has time, for calls that would rather give up by themselves than be cut off.

A call that is cut off by the handler's time limit counts as the event's failure. One that gives up before, because the
other side does not answer, can say so.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["handler_time", "time_left"]

_SHARE = 0.1
_MOST = 0.5

_gives_up_at: ContextVar[float | None] = ContextVar("_gives_up_at", default=None)


@contextmanager
def handler_time(limit: float) -> Iterator[None]:
    """What runs inside has `limit` seconds; calls should have ended shortly before that."""
    token = _gives_up_at.set(time.monotonic() + limit - min(_MOST, _SHARE * limit))
    try:
        yield
    finally:
        _gives_up_at.reset(token)


def time_left() -> float | None:
    """Seconds until a call should have ended, 0 or more; None outside of a handler."""
    at = _gives_up_at.get()
    return None if at is None else max(0.0, at - time.monotonic())
