"""Time in the sandbox: what a body says is the real time, what has to be waited for passes faster."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

__all__ = ["SandboxClock"]


class SandboxClock:
    """A clock on which waiting passes `speed` times as fast. Raises `ValueError` for a speed that is not positive."""

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError("speed: expected more than 0")
        self.speed = speed
        self._started = time.monotonic()
        self._skipped = 0.0

    def now(self) -> datetime:
        """The real time, aware: a receiver judges the age of what is signed by its own clock."""
        return datetime.now(UTC)

    def elapsed(self) -> float:
        """Seconds of sandbox time since the start; never goes back."""
        return (time.monotonic() - self._started) * self.speed + self._skipped

    def skip(self, seconds: float) -> None:
        """Let so much sandbox time pass at once. What sleeps meanwhile does not notice: wake it."""
        self._skipped += max(0.0, seconds)

    def real(self, seconds: float) -> float:
        """How many real seconds so much sandbox time takes."""
        return max(0.0, seconds) / self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of sandbox time."""
        await asyncio.sleep(self.real(seconds))
