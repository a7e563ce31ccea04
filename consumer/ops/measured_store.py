"""A dead-letter store whose work is timed and whose failures are counted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.dead_letters.record import DeadLetter
    from consumer.dead_letters.store import DeadLetterStore
    from consumer.ops.metrics import Metrics

__all__ = ["MeasuredStore"]


class MeasuredStore:
    """Another `DeadLetterStore`, with metrics."""

    def __init__(self, store: DeadLetterStore, metrics: Metrics) -> None:
        self._store = store
        self._took = metrics.dead_letter_seconds.observe
        self._failed = metrics.dead_letter_failures.inc

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """As the store does."""
        begun = time.perf_counter()
        try:
            await self._store.append(records)
        except Exception:
            self._failed()
            raise
        self._took(time.perf_counter() - begun)

    async def probe(self) -> None:
        """As the store does."""
        await self._store.probe()

    async def close(self) -> None:
        """As the store does."""
        await self._store.close()
