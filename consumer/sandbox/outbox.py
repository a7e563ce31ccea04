"""What one stream has still to publish: buffered, due again, given up. Pure: every call takes `now`.

Times are seconds of sandbox time.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Literal

__all__ = ["RETRIES", "WINDOW", "Item", "Manner", "Outbox"]

RETRIES: Final = (60.0, 300.0, 1800.0, 7200.0, 43_200.0, 86_400.0)
"""Delays before each further attempt (`/docs/event-stream`)."""
WINDOW: Final = 48 * 3600.0
"""After this long since the first attempt none is made any more (`/docs/event-stream`)."""
_MOST: Final = 10_000

Manner = Literal["good", "forged", "stale", "verbatim"]
"""How an item becomes a message: signed, signed by a stranger, signed long ago, or sent as it is."""


@dataclass(slots=True)
class Item:
    """One event on its way."""

    event_id: str
    body: bytes = field(repr=False)
    """The event; with the manner `verbatim` the whole message."""
    manner: Manner = "good"
    again: bool = False
    """Whether it was published before: such are not drawn for duplicates."""
    first_tried: float | None = None
    tries: int = 0


class Outbox:
    """Items in the order they came; those that failed come back when they are due. Bounded: the oldest goes first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._waiting: deque[Item] = deque()
        self._later: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self.published = 0
        self.failed = 0
        """Given up after the last attempt."""
        self.dropped = 0
        """Gone because there were too many to keep; how many the platform would keep is not published."""

    @property
    def waiting(self) -> int:
        """Not tried yet."""
        return len(self._waiting)

    @property
    def later(self) -> int:
        """To be sent at a later time."""
        return len(self._later)

    def add(self, item: Item, now: float, *, delay: float = 0.0) -> None:
        """Take one in, to be sent at once or after a delay."""
        if delay > 0:
            heapq.heappush(self._later, (now + delay, next(self._numbers), item))
        else:
            self._waiting.append(item)
        while self.waiting + self.later > self._most:
            self.dropped += 1
            if self._waiting:
                self._waiting.popleft()
            else:
                heapq.heappop(self._later)

    def take(self, now: float, limit: int) -> list[Item]:
        """Up to `limit` items to send now: those due again first. They are to be given to `sent` or `not_sent`."""
        taken: list[Item] = []
        while len(taken) < limit and self._later and self._later[0][0] <= now:
            taken.append(heapq.heappop(self._later)[2])
        while len(taken) < limit and self._waiting:
            taken.append(self._waiting.popleft())
        for item in taken:
            item.tries += 1
            item.first_tried = now if item.first_tried is None else item.first_tried
        return taken

    def sent(self, items: list[Item]) -> None:
        """The queue has accepted these."""
        self.published += len(items)

    def not_sent(self, items: list[Item], now: float) -> None:
        """The queue has not: each is tried again by the schedule, or given up."""
        for item in items:
            delay = RETRIES[item.tries - 1] if item.tries <= len(RETRIES) else None
            first = now if item.first_tried is None else item.first_tried
            if delay is None or now + delay > first + WINDOW:
                self.failed += 1
            else:
                self.add(item, now, delay=delay)

    def next_due(self) -> float | None:
        """When something is to be sent: 0 for at once, None for never."""
        if self._waiting:
            return 0.0
        return self._later[0][0] if self._later else None

    def make_due(self) -> None:
        """Let everything that waits for its time be due now: a partner's queue is there again."""
        self._later = [(0.0, number, item) for _, number, item in sorted(self._later)]
