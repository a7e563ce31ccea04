"""Receives of a FIFO queue that failed: SQS gives the same messages again to whoever repeats the attempt by its id."""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass
from typing import Final

__all__ = ["Attempt", "Attempts"]

_MEMORY: Final = 290.0
"""SQS remembers a FIFO receive attempt for five minutes."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One receive on a FIFO queue, under an id that makes its repetition return the same messages."""

    id: str
    limit: int
    begun: float


class Attempts:
    """Which receives of a FIFO queue failed and may be repeated: their messages may be in flight to nobody."""

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._failed: list[Attempt] = []

    def begin(self, limit: int) -> Attempt:
        """A failed attempt again, if it asked for no more than `limit` and SQS still knows it; else a new one."""
        now = time.monotonic()
        self._failed = [one for one in self._failed if now - one.begun < _MEMORY]
        for one in self._failed:
            if one.limit <= limit:
                self._failed.remove(one)
                return one
        return Attempt(f"{self._prefix}-{next(self._numbers)}", limit, now)

    def failed(self, attempt: Attempt) -> None:
        """Its outcome is unknown: repeat it later."""
        self._failed.append(attempt)
