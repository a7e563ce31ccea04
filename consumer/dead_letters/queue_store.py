"""The store that puts dead letters on the queue beside their own: `<queue>-poison`, as Azure Functions does.

Such a queue holds the message as it came and nothing else: no reason, no error. Those are in the log and the metrics.
What is on it is handled again by a source that reads it, and stays until then: it is sent to live for ever.

There is no quota for messages that nobody is known to have signed: a storage queue has no disk of ours to fill, but
what is on it costs money, and whoever may send to the first queue can make the second one grow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from consumer.dead_letters.record import DeadLetter
from consumer.dead_letters.store import DeadLetterStore
from consumer.errors import DeadLetterError, SourceError, SourceUnavailable
from consumer.sources.base import Outgoing, Source

__all__ = ["POISON", "QueueStore"]

_log = structlog.get_logger("worker")

POISON = "-poison"
"""What Azure Functions appends to a queue's name: see "Azure Queue storage trigger", poison messages."""

_SENDS: Final = 32
_REMEMBERED: Final = 10_000
_WARN_EVERY: Final = 60.0


class QueueStore:
    """Dead letters on queues; a `DeadLetterStore`. `queues` has one for each source, by the source's name.

    A message whose bytes do not pass `fits` is one that such a queue cannot carry: it goes to `files`, which is
    warned of in the log, once a minute at most.
    """

    def __init__(self, queues: Mapping[str, Source], *, fits: Callable[[bytes], bool], files: DeadLetterStore) -> None:
        self._queues = queues
        self._fits = fits
        self._files = files
        self._open: set[str] = set()
        self._opening = asyncio.Lock()
        self._kept: set[str] = set()
        """Ids that calls kept which failed for others: when they are called again, these are not doubled."""
        self._in_files = 0
        self._warned_at = -_WARN_EVERY

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Send each message to the queue of its source; accepted by the service when this returns.

        Each goes alone: one that is refused does not keep back the others. Raises DeadLetterError if any is not safe.
        """
        to_files: list[DeadLetter] = []
        to_queues: dict[str, list[DeadLetter]] = {}
        for record in records:
            if record.id not in self._kept:
                fits = self._fits(record.message)
                (to_queues.setdefault(record.source, []) if fits else to_files).append(record)
        sends = [self._send(name, some) for name, some in to_queues.items()]
        results = await asyncio.gather(self._write(to_files), *sends, return_exceptions=True)
        for error in results:
            if error is not None:
                raise error
        self._kept.difference_update(record.id for record in records)

    async def probe(self) -> None:
        """See that each queue is there, as far as the credentials may, and that files can be written.

        Whether messages may be added cannot be known without adding one: credentials that may not even look pass for
        good, and so do those that may only look. Without the right to add, `append` says so.
        """
        await self._files.probe()
        for name in self._queues:
            try:
                # The source's own first finding: unlike a look at the depth, it forgives credentials that may not look.
                found = (await (await self._queue(name)).check())[0]
            except SourceError as error:
                raise DeadLetterError(f"dead-letter queue: {error}") from error
            if not found.ok and not found.warning:
                raise DeadLetterError(f"dead-letter queue: {found.detail}")

    async def close(self) -> None:
        """Let go of the queues and the files."""
        self._open.clear()
        for queue in self._queues.values():
            await queue.close()
        await self._files.close()

    async def _queue(self, name: str) -> Source:
        queue = self._queues[name]
        async with self._opening:
            if name not in self._open:
                await queue.open()
                self._open.add(name)
        return queue

    async def _send(self, name: str, records: Sequence[DeadLetter]) -> None:
        errors: list[BaseException] = []
        try:
            queue = await self._queue(name)
            for start in range(0, len(records), _SENDS):
                batch = records[start : start + _SENDS]
                sends = [queue.send([Outgoing(record.message)]) for record in batch]
                results = await asyncio.gather(*sends, return_exceptions=True)
                self._remember(record for record, error in zip(batch, results, strict=True) if error is None)
                errors += [error for error in results if error is not None]
                if any(isinstance(error, SourceUnavailable) for error in errors):
                    break  # it is not about the message: the rest would only wait for the same
            if errors:
                raise errors[0]
        except SourceError as error:
            raise DeadLetterError(f"dead-letter queue: {error}") from error

    async def _write(self, records: Sequence[DeadLetter]) -> None:
        if not records:
            return
        await self._files.append(records)
        self._remember(records)
        self._in_files += len(records)
        if time.monotonic() - self._warned_at >= _WARN_EVERY:
            self._warned_at = time.monotonic()
            _log.warning(
                "dead_letters_in_files",
                detail="a queue cannot carry them: see dead_letters.path",
                since_start=self._in_files,
            )

    def _remember(self, records: Iterable[DeadLetter]) -> None:
        if len(self._kept) > _REMEMBERED:
            self._kept.clear()  # what never came back was put aside by somebody else
        self._kept.update(record.id for record in records)
