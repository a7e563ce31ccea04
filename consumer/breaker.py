"""When a source pauses for trouble of our own, and when it may try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum

__all__ = ["Breaker", "BreakerState"]


class BreakerState(Enum):
    """closed: receiving; open: paused; half_open: one delivery is let through to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """A circuit breaker that pauses a source instead of failing its messages. Times are monotonic seconds."""

    __slots__ = ("_rand", "_tries", "cap", "first", "reason", "retry_at", "since", "state")

    def __init__(self, *, first: float = 1.0, cap: float = 60.0, rand: Callable[[], float] = random.random) -> None:
        self.first = first
        self.cap = cap
        self.state = BreakerState.CLOSED
        self.reason = ""
        self.since = 0.0
        self.retry_at = 0.0
        self._tries = 0
        self._rand = rand

    @property
    def tries(self) -> int:
        """How often it opened or a probe failed since an event was last handled."""
        return self._tries

    @property
    def closed(self) -> bool:
        """Whether the source receives as usual."""
        return self.state is BreakerState.CLOSED

    def trip(self, now: float, reason: str, *, retry_after: float | None = None) -> bool:
        """Trouble was met. True when this opened the breaker, False when it was open already."""
        opened = self.state is BreakerState.CLOSED
        if self.state is BreakerState.OPEN:
            self.retry_at = max(self.retry_at, now + (retry_after or 0.0))
            return False
        if opened:
            self.since = now
        self.reason = reason
        self.state = BreakerState.OPEN
        self._wait(now, retry_after)
        return opened

    def probe_failed(self, now: float) -> None:
        """A look at what was broken says that it still is."""
        self.state = BreakerState.OPEN
        self._wait(now, None)

    def may_probe(self, now: float) -> bool:
        """Whether it is time to look again."""
        return self.state is BreakerState.OPEN and now >= self.retry_at

    def half_open(self) -> None:
        """What was broken answers again: one delivery may go through."""
        self.state = BreakerState.HALF_OPEN

    def close(self) -> None:
        """Nothing looks broken any more. Until `proved`, another trip waits longer than this one did."""
        self.state = BreakerState.CLOSED
        self.reason = ""

    def proved(self) -> None:
        """An event was handled: the next trip starts from the shortest wait."""
        self._tries = 0

    def _wait(self, now: float, retry_after: float | None) -> None:
        self._tries += 1
        # Half of the wait is fixed: with full jitter a first probe could come at once and prove nothing.
        ceiling = min(self.cap, self.first * 2.0 ** min(self._tries - 1, 32))
        self.retry_at = now + max(ceiling / 2 * (1 + self._rand()), retry_after or 0.0)
