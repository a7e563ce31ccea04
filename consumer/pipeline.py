"""One event from its handlers to a durable outcome: alone, or sharing a transaction with others in hand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from consumer.alone import Alone, known, row
from consumer.errors import DatabaseUnavailable
from consumer.failures import describe
from consumer.ops.liveness import Spells
from consumer.outcomes import GivenBack, Handled, Lost, Verdict, WillRetry
from consumer.running import LeaseLapsed, Runner

if TYPE_CHECKING:
    from consumer.database import Database
    from consumer.deliveries import Done, Item
    from consumer.inbox import Inbox, UnitOfWork

__all__ = ["Pipeline"]

_log = structlog.get_logger("pipeline")

_GROUP_MOST = 100
_GROUP_SECONDS = 1.0
"""How long the handlers of a group may take together before each runs alone instead."""
_CROWD = 50
_TRIAL = 0.025
"""So many runs alone may begin within so many seconds: thousands that begin together make one another slow, and a
handler that seems slow is never grouped."""


class Pipeline:
    """Takes opened envelopes and finds out, durably, what becomes of each.

    `submit` is for a worker with many in hand; `outcome` handles one and answers (replay, tests). A group of
    deliveries may share a transaction, which effects and outcomes do not show: whenever anything in a group fails, is
    slow or loses a race, the whole is rolled back and each runs alone, and only runs alone count as attempts.
    """

    def __init__(
        self, *, database: Database, inbox: Inbox, runner: Runner, retry_base: float = 1.0, retry_cap: float = 900.0
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._runner = runner
        self.spans = runner.spans
        """Where the spans of what goes this way are opened."""
        self._ready: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._in_hand: dict[bytes, deque[Item]] = {}
        self._alone: set[asyncio.Task[None]] = set()
        self._trial_began = 0.0
        self._trials = 0
        self._ended = False
        self._taken = 0
        self._work_under_way = Spells()
        self._one = Alone(database=database, inbox=inbox, runner=runner, retry_base=retry_base, retry_cap=retry_cap)

    # Many at once

    def submit(self, item: Item, done: Done) -> None:
        """Take an envelope that has an event and handlers; `done` is called once with its verdict.

        An event whose key is in hand already waits for the first one's outcome.
        """
        if self._ended:
            done(item, GivenBack("stopped"))
            return
        item.done = done
        twins = self._in_hand.get(item.key)
        if twins is not None:
            twins.append(item)
            return
        self._in_hand[item.key] = deque()
        self._ready.append(item)
        self._wake.set()

    def withdraw(self, source: str) -> list[Item]:
        """Take back, unhandled, everything of a source that has not started; `done` is not called for those."""
        taken = []
        for twins in self._in_hand.values():  # first, or the next of a key would take the place of one taken below
            mine = [item for item in twins if item.route.source == source]
            for item in mine:
                twins.remove(item)
            taken += mine
        ready = [item for item in self._ready if item.route.source == source and not item.ran]
        if ready:
            gone = set(map(id, ready))
            self._ready = deque(item for item in self._ready if id(item) not in gone)
        for item in ready:
            self._next_of_key(item.key)
        return taken + ready

    @property
    def standing(self) -> tuple[int | None, int] | None:
        """What changes as work goes on; None while there is none, or it may be waiting for a handler that runs.

        Handlers are watched by their own time limits. A database that has a run begin again, ten times perhaps and
        after half a minute each, does answer.
        """
        oldest = self._work_under_way.oldest
        if self._runner.runs or (oldest is None and not self._ready):
            return None
        return (None, self._taken) if oldest is None else (oldest, self._one.refusals)

    async def run(self) -> None:
        """Work on what is submitted until cancelled; then handlers are cancelled and awaited."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._database.writers):
                    tasks.create_task(self._work())
        finally:
            for task in self._alone:
                task.cancel()
            await asyncio.gather(*self._alone, return_exceptions=True)
            self._ended = True
            for item in [*self._ready, *(twin for twins in self._in_hand.values() for twin in twins)]:
                if item.done is not None:
                    self.spans.concluded(item, GivenBack("stopped"))
                    item.done(item, GivenBack("stopped"))
            self._ready.clear()
            self._in_hand.clear()

    async def _work(self) -> None:
        while True:
            if not self._ready:
                self._wake.clear()
                await self._wake.wait()
            group = self._take()
            self._taken += 1
            if len(group) == 1 and not group[0].ran:
                self._start_alone(group[0])
            elif group:
                await self._run_group(group)
            elif self._ready:
                await asyncio.sleep(_TRIAL)
            # Handlers that never wait would otherwise keep receives and settlements from their turn.
            await asyncio.sleep(0)

    def _take(self) -> list[Item]:
        group: list[Item] = []
        while self._ready and len(group) < _GROUP_MOST:
            item = self._ready.popleft()
            if item.ran or self._may_share(item):
                group.append(item)
            elif self._is_crowded():
                self._ready.appendleft(item)
                break
            else:
                self._start_alone(item)
        return group

    def _is_crowded(self) -> bool:
        """Whether enough runs alone have begun lately; if not, count one more."""
        now = time.monotonic()
        if now - self._trial_began >= _TRIAL:
            self._trial_began, self._trials = now, 0
        self._trials += 1
        return self._trials > _CROWD

    @staticmethod
    def _may_share(item: Item) -> bool:
        if item.suspect:
            return False
        return all(handler.max_concurrency is None and handler.pace.groupable for handler in item.handlers)

    async def _run_group(self, group: Sequence[Item]) -> None:
        """Handle a group in one transaction; members that cannot share it are started alone."""
        try:
            with self._work_under_way.under_way():
                await self._share(group)
        except DatabaseUnavailable as error:
            self._finish_open(group, GivenBack(type(error).__name__))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                self._finish_open(group, GivenBack("stopped"))
                raise
            self._scatter(group)
        except Exception as error:  # noqa: BLE001 - it shows again, alone, where it can be pinned to one event
            _log.debug("group_discarded", **describe(error))
            self._scatter(group)
        else:
            self._finish_open(group, Handled())

    async def _share(self, group: Sequence[Item]) -> None:
        """Run a group in one transaction. What the inbox knows already is finished on the way."""
        fresh = [item for item in group if not item.ran]
        seen = await self._inbox.lookup([item.key for item in fresh]) if fresh else {}
        for item in fresh:
            verdict = known(item, seen.get(item.key))
            if verdict is not None:
                self._finish(item, verdict)
        members = [item for item in group if item.done is not None]
        if not members:
            return
        async with self._inbox.transaction() as unit:
            async with asyncio.timeout(_GROUP_SECONDS):
                for item in members:
                    if not item.ran:
                        if item.held.lapsed:
                            raise LeaseLapsed
                        await self._run_member(item, unit)
            await unit.commit([row(item, seen.get(item.key)) for item in members])

    async def _run_member(self, item: Item, unit: UnitOfWork) -> None:
        try:
            with self.spans.handling(item):
                await self._runner.run_grouped(item, unit)
                await unit.flush_member()
        except BaseException:
            for handler in item.handlers:
                handler.pace.failed()
            raise

    def _finish_open(self, group: Iterable[Item], verdict: Verdict) -> None:
        for item in group:
            if item.done is not None:
                self._finish(item, verdict)

    def _scatter(self, items: Iterable[Item]) -> None:
        for item in items:
            if item.done is not None:
                self._start_alone(item)

    def _start_alone(self, item: Item) -> None:
        task = asyncio.create_task(self._finish_alone(item))
        self._alone.add(task)
        item.held.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._alone.discard(task)
            item.held.tasks.discard(task)
            if task.cancelled():
                self._finish(item, Lost() if item.held.lost else GivenBack("stopped"))

        task.add_done_callback(ended)

    async def _finish_alone(self, item: Item) -> None:
        try:
            with self._work_under_way.under_way():
                verdict = await self._one.verdict(item, defer=True)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not lose the delivery or stop the worker
            _log.error("pipeline_failed", event_id=item.event_id, **describe(error))
            verdict = GivenBack("internal error")
        if verdict is None:
            # Only its inbox row is missing, which the next group writes.
            self._ready.append(item)
            self._wake.set()
        else:
            self._finish(item, verdict)

    def _finish(self, item: Item, verdict: Verdict) -> None:
        done, item.done = item.done, None
        if done is None:
            return
        self._one.settled(item, verdict)
        self.spans.concluded(item, verdict)
        twins: Iterable[Item] = ()
        if isinstance(verdict, WillRetry):
            # Repeats of it wait as long: run now, they would use up its attempts without a pause.
            twins, self._in_hand[item.key] = self._in_hand.get(item.key, ()), deque()
        self._next_of_key(item.key)
        done(item, verdict)
        for twin in twins:
            self._finish_twin(twin, verdict)

    @staticmethod
    def _finish_twin(twin: Item, verdict: Verdict) -> None:
        done, twin.done = twin.done, None
        if done is not None:
            done(twin, verdict)

    def _next_of_key(self, key: bytes) -> None:
        twins = self._in_hand.get(key)
        if not twins:
            self._in_hand.pop(key, None)
            return
        self._ready.append(twins.popleft())
        self._wake.set()

    async def outcome(self, item: Item) -> Verdict:
        """Handle one envelope alone and say what became of it. For callers without a running `run`."""
        while True:
            verdict = await self._one.verdict(item, defer=False)
            if verdict is not None:
                self._one.settled(item, verdict)
                self.spans.concluded(item, verdict)
                return verdict
