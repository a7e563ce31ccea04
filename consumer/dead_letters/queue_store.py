"""The store that puts dead letters on queues: that of an SQS source, or `<queue>-poison` beside a Storage Queue.

A message goes there as it came. On SQS an attribute says why and when: see `queue_notes`. A Storage Queue has no room
for that, so there reason and error are in the log and the metrics alone. `queue_archive` reads both.

There is no quota for messages that nobody is known to have signed: such a queue has no disk of ours to fill, but what
is on it costs money, and whoever may send to the first queue can make the second one grow. A Storage Queue is told to
keep its messages for ever; SQS deletes what is older than the queue's retention, of 14 days at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.record import DeadLetter
from consumer.dead_letters.store import DeadLetterStore
from consumer.errors import DeadLetterError, SettingsError, SourceError, SourceUnavailable
from consumer.sources.base import Outgoing, SendingEach, Source

if TYPE_CHECKING:
    from consumer.settings import SourceSettings

__all__ = ["QueueStore"]

_log = structlog.get_logger("worker")

_SENDS: Final = 32
"""Messages sent at a time: calls under way at once where a call carries one."""
_REMEMBERED: Final = 10_000
_WARN_EVERY: Final = 60.0


class QueueStore:
    """Dead letters on queues; a `DeadLetterStore`. `queues` has one for each source, by the source's name.

    A message that its queue cannot carry goes to `files`, which is warned of in the log, once a minute at most.
    """

    def __init__(self, queues: Mapping[str, DeadLetterQueue], *, files: DeadLetterStore) -> None:
        self._queues = queues
        self._files = files
        self._open: dict[str, Source] = {}
        self._opening = asyncio.Lock()
        self._kept: set[str] = set()
        """Ids that calls kept which failed for others: when they are called again, these are not doubled."""
        self._in_files = 0
        self._warned_at = -_WARN_EVERY

    def renew(self, source: SourceSettings) -> None:
        """Note on the source's dead letters from now on with the signing secrets of these settings."""
        if source.name in self._queues:
            self._queues[source.name].renew(source)

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Send each message to the queue of its source; accepted by the service when this returns.

        One that is refused does not keep back the others. Raises DeadLetterError if any is not safe.
        """
        by_source: dict[str, list[DeadLetter]] = {}
        for record in records:
            if record.id not in self._kept:
                by_source.setdefault(record.source, []).append(record)
        to_files: list[DeadLetter] = []
        sends = [self._send(name, some, to_files) for name, some in by_source.items()]
        results = await asyncio.gather(*sends, return_exceptions=True)
        await self._write(to_files)
        for error in results:
            if error is not None:
                raise error
        self._kept.difference_update(record.id for record in records)

    async def probe(self) -> None:
        """See that each queue is there, as far as the credentials may, and that files can be written.

        Whether messages may be added cannot be known without adding one: credentials that may not even look pass for
        good, and so do those that may only look. Without the right to add, `append` says so. Raises SettingsError
        too: a source's dead-letter queue is not named.
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
        queues, self._open = self._open, {}
        for queue in queues.values():
            await queue.close()
        await self._files.close()

    async def _queue(self, name: str) -> Source:
        async with self._opening:
            if name not in self._open:
                letters = self._queues[name]
                queue = letters.make(await letters.settings())
                try:
                    await queue.open()
                except BaseException:
                    await queue.close()
                    raise
                self._open[name] = queue
        return self._open[name]

    async def _send(self, name: str, records: Sequence[DeadLetter], to_files: list[DeadLetter]) -> None:
        """Send what the source's queue can carry, and add the rest to `to_files`."""
        try:
            queue = await self._queue(name)
            largest = queue.capabilities.largest_message
            made = [(record, self._queues[name].outgoing(record, largest=largest)) for record in records]
            to_files += [record for record, message in made if message is None]
            await self._send_all(queue, [(record, message) for record, message in made if message is not None])
        except (SourceError, SettingsError) as error:
            raise DeadLetterError(f"dead-letter queue: {error}") from error

    async def _send_all(self, queue: Source, messages: Sequence[tuple[DeadLetter, Outgoing]]) -> None:
        errors: list[SourceError] = []
        for start in range(0, len(messages), _SENDS):
            batch = messages[start : start + _SENDS]
            answers = await _send_each(queue, [message for _, message in batch])
            self._remember(record for (record, _), error in zip(batch, answers, strict=True) if error is None)
            errors += [error for error in answers if error is not None]
            if any(isinstance(error, SourceUnavailable) for error in errors):
                break  # it is not about the message: the rest would only wait for the same
        if errors:
            raise errors[0]

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


async def _send_each(queue: Source, messages: Sequence[Outgoing]) -> list[SourceError | None]:
    if isinstance(queue, SendingEach):
        return await queue.send_each(messages)
    return list(await asyncio.gather(*(_send_one(queue, message) for message in messages)))


async def _send_one(queue: Source, message: Outgoing) -> SourceError | None:
    try:
        await queue.send([message])
    except SourceError as error:
        return error
    return None
