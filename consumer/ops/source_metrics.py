"""One source's metrics: what is counted as it happens, and what is read off the source when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from consumer.outcomes import REASONS, DeadLettered, Duplicate, GivenBack, Handled, Verdict, WillRetry
from consumer.sources.base import Depth, Partitioned, Partitioning, PartitionState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consumer.intake import Intake
    from consumer.ops.metrics import Metrics

__all__ = ["PAUSE_REASONS", "SourceMetrics", "pause_reason"]

PAUSE_REASONS: Final = (
    *("signatures", "handlers", "database", "dead_letters", "unavailable", "credentials", "operator", "other"),
)
"""Every value of the label `reason` of a pause."""
_REASON_OF: Final[Mapping[str, str]] = {
    "DatabaseError": "database",
    "DatabaseUnavailable": "database",
    "DatabaseConflict": "database",
    "DeadLetterError": "dead_letters",
    "Unavailable": "unavailable",
    "CredentialsRefused": "credentials",
    "NotConfigured": "credentials",
    "too many events in a row failed in handlers": "handlers",
}
"""What a breaker says, mostly by the class of what was raised."""
_TOO_OLD: Final = 300.0
"""Seconds after which what a queue told of its oldest message says nothing: it may have been handled long since."""
_GLANCE: Final = 0.5
"""Seconds for which one look at the partitions serves: a scrape takes less, and none comes as soon again."""


def pause_reason(why: str) -> str:
    """One of `PAUSE_REASONS` for what a breaker says."""
    return why if why in PAUSE_REASONS else _REASON_OF.get(why, "other")


class SourceMetrics:
    """One source's counters; children are kept, since looking labels up costs more than counting."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self._events: dict[tuple[str, type[Any]], Any] = {}
        self.received = metrics.received.labels(name).inc
        self._duplicate = metrics.duplicates.labels(name).inc
        self._given_back = metrics.given_back.labels(name).inc
        self._took = metrics.accepted_to_handled.labels(name).observe
        self.lease_lost = metrics.leases_lost.labels(name).inc
        self.backlog_error = metrics.backlog_errors.labels(name).inc
        self.paused = metrics.paused.labels(name)
        self.paused.set(0)
        # Named from the start: a rate does not see a counter's first value.
        self._put_aside = {reason: metrics.dead_letters.labels(name, reason).inc for reason in REASONS}
        self._calls: dict[str, Callable[[float], None]] = {
            operation: metrics.settle_seconds.labels(name, operation).observe
            for operation in ("acknowledge", "release", "extend")
        }
        self._depth: Depth | None = None
        self._depth_at = 0.0
        self._waiting_since: datetime | None = None
        self._parked: int | None = None

    def outcome(self, verdict: Verdict, event: type[Any], accepted_at: datetime) -> None:
        """Count what became of an event of this class, whose message the queue accepted then."""
        if isinstance(verdict, Handled):
            self._event("handled", event)()
            self._took(max(0.0, (datetime.now(UTC) - accepted_at).total_seconds()))
        elif isinstance(verdict, Duplicate):
            self._duplicate()
        elif isinstance(verdict, WillRetry):
            self._event("retried", event)()
        elif isinstance(verdict, DeadLettered):
            self._put_aside[verdict.reason]()
        elif isinstance(verdict, GivenBack):
            self._given_back()

    def settling_took(self, operation: str, seconds: float) -> None:
        """One call to the queue (`acknowledge`, `release` or `extend`) took this long, answered or not."""
        self._calls[operation](seconds)

    def backlog(self, depth: Depth, *, at: float, waiting_since: datetime | None) -> None:
        """What the queue holds, as it told at `at` (seconds since 1970).

        `waiting_since`: when it accepted the oldest message that waits there, as far as it tells.
        """
        self._depth, self._depth_at, self._waiting_since = depth, at, waiting_since

    def parked(self, count: int) -> None:
        """So many of its events wait in the database."""
        self._parked = count

    def watch(self, intake: Intake) -> None:
        """Read these when scraped."""
        metrics, name = self._metrics, (self._name,)
        metrics.in_flight.add_value(name, lambda: len(intake.held))
        metrics.in_flight_bytes.add_value(name, lambda: intake.permits.held_bytes)
        metrics.receive_errors.add_value(name, lambda: intake.receiver.failures)
        metrics.settle_failures.add_value(name, lambda: intake.settlement.failures)
        metrics.oldest_age.add_value(name, lambda: self._oldest_age(intake))
        metrics.expiry_margin.add_value(name, lambda: self._expiry_margin(intake))
        metrics.retention.add_value(name, lambda: _seconds(intake.retention))
        metrics.paused_info.add(lambda: self._pauses(intake))
        metrics.queue_messages.add(self._queue_messages)
        metrics.backlog_updated.add_value(name, lambda: self._depth_at or None)
        metrics.parked_events.add_value(name, lambda: self._parked)
        if isinstance(intake.source, Partitioned):
            self._watch_partitions(intake.source)

    def _watch_partitions(self, source: Partitioned) -> None:
        metrics, name = self._metrics, (self._name,)
        look = _Glance(source)
        metrics.partitions.add_value(name, lambda: look().count)
        metrics.partitions_owned.add_value(name, lambda: len(look().owned))
        metrics.partitions_stalled.add_value(name, lambda: look().stalled)
        metrics.partition_changes.add_value(name, lambda: look().changes)
        metrics.checkpoint_failures.add_value(name, lambda: look().checkpoint_failures)

        def each(value: Callable[[PartitionState], float | None]) -> Callable[[], Iterator[tuple[list[str], float]]]:
            def readings() -> Iterator[tuple[list[str], float]]:
                for state in look().owned:
                    found = value(state)
                    if found is not None:
                        yield [self._name, state.partition], found

            return readings

        metrics.partition_lag.add(each(lambda state: state.lag))
        metrics.partition_lag_seconds.add(each(lambda state: _age(state.oldest)))
        metrics.checkpoint_age.add(each(lambda state: state.checkpoint_age))

    @property
    def _oldest_waiting(self) -> datetime | None:
        """Since when a message waits in the queue, unless it is long ago that the queue told."""
        return self._waiting_since if time.time() - self._depth_at < _TOO_OLD else None

    def _oldest_age(self, intake: Intake) -> float:
        return max(intake.oldest_age(), _age(self._oldest_waiting))

    def _expiry_margin(self, intake: Intake) -> float | None:
        known = [intake.pauses.expiring_left, *(held.message.expires_at for held in intake.held)]
        if self._oldest_waiting is not None and intake.retention is not None:
            known.append(self._oldest_waiting + intake.retention)
        first = min((moment for moment in known if moment is not None), default=None)
        return None if first is None else (first - datetime.now(UTC)).total_seconds()

    def _pauses(self, intake: Intake) -> Iterator[tuple[list[str], float]]:
        if intake.pauses.by_operator is not None:
            yield [self._name, "operator"], 1.0
        if not intake.breaker.closed:
            yield [self._name, pause_reason(intake.breaker.reason)], 1.0

    def _queue_messages(self) -> Iterator[tuple[list[str], float]]:
        depth = self._depth
        if depth is not None:
            yield [self._name, "visible"], depth.visible
            yield [self._name, "in_flight"], depth.invisible
            yield [self._name, "delayed"], depth.delayed

    def _event(self, metric: str, event: type[Any]) -> Any:
        child = self._events.get((metric, event))
        if child is None:
            counter = getattr(self._metrics, metric)
            child = self._events[metric, event] = counter.labels(self._name, event.__name__).inc
        return child


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _age(since: datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())


class _Glance:
    """How a queue's partitions stand, looked at once for all the metrics of one scrape."""

    def __init__(self, source: Partitioned) -> None:
        self._source = source
        self._found: Partitioning | None = None
        self._until = 0.0

    def __call__(self) -> Partitioning:
        now = time.monotonic()
        if self._found is None or now >= self._until:
            self._found, self._until = self._source.partitioning(), now + _GLANCE
        return self._found
