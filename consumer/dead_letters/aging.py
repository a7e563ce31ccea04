"""Dead letters that grow too old are deleted by the worker itself: nobody may replay them any more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from consumer.dead_letters.archive import Archive, Purged
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter
from consumer.errors import ConsumerError
from consumer.failures import describe

__all__ = ["Aging", "purge_expired"]

_log = structlog.get_logger("worker")

_EVERY: Final = 3600.0
_MOST: Final = 100_000
"""Deleted in one pass; what is left goes with the next."""


class _Stopped(Exception):
    """Ends a pass in the middle; the segment in hand stays as it was."""


def purge_expired(
    archive: Archive, max_age: float, *, now: datetime, stopping: Callable[[], bool] = lambda: False
) -> Purged:
    """Delete dead letters that were put aside more than `max_age` seconds ago, from segments that are closed.

    Only segments begun that long ago are looked at. Blocking. Several may do so at once. Raises DeadLetterError.
    """
    limit = now - timedelta(seconds=max_age)

    def goes(record: DeadLetter | SealedDeadLetter) -> bool:
        if stopping():
            raise _Stopped
        return record.dead_lettered_at < limit

    return archive.purge(goes, limit=_MOST, begun_before=limit)


class Aging:
    """The loop of a worker that deletes dead letters older than `max_age` seconds, hourly."""

    def __init__(
        self,
        open_archive: Callable[[], Archive],
        max_age: float,
        *,
        expired: Callable[[int], None] = lambda _: None,
        every: float | None = None,
    ) -> None:
        """`expired` hears how many were deleted; `every`, in seconds, is about an hour, give or take a tenth."""
        self._open_archive = open_archive
        self._max_age = max_age
        self._expired = expired
        self._every = _EVERY if every is None else every
        self._stopping = False
        self._warned = False

    async def run(self) -> None:
        """Look now and then, until cancelled; then a pass under way ends at its next line.

        A store that does not let the worker delete is warned of once.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters-aging")
        try:
            # Not at once: a worker that is restarted over and over has other things to do.
            await asyncio.sleep(self._every * random.uniform(0.01, 0.1))  # noqa: S311 - no secret
            while True:
                await asyncio.get_running_loop().run_in_executor(thread, self._pass)
                await asyncio.sleep(self._every * random.uniform(0.9, 1.1))  # noqa: S311 - as above
        finally:
            self._stopping = True
            thread.shutdown(wait=False)

    def _pass(self) -> None:
        try:
            with closing(self._open_archive()) as archive:
                done = purge_expired(archive, self._max_age, now=datetime.now(UTC), stopping=lambda: self._stopping)
        except _Stopped:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, events must still be handled
            if not self._warned:
                detail = str(error) if isinstance(error, ConsumerError) else describe(error)["type"]
                hint = "let the worker delete, or let the store expire them and set dead_letters.purge=false"
                _log.warning("dead_letters_not_purged", detail=detail, hint=hint)
            self._warned = True
            return
        self._warned = False
        if done.removed:
            self._expired(done.removed)
            _log.info("dead_letters_expired", lines=done.removed, unreadable=len(done.problems))
