"""One event, run alone: the inbox, the handlers, the commit, and what a failure of theirs means."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from consumer.errors import CredentialsRefused, DatabaseConflict, DatabaseError, NotConfigured
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
    from consumer.deliveries import Item
    from consumer.inbox import Inbox

__all__ = ["Alone", "known", "row"]

_log = structlog.get_logger("pipeline")

_CONFLICTS = 10
"""How often one run starts again after a deadlock, a lock or a commit in doubt."""
_CRASHES = 3
"""The start without an outcome that makes an event a dead letter instead."""
_TROUBLES = 3
"""How often an event may meet trouble that others do not."""
_REMEMBERED = 10_000
"""Events whose trouble is remembered; keys come from outside, so there is a bound."""
_LONGEST_WHY = 200


class _Met(NamedTuple):
    """What an event has met of trouble."""

    times: int
    """How often it met some that others did not."""
    call: str
    others: int
    """How often others got through, when it met it last."""


class Alone:
    """Runs events one by one; only these runs count as attempts."""

    def __init__(
        self, *, database: Database, inbox: Inbox, runner: Runner, retry_base: float, retry_cap: float
    ) -> None:
        self._database = database
        self._inbox = inbox
        self._runner = runner
        self._spans = runner.spans
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._suspects = asyncio.Lock()
        self._successes = Counter[str]()
        self._troubles: OrderedDict[bytes, _Met] = OrderedDict()
        self.refusals = 0
        """How often the database had a run begin again."""

    async def verdict(self, item: Item, *, defer: bool) -> Verdict | None:
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
                self.refusals += 1
                await asyncio.sleep(backoff(turn + 1, base=0.02, cap=1.0))
            except DatabaseError as error:
                return await self._blame(item, error)
        return await self._blame(item, trouble or DatabaseConflict("the database keeps refusing the transaction"))

    async def _attempt(self, item: Item, *, defer: bool) -> Verdict | None:
        seen = (await self._inbox.lookup([item.key])).get(item.key)
        verdict = known(item, seen)
        if verdict is not None:
            return verdict
        if item.suspect:
            # One at a time, or each would be blamed for the crash that another one causes.
            async with self._suspects:
                return await self._attempt_suspect(item, seen, defer=defer)
        return await self._run_alone(item, seen, defer=defer)

    async def _attempt_suspect(self, item: Item, seen: Seen | None, *, defer: bool) -> Verdict | None:
        """Run what may have crashed the worker, its start recorded first."""
        if item.held.lapsed:
            return Lost()
        if item.held.message.suspects is not None and (seen is None or not seen.failures):
            # Repeats of what was handled do not come here, so they do not use up the suspicion.
            item.held.message.suspects.left -= 1
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
                        return None
                with self._spans.handling(item):
                    await unit.commit([row(item, seen)])
        except LeaseLapsed:
            return Lost()
        except HandlerFailed as failed:
            with self._spans.judging(item):
                return await self._judge(item, failed)
        except (LostRace, DatabaseError):
            raise
        except Exception as error:  # noqa: BLE001 - a constraint checked at flush or commit is the handler's
            trouble = self._database.classify(error)
            if trouble is not None:
                raise trouble from None
            name = item.handlers[-1].name if item.handlers else None
            with self._spans.judging(item):
                return await self._failed(item, None, HandlerFailed(name or "", error))
        return Handled()

    async def _judge(self, item: Item, failed: HandlerFailed) -> Verdict:
        """What a handler meant by raising."""
        error = failed.error
        if isinstance(error, Retry):
            return await self._failed(item, error.delay, None)
        if isinstance(error, Reject):
            return DeadLettered("rejected", error.detail)
        if isinstance(error, Unavailable | CredentialsRefused | NotConfigured):
            retry_after = error.retry_after if isinstance(error, Unavailable) else None
            return await self._blame(item, error, retry_after=retry_after, failed=failed)
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
        """Own trouble is not the event's fault, unless it meets it again and again while others get through.

        Others need the same: what was gone says how often it answered them, or else the events of the same source do
        that were handled.
        """
        call, others = _evidence(trouble) or ("", self._successes[item.route.source])
        met = self._troubles.pop(item.key, None) or _Met(0, call, -1)
        times = met.times + (met.call == call and met.others != others)
        self._troubles[item.key] = _Met(times, call, others)
        if len(self._troubles) > _REMEMBERED:
            self._troubles.popitem(last=False)
        if times >= _TROUBLES and await self._healthy():
            self._troubles.pop(item.key, None)
            return await self._failed(item, None, failed or HandlerFailed("", trouble))
        return GivenBack(type(trouble).__name__, retry_after, detail=_said(trouble))

    async def _healthy(self) -> bool:
        try:
            await self._database.ping()
        except DatabaseError:
            return False
        return True

    def settled(self, item: Item, verdict: Verdict) -> None:
        """Remember what a verdict says about others: successes prove that no trouble is general."""
        if isinstance(verdict, Handled):
            self._successes[item.route.source] += 1
            item.route.guard.handled()
        if not isinstance(verdict, GivenBack | Lost):
            self._troubles.pop(item.key, None)


def _evidence(trouble: BaseException) -> tuple[str, int] | None:
    """Which call had the trouble, and how often the same one was answered; None when nobody counts that."""
    if isinstance(trouble, Unavailable) and trouble.answered is not None:
        return (trouble.why or "").partition(":")[0], trouble.answered()
    if isinstance(trouble, CredentialsRefused) and trouble.answered is not None:
        return trouble.call, trouble.answered()
    return None


def _said(trouble: BaseException) -> str | None:
    """What is gone or missing, in one short line, where our own words say so."""
    why = None
    if isinstance(trouble, Unavailable):
        why = trouble.why
    elif isinstance(trouble, CredentialsRefused | NotConfigured):
        why = str(trouble)
    return why[:_LONGEST_WHY] if why is not None and why.isprintable() else None


def known(item: Item, seen: Seen | None) -> Verdict | None:
    """The verdict that the inbox already knows, or None: handle it."""
    if not item.ran and item.held.lapsed:
        return Lost()
    if seen is None:
        return _skipped(item)
    if seen.body_hash is None:
        item.attempt = seen.failures + 1
        if seen.dead_lettered and item.route.counts_attempts:
            if item.held.several:
                item.held.marked.append(item.key)
            return Duplicate()
        exhausted = seen.failures >= item.route.max_attempts and item.route.counts_attempts
        return DeadLettered("attempts_exhausted", "recorded before") if exhausted else _skipped(item)
    if seen.body_hash == item.body_hash:
        return Duplicate()
    return DeadLettered("conflicting_duplicate", "an event with this id and another body was handled before")


def _skipped(item: Item) -> DeadLettered | None:
    """The verdict on what an operator wants skipped, unless its handlers have run already."""
    wanted = not item.ran and item.route.skips.wants(item.event_id, item.held.message.message_id)
    return DeadLettered("skipped", "an operator skipped it") if wanted else None


def row(item: Item, seen: Seen | None) -> InboxRow:
    """The inbox row of an event that takes effect; what was recorded of its attempts goes with it."""
    return InboxRow(item.key, item.body_hash, failed_before=seen is not None or item.attempt > 1)
