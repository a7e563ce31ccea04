"""Looking at what queues hold, now and then, so that a scrape need not wait for a queue's answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

from consumer.errors import DatabaseError, SourceError
from consumer.failures import describe
from consumer.parked import parked_sources
from consumer.sources.base import Source, Telling

if TYPE_CHECKING:
    from consumer.database import Database
    from consumer.ops.source_metrics import SourceMetrics

__all__ = ["Backlog"]

_log = structlog.get_logger("worker")

_EVERY: Final = 30.0
_FIRST: Final = 5.0
"""Seconds before the first look: a worker that just started has other things to ask its queues."""
_LIMIT: Final = 20.0
"""Seconds that one queue's answer may take."""
_JITTER: Final = 0.2
_SAY_EVERY: Final = 600.0


class Backlog:
    """Asks sources for their depth, and the database for what is parked, and tells their metrics.

    A queue that does not answer keeps what it said before, whose age is a metric too, and keeps nobody else waiting.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        metrics: Mapping[str, SourceMetrics],
        database: Database | None = None,
        *,
        every: float = _EVERY,
        limit: float = _LIMIT,
    ) -> None:
        """Both by the sources' names; `every` and `limit` are in seconds."""
        self._sources = sources
        self._metrics = metrics
        self._database = database
        self._every = every
        self._limit = limit
        self._said: dict[str, float] = {}

    async def run(self) -> None:
        """Look every `every` seconds, or a little more or less, until cancelled."""
        await asyncio.sleep(min(_FIRST, self._every))
        while True:
            await self.look()
            # Workers that were started together should not ask together for ever.
            await asyncio.sleep(self._every * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret

    async def look(self) -> None:
        """Ask everybody once. Raises nothing."""
        await asyncio.gather(self._count_parked(), *(self._ask(name, source) for name, source in self._sources.items()))

    async def _ask(self, name: str, source: Source) -> None:
        metrics = self._metrics[name]
        try:
            async with asyncio.timeout(self._limit):
                depth = await source.depth()
            waiting_since = source.waiting_since() if isinstance(source, Telling) else None
        except Exception as error:  # noqa: BLE001 - a source of the user's own must not end the others' metrics
            metrics.backlog_error()
            self._say(name, error)
            return
        metrics.backlog(depth, at=time.time(), waiting_since=waiting_since)
        self._said.pop(name, None)

    def _say(self, name: str, error: Exception) -> None:
        """Log that a queue does not tell, at first and now and then while it goes on."""
        now = time.monotonic()
        if now - self._said.get(name, -_SAY_EVERY) < _SAY_EVERY:
            return
        self._said[name] = now
        if isinstance(error, SourceError):
            detail = str(error)
        else:
            detail = "no answer in time" if isinstance(error, TimeoutError) else str(describe(error)["type"])
        _log.warning("backlog_unknown", source=name, detail=detail)

    async def _count_parked(self) -> None:
        if self._database is None:
            return
        try:
            async with asyncio.timeout(self._limit):
                parked = await parked_sources(self._database)
        except (DatabaseError, TimeoutError):
            return  # whoever needs the database says so
        for name, metrics in self._metrics.items():
            metrics.parked(parked.get(name, 0))
