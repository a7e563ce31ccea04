"""The `local` kind: a durable queue in one SQLite file, for development, tests, demos and small installations.

Any number of processes may send to it and consume from it at once. It behaves as SQS does: a received message is
invisible for the visibility timeout, each receive makes the receipts before it worthless, and messages with an
ordering key come in order, none of a key while another of it is held. `Outgoing.deduplication_id` is not looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from consumer.durations import parse_duration
from consumer.errors import SettingsError, SourceError, SourceRefused, SourceUnavailable
from consumer.sources.base import Capabilities, Depth, Finding, Message, Outgoing, SettleFailure
from consumer.sources.local_queue import QueueFile

if TYPE_CHECKING:
    from consumer.settings import SourceSettings

__all__ = ["LocalSource"]

_T = TypeVar("_T")

_POLL_WAIT: Final = 1.0
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.25  # between looks for what other processes did; a look costs some 0.5 ms of CPU
_MAX_DELAY: Final = 365 * 86_400.0
_BATCH: Final = 100

_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_PASSING: Final = _BUSY | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL}
_PASSING_ERRNO: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE})


class LocalSource:
    """A queue in one SQLite file; satisfies `consumer.sources.base.Source`.

    `settings` are the source's, resolved. `options.retention` (a duration) makes the queue forget messages as SQS
    does; without it they are kept for ever. `clock` is the wall clock, in seconds, which all processes share.
    """

    kind = "local"

    def __init__(self, settings: SourceSettings, *, clock: Callable[[], float] = time.time) -> None:
        self.name = settings.name
        if settings.path is None:
            raise SettingsError(f"sources.{self.name}.path: expected the file that holds the queue")
        self._path = Path(settings.path)
        self._visibility = float(settings.visibility_timeout)
        self._poll_wait = min(float(settings.poll_wait), _POLL_WAIT)
        self._retention = _retention(settings)
        self._clock = clock
        self._file: QueueFile | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._news = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._interrupted = False
        self._waiting_since: float | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the local queue can do; the delay is bounded only to catch mistakes."""
        return Capabilities(
            receive_batch=_BATCH,
            settle_batch=_BATCH,
            max_delay=_MAX_DELAY,
            poll_wait=self._poll_wait,
            max_receives=1,
            max_settles=1,
        )

    async def open(self) -> None:
        """Open the file, making it and its folder when missing."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"queue-{self.name}")
        await self._in_thread(QueueFile.probe)

    async def receive(self, limit: int) -> list[Message]:
        """Wait up to a second for messages and hand out as many as there are, at most `limit`."""
        deadline = time.monotonic() + self._poll_wait
        while not self._interrupted:
            self._news.clear()
            messages, due_in = await self._in_thread(lambda queue: self._take(queue, min(limit, _BATCH)))
            left = deadline - time.monotonic()
            if messages or left <= 0:
                self._pause = _FIRST_PAUSE if messages else self._pause
                return messages
            if await self._news_within(min(left, self._pause, max(due_in, 0.001))):
                self._pause = _FIRST_PAUSE
            else:
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        return []

    def interrupt(self) -> None:
        """Make the receive under way return now, and later ones return nothing."""
        self._interrupted = True
        self._news.set()

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Delete messages; on disk when this returns."""
        receipts = [message.receipt for message in messages]
        settled = await self._in_thread(lambda queue: queue.acknowledge(receipts))
        if any(message.ordering_key is not None for message in messages):
            self._news.set()
        return _failures(messages, settled)

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew leases, also one that lapsed while nobody else received the message."""
        receipts = [message.receipt for message in messages]
        lease_until = time.monotonic() + self._visibility
        now = self._clock()
        settled = await self._in_thread(lambda queue: queue.extend(receipts, now=now, lease=self._visibility))
        for message, done in zip(messages, settled, strict=True):
            if done:
                message.lease_until = lease_until
        return _failures(messages, settled)

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Give messages back; with no delay they also get back their place in the queue."""
        receipts = [message.receipt for message in messages]
        now, delay = self._clock(), min(delay, _MAX_DELAY)
        settled = await self._in_thread(lambda queue: queue.release(receipts, now=now, delay=delay))
        self._news.set()
        return _failures(messages, settled)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Append messages, all or none; on disk when this returns."""
        await self._in_thread(lambda queue: queue.send(messages, now=self._clock()))
        self._news.set()

    async def depth(self) -> Depth:
        """Count the messages; exact."""
        now = self._clock()
        depth, self._waiting_since = await self._in_thread(
            lambda queue: (queue.depth(now=now), queue.waiting_since(now=now))
        )
        return depth

    def waiting_since(self) -> datetime | None:
        """When the oldest message that nobody held was sent, as of the last `depth`."""
        return None if self._waiting_since is None else datetime.fromtimestamp(self._waiting_since, UTC)

    async def check(self) -> list[Finding]:
        """Whether the file can be written, and whether others can read it."""
        try:
            await self._in_thread(QueueFile.probe)
            mode = stat.S_IMODE(self._path.stat().st_mode)
        except (SourceError, OSError) as error:
            return [Finding(name="queue file", ok=False, detail=str(error))]
        findings = [Finding(name="queue file", ok=True, detail=f"{self._path} can be written")]
        if mode & 0o077:
            detail = f"{self._path} has mode {mode:04o}; it holds health data: chmod 600"
            findings.append(Finding(name="queue file mode", ok=False, detail=detail, warning=True))
        return findings

    async def close(self) -> None:
        """Close the file. Messages still held come back when their leases lapse."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        await asyncio.get_running_loop().run_in_executor(thread, self._discard)
        thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[QueueFile], _T]) -> _T:
        """Run one piece of work on the open file in the source's own thread."""
        if self._thread is None:
            raise SourceUnavailable(f"source {self.name} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[QueueFile], _T]) -> _T:
        try:
            return work(self._opened())
        except SourceError as error:
            self._discard()
            raise type(error)(f"source {self.name}: {error}") from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code not in _BUSY:
                self._discard()  # the next call opens the file anew, which is how it recovers
            kind = SourceUnavailable if code in _PASSING else SourceRefused
            raise kind(f"source {self.name}: {self._path}: {error}") from error
        except OSError as error:
            self._discard()
            kind = SourceUnavailable if error.errno in _PASSING_ERRNO else SourceRefused
            raise kind(f"source {self.name}: {self._path}: {error.strerror}") from error

    def _opened(self) -> QueueFile:
        if self._file is None:
            self._file = QueueFile(self._path, retention=self._retention)
        elif self._file.replaced:
            raise SourceRefused(f"{self._path} was removed or replaced while it was in use")
        return self._file

    def _discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(sqlite3.Error):
                file.close()

    def _take(self, queue: QueueFile, limit: int) -> tuple[list[Message], float]:
        """Hand out what there is, and tell in how many seconds there will be more."""
        lease_until = time.monotonic() + self._visibility  # read before the lease begins, so never too long
        now = self._clock()
        messages = queue.take(limit, now=now, lease=self._visibility, lease_until=lease_until)
        return messages, math.inf if messages else queue.next_due() - now

    async def _news_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._news.wait()
        return False


def _retention(settings: SourceSettings) -> float | None:
    text = settings.options.get("retention")
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise SettingsError(f"sources.{settings.name}.options.retention: {error}") from None


def _failures(messages: Sequence[Message], settled: Sequence[bool]) -> list[SettleFailure]:
    kind: Literal["gone"] = "gone"
    return [
        SettleFailure(message, kind, "ReceiptHandleIsInvalid")
        for message, done in zip(messages, settled, strict=True)
        if not done
    ]
