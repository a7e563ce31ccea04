"""One event from its handlers to a durable outcome: alone, or sharing a transaction with others in hand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from consumer.errors import DatabaseConflict, DatabaseError, DatabaseUnavailable
from consumer.failures import describe
from consumer.inbox import InboxRow, LostRace, Seen
from consumer.outcomes import (
    DeadLettered,
    Duplicate,
    GivenBack,
    Handled,
    Lost,
    Reject,
    Retry,
    Unavailable,
    Verdict,
    WillRetry,
)
from consumer.retry import backoff
from consumer.running import HandlerFailed, LeaseLapsed, Runner

if TYPE_CHECKING:
    from consumer.database import Database
    from consumer.deliveries import Done, Item
    from consumer.inbox import Inbox, UnitOfWork

__all__ = ["Pipeline"]

_log = structlog.get_logger("pipeline")

_GROUP_MOST = 100
_GROUP_SECONDS = 1.0
"""How long the handlers of a group may take together before each runs alone instead."""
_CONFLICTS = 10
_CRASHES = 3
_TROUBLES = 3
_REMEMBERED = 10_000


class Pipeline:
    """Takes opened envelopes and finds out, durably, what becomes of each.

    `submit` is for a worker with many in hand; `outcome` handles one and answers (replay, tests). A group of
    deliveries may share a transaction, which nobody can observe: whenever anything in a group fails, is slow or
    loses a race, the whole is rolled back and each runs alone, and only runs alone count as attempts.
    """

    def __init__(
        self, *, database: Database, inbox: Inbox, runner: Runner, retry_base: float = 1.0, retry_cap: float = 900.0
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._runner = runner
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._ready: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._in_hand: dict[bytes, deque[Item]] = {}
        self._alone: set[asyncio.Task[None]] = set()
        self._suspects = asyncio.Lock()
        self._ended = False
        self._successes = 0
        self._troubles: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

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
                    item.done(item, GivenBack("stopped"))
            self._ready.clear()
            self._in_hand.clear()

    async def _work(self) -> None:
        while True:
            if not self._ready:
                self._wake.clear()
                await self._wake.wait()
            group = self._take()
            if len(group) == 1 and not group[0].ran:
                self._start_alone(group[0])
            elif group:
                await self._run_group(group)
            # Handlers that never wait would otherwise keep receives and settlements from their turn.
            await asyncio.sleep(0)

    def _take(self) -> list[Item]:
        group: list[Item] = []
        while self._ready and len(group) < _GROUP_MOST:
            item = self._ready.popleft()
            if item.ran or self._may_share(item):
                group.append(item)
            else:
                self._start_alone(item)
        return group

    @staticmethod
    def _may_share(item: Item) -> bool:
        if item.held.message.receive_count > item.route.max_receives:
            return False
        return all(handler.max_concurrency is None and handler.pace.groupable for handler in item.handlers)

    async def _run_group(self, group: Sequence[Item]) -> None:
        """Handle a group in one transaction; members that cannot share it are started alone."""
        try:
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
            verdict = self._known(item, seen.get(item.key))
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
            await unit.commit([self._row(item, seen.get(item.key)) for item in members])

    async def _run_member(self, item: Item, unit: UnitOfWork) -> None:
        try:
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
            verdict = await self._alone_verdict(item)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not lose the delivery or stop the worker
            _log.error("pipeline_failed", event_id=item.event_id, **describe(error))
            verdict = GivenBack("internal error")
        if verdict is not None:
            self._finish(item, verdict)

    def _finish(self, item: Item, verdict: Verdict) -> None:
        done, item.done = item.done, None
        if done is None:
            return
        self._settle_counts(item, verdict)
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

    def _settle_counts(self, item: Item, verdict: Verdict) -> None:
        if isinstance(verdict, Handled):
            self._successes += 1
            item.route.guard.handled()
        if not isinstance(verdict, GivenBack | Lost):
            self._troubles.pop(item.key, None)

    # One at a time

    async def outcome(self, item: Item) -> Verdict:
        """Handle one envelope alone and say what became of it. For callers without a running `run`."""
        while True:
            verdict = await self._alone_verdict(item, defer=False)
            if verdict is not None:
                self._settle_counts(item, verdict)
                return verdict

    async def _alone_verdict(self, item: Item, *, defer: bool = True) -> Verdict | None:
        """The verdict of a run alone, or None when only the inbox row is missing, which a group will write.

        A deadlock, a serialization failure, a lock or a commit in doubt starts again from the inbox; it is not an
        attempt.
        """
        trouble: DatabaseError | None = None
        for turn in range(_CONFLICTS):
            try:
                return await self._attempt(item, defer=defer)
            except (LostRace, DatabaseConflict) as error:
                trouble = error
                await asyncio.sleep(backoff(turn + 1, base=0.02, cap=1.0))
            except DatabaseError as error:
                return await self._blame(item, error)
        return await self._blame(item, trouble or DatabaseConflict("the database keeps refusing the transaction"))

    async def _attempt(self, item: Item, *, defer: bool) -> Verdict | None:
        seen = (await self._inbox.lookup([item.key])).get(item.key)
        verdict = self._known(item, seen)
        if verdict is not None:
            return verdict
        if item.held.message.receive_count > item.route.max_receives and item.attempt == 1:
            # One at a time, or each would be blamed for the crash that another one causes.
            async with self._suspects:
                return await self._attempt_suspect(item, seen, defer=defer)
        return await self._run_alone(item, seen, defer=defer)

    async def _attempt_suspect(self, item: Item, seen: Seen | None, *, defer: bool) -> Verdict | None:
        """Run what may have crashed the worker, its start recorded first."""
        if item.held.lapsed:
            return Lost()
        if await self._inbox.record_start(item.key) >= _CRASHES:
            return DeadLettered("crashed", "the worker ended every time while it handled this event")
        try:
            # `Seen`: the start that was recorded goes with the commit.
            verdict = await self._run_alone(item, seen or Seen(), defer=defer)
        except BaseException:
            await asyncio.shield(self._inbox.clear_starts([item.key]))
            raise
        if isinstance(verdict, GivenBack | Lost | DeadLettered | None):
            await self._inbox.clear_starts([item.key])
        return verdict

    async def _run_alone(self, item: Item, seen: Seen | None, *, defer: bool) -> Verdict | None:
        try:
            async with self._inbox.transaction() as unit:
                if not item.ran:
                    await self._runner.run_alone(item, unit)
                    if defer and not unit.touched:
                        item.ran = True
                        self._ready.append(item)
                        self._wake.set()
                        return None
                await unit.commit([self._row(item, seen)])
        except LeaseLapsed:
            return Lost()
        except HandlerFailed as failed:
            return await self._judge(item, failed)
        except (LostRace, DatabaseError):
            raise
        except Exception as error:  # noqa: BLE001 - a constraint checked at flush or commit is the handler's
            trouble = self._database.classify(error)
            if trouble is not None:
                raise trouble from None
            name = item.handlers[-1].name if item.handlers else None
            return await self._failed(item, None, HandlerFailed(name or "", error))
        return Handled()

    async def _judge(self, item: Item, failed: HandlerFailed) -> Verdict:
        """What a handler meant by raising."""
        error = failed.error
        if isinstance(error, Retry):
            return await self._failed(item, error.delay, None)
        if isinstance(error, Reject):
            return DeadLettered("rejected", error.detail)
        if isinstance(error, Unavailable):
            return await self._blame(item, error, retry_after=error.retry_after, failed=failed)
        trouble = error if isinstance(error, DatabaseError) else self._database.classify(error)
        if isinstance(trouble, DatabaseConflict):
            raise trouble from None
        if trouble is not None:
            return await self._blame(item, trouble, failed=failed)
        return await self._failed(item, None, failed)

    async def _failed(self, item: Item, delay: float | None, failed: HandlerFailed | None) -> Verdict:
        """Record a failed attempt; the verdict it leads to."""
        error = describe(failed.error, failed.handler) if failed else None
        if item.route.guard.suspicion == "handlers":
            return GivenBack("too many events in a row failed in handlers")
        if failed is not None:
            _log.warning(
                "handler_failed",
                source=item.route.source,
                event_id=item.event_id,
                event_type=item.event_type,
                attempt=item.attempt,
                error=error,
            )
        if not item.route.counts_attempts:
            return WillRetry(delay or 0.0)
        item.route.guard.failed(item.key)
        failures = (await self._inbox.record_failures([item.key]))[item.key]
        if failures >= item.route.max_attempts:
            return await self._exhausted(item, error)
        if delay is None:
            delay = backoff(failures, base=self._retry_base, cap=self._retry_cap)
        return WillRetry(delay)

    async def _exhausted(self, item: Item, error: dict[str, Any] | None) -> Verdict:
        """The last attempt failed; unless another worker succeeded meanwhile, the event is put aside."""
        seen = (await self._inbox.lookup([item.key])).get(item.key)
        if seen is not None and seen.body_hash == item.body_hash:
            await self._inbox.forget_attempts([item.key])
            return Duplicate()
        return DeadLettered("attempts_exhausted", None, error)

    async def _blame(
        self,
        item: Item,
        trouble: BaseException,
        *,
        retry_after: float | None = None,
        failed: HandlerFailed | None = None,
    ) -> Verdict:
        """Own trouble is not the event's fault, unless it meets it again and again while others get through."""
        troubles, successes = self._troubles.pop(item.key, (0, -1))
        if successes != self._successes:
            troubles += 1
        self._troubles[item.key] = (troubles, self._successes)
        if len(self._troubles) > _REMEMBERED:
            self._troubles.popitem(last=False)
        if troubles >= _TROUBLES and await self._healthy():
            self._troubles.pop(item.key, None)
            return await self._failed(item, None, failed or HandlerFailed("", trouble))
        return GivenBack(type(trouble).__name__, retry_after)

    async def _healthy(self) -> bool:
        try:
            await self._database.ping()
        except DatabaseError:
            return False
        return True

    @staticmethod
    def _known(item: Item, seen: Seen | None) -> Verdict | None:
        """The verdict that the inbox already knows, or None: handle it."""
        if not item.ran and item.held.lapsed:
            return Lost()
        if seen is None:
            return None
        if seen.body_hash is None:
            item.attempt = seen.failures + 1
            if seen.dead_lettered and item.route.counts_attempts:
                if item.held.several:
                    item.held.marked.append(item.key)
                return Duplicate()
            exhausted = seen.failures >= item.route.max_attempts and item.route.counts_attempts
            return DeadLettered("attempts_exhausted", "recorded before") if exhausted else None
        if seen.body_hash == item.body_hash:
            return Duplicate()
        return DeadLettered("conflicting_duplicate", "an event with this id and another body was handled before")

    @staticmethod
    def _row(item: Item, seen: Seen | None) -> InboxRow:
        return InboxRow(item.key, item.body_hash, failed_before=seen is not None or item.attempt > 1)
