"""Handling dead letters again: each enters where its message once did, and is proven and looked up as it was then.

Replay writes no dead letters and counts no attempts. What became of a line goes to the fates of its segment: a line
that was handled, now or before, is done; every other stays for the next replay. A fate that a crash kept from being
written is found in the inbox again, so nothing takes effect twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import structlog

from consumer.dead_letters.archive import Archive, Entry, Problem, Unseal
from consumer.dead_letters.fates import DONE
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, open_sealed
from consumer.deliveries import Held, Item
from consumer.errors import DatabaseError, DeadLetterError
from consumer.failures import describe
from consumer.lanes import member_lane
from consumer.opening import open_message
from consumer.outcomes import DeadLettered, Duplicate, GivenBack, Handled, Verdict
from consumer.parking import ParkedLanes
from consumer.pipeline import Pipeline
from consumer.route import Route
from consumer.sources.base import Message

__all__ = ["FATES", "NO_SOURCE", "READY", "SEALED", "STALE", "TOO_OLD", "Line", "Opener", "Replay", "select"]

HANDLED: Final = "handled"
DUPLICATE: Final = "duplicate"
FAILED: Final = "failed"
STALE: Final = "stale"
TOO_OLD: Final = "too_old"
NO_SOURCE: Final = "no_source"
SEALED: Final = "sealed"
READY: Final = "ready"
"""Not a fate: the line opens, and a replay would hand it to its handlers."""

FATES: Final[Mapping[str, str]] = {
    HANDLED: "it took effect",
    DUPLICATE: "it had taken effect before",
    FAILED: "a handler failed or asked for a retry: see the log",
    STALE: "signed too long before, or after, its queue accepted it: --accept-stale checks the signature only",
    TOO_OLD: "older than inbox.retention or dead_letters.max_age: the inbox cannot tell any more if it took effect",
    NO_SOURCE: "its source is not configured",
    SEALED: "dead_letters.identity_file is not set, or does not fit",
}
"""What can become of a line, in words, besides the dead-letter reasons."""

_T = TypeVar("_T")

_BATCH: Final = 16
_FATES_AT_ONCE: Final = 64
_PAUSES: Final = (0.5, 1.0, 2.0)
_LONGEST_PAUSE: Final = 60.0
# The inbox forgets by the database's clock, and a time of signing may be some minutes ahead.
_MARGIN: Final = timedelta(hours=1)


def select(
    archive: Archive, chosen: Filter, *, unseal: Unseal | None = None, hold: bool = False
) -> Generator[Entry | Problem, None, None]:
    """Yield the chosen dead letters that are not done yet, and what cannot be read; a limit counts the former.

    `hold` is for those that are to be replayed: see `Archive.read`. Raises NotConfigured when a filter by user meets a
    sealed line and there is no `unseal`, DeadLetterError when the archive cannot be read.
    """
    left = chosen.limit
    with closing(archive.read(replace(chosen, limit=None), unseal=unseal, hold=hold)) as lines:
        for found in lines:
            if isinstance(found, Entry):
                if found.fate in DONE:
                    continue
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
            yield found


@dataclass(frozen=True, slots=True)
class Line:
    """A dead letter, opened as far as it opens."""

    entry: Entry
    fate: str | None
    """Set when nothing is to be run: what becomes of the line is known."""
    items: Sequence[Item] = ()
    lane: str | None = None

    @property
    def prospect(self) -> str:
        """What a replay would make of it before any handler is asked: a fate, or `READY`."""
        verdicts = [item.verdict for item in self.items]
        bad = next((verdict for verdict in verdicts if verdict is not None and _fate(verdict) not in DONE), None)
        return self.fate or (READY if bad is None else _fate(bad))


class Opener:
    """Takes a dead letter to its events, as the worker does with a message.

    `routes` are the configured sources', by name. `retention` and `max_age`, in seconds, are how long the inbox
    remembers and how long dead letters may be replayed; None is for ever. With `accept_stale` signatures are checked
    and ages are not.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        unseal: Unseal | None = None,
        accept_stale: bool = False,
        retention: float | None = None,
        max_age: float | None = None,
    ) -> None:
        self._routes = {
            name: replace(route, any_age=accept_stale, counts_attempts=False) for name, route in routes.items()
        }
        self._unseal = unseal
        self._accept_stale = accept_stale
        self._retention = None if retention is None else timedelta(seconds=retention) - _MARGIN
        self._max_age = None if max_age is None else timedelta(seconds=max_age)

    def open(self, entry: Entry, *, now: datetime) -> Line:
        """Open one line. Never raises for anything it holds."""
        record = entry.record
        route = self._routes.get(record.source)
        if route is None:
            return Line(entry, NO_SOURCE)
        first = min(record.accepted_at, record.first_received_at)
        if self._forgotten(first, now) or (self._max_age is not None and now - record.dead_lettered_at > self._max_age):
            return Line(entry, TOO_OLD)
        if record.reason == STALE and not self._accept_stale:
            return Line(entry, STALE)
        if isinstance(record, SealedDeadLetter):
            opened = self._opened(record)
            if opened is None:
                return Line(entry, SEALED)
            record = opened
        message = _message(record)
        items = open_message(Held(message, received_at=time.monotonic()), route)
        if any(item.signed_at is not None and self._forgotten(item.signed_at, now) for item in items):
            # An old message sent to the queue again: it was accepted lately, but may have been handled long ago.
            return Line(entry, TOO_OLD)
        return Line(entry, None, items, _lane(record, items, route))

    def _forgotten(self, at: datetime, now: datetime) -> bool:
        return self._retention is not None and now - at > self._retention

    def _opened(self, record: SealedDeadLetter) -> DeadLetter | None:
        if self._unseal is None:
            return None
        try:
            return open_sealed(record, self._unseal)
        except DeadLetterError:
            return None


class Replay:
    """Runs dead letters through the pipeline, some at once; those of one lane, or of one event, in their order.

    `archive` is where they are from, and where their fates go. `lanes` has the sources whose lanes stay closed after a
    dead letter: one that is done opens its lane. `told` hears of each line what became of it. Trouble of our own is
    waited out for `pauses` (seconds); then the replay stops.
    """

    def __init__(
        self,
        *,
        archive: Archive,
        opener: Opener,
        pipeline: Pipeline,
        lanes: Mapping[str, ParkedLanes] | None = None,
        told: Callable[[Entry, str], None] = lambda _entry, _fate: None,
        at_once: int = 10,
        pauses: Sequence[float] = _PAUSES,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """How many lines had which fate."""
        self.trouble: str | None = None
        """What stopped the replay, if it was stopped by trouble that is no line's fault."""
        self._archive = archive
        self._opener = opener
        self._pipeline = pipeline
        self._lanes = lanes or {}
        self._told = told
        self._pauses = pauses
        self._room = asyncio.Semaphore(at_once)
        self._stopping = asyncio.Event()
        self._last: dict[object, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._fates: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def stop(self) -> None:
        """Begin no more lines; those in hand are finished and their fates written."""
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        """Whether it was stopped."""
        return self._stopping.is_set()

    async def run(self, lines: Generator[Entry | Problem, None, None]) -> None:
        """Replay the archive's lines; returns when all are done, or those in hand after a `stop`.

        The archive is read and written in a thread of its own. Raises DeadLetterError when it cannot be read or a fate
        cannot be written; what took effect stays known to the inbox.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="replay") as thread:
            try:
                await self._begin_all(lines, thread)
            finally:
                while self._tasks:
                    await asyncio.wait(self._tasks)
                try:
                    await self._write_fates(thread)
                finally:
                    await _in(thread, lines.close)

    async def _begin_all(self, lines: Generator[Entry | Problem, None, None], thread: ThreadPoolExecutor) -> None:
        """Begin one line after the other, as there is room; a few are read ahead."""
        while batch := await _in(thread, lambda: list(islice(_only(lines), _BATCH))):
            for entry in batch:
                await self._room.acquire()
                if self.stopping:
                    return
                self._begin(entry)
                if sum(map(len, self._fates.values())) >= _FATES_AT_ONCE:
                    await self._write_fates(thread)

    def _begin(self, entry: Entry) -> None:
        line = self._opener.open(entry, now=datetime.now(UTC))
        keys: list[object] = [item.key for item in line.items if item.key]
        if line.lane is not None:
            keys.append((entry.record.source, line.lane))
        earlier = {self._last[key] for key in keys if key in self._last}
        task = asyncio.create_task(self._handle(line, earlier))
        self._tasks.add(task)
        self._last.update(dict.fromkeys(keys, task))

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for key in keys:
                if self._last.get(key) is task:
                    del self._last[key]
            self._room.release()

        task.add_done_callback(ended)

    async def _handle(self, line: Line, earlier: set[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        try:
            fate = line.fate or await self._run(line)
        except DatabaseError as error:
            self._troubled(type(error).__name__)
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours must neither lose the line nor go unsaid
            structlog.get_logger("replay").error("replay_failed", id=line.entry.record.id, **describe(error))
            self._troubled("internal error")
            return
        if fate is not None:
            self._conclude(line.entry, fate)

    async def _run(self, line: Line) -> str | None:
        """The line's fate, or None when trouble of our own kept it from having one."""
        fates = []
        for item in line.items:
            verdict = item.verdict or await self._outcome(item)
            if isinstance(verdict, GivenBack):
                self._troubled(verdict.why if verdict.detail is None else f"{verdict.why}: {verdict.detail}")
                return None
            fates.append(_fate(verdict))
        undone = [fate for fate in fates if fate not in DONE]
        if undone:
            return undone[0]
        parked = self._lanes.get(line.entry.record.source)
        if parked is not None and line.lane is not None:
            await parked.open(line.lane)
        return HANDLED if HANDLED in fates else DUPLICATE

    async def _outcome(self, item: Item) -> Verdict:
        for pause in self._pauses:
            if self.stopping:
                return GivenBack("stopped")
            verdict = await self._pipeline.outcome(item)
            if not isinstance(verdict, GivenBack):
                return verdict
            await self._rest(max(pause, min(verdict.retry_after or 0.0, _LONGEST_PAUSE)))
        return GivenBack("stopped") if self.stopping else await self._pipeline.outcome(item)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _troubled(self, why: str) -> None:
        if not self.stopping:
            self.trouble = why
        self.stop()

    def _conclude(self, entry: Entry, fate: str) -> None:
        self.counts[fate] += 1
        if fate not in (entry.fate, SEALED):
            self._fates[entry.segment][entry.record.id] = fate
        self._told(entry, fate)

    async def _write_fates(self, thread: ThreadPoolExecutor) -> None:
        while self._fates:
            segment, fates = self._fates.popitem()
            await _in(thread, partial(self._archive.record_fates, segment, fates))


async def _in(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


def _only(lines: Iterator[Entry | Problem]) -> Iterator[Entry]:
    return (found for found in lines if isinstance(found, Entry))


def _lane(record: DeadLetter, items: Sequence[Item], route: Route) -> str | None:
    """The lane the message was in. Of an array's part whose record does not say, it may be another member's."""
    lane = record.attributes.get("lane")
    if lane is None and route.lane_by_member:
        return member_lane(items)
    if lane is None:
        lane = record.attributes.get("ordering_key")
    return lane if isinstance(lane, str) else None


def _message(record: DeadLetter) -> Message:
    def text(value: Any) -> str | None:
        return value if isinstance(value, str) else None

    return Message(
        body=record.message,
        message_id=text(record.attributes.get("message_id")) or record.id,
        receipt=None,
        accepted_at=record.accepted_at,
        receive_count=0,  # no queue hands it out, so there is no count to suspect it by
        ordering_key=text(record.attributes.get("ordering_key")),
        headers={name: value for name, value in record.headers.items() if isinstance(value, str)},
    )


def _fate(verdict: Verdict) -> str:
    if isinstance(verdict, Handled):
        return HANDLED
    if isinstance(verdict, Duplicate):
        return DUPLICATE
    return verdict.reason if isinstance(verdict, DeadLettered) else FAILED
