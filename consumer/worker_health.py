"""Whether a worker is alive and ready: what its probes say.

Alive: everything that should make progress does, so that a restart would help nothing. Ready: every source is
connected and receives, and the worker is not stopping. What a restart cannot mend, a queue or a database that does not
answer, is never a reason against being alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from consumer.ops.liveness import Progress
from consumer.sources.base import SelfWatching

if TYPE_CHECKING:
    from consumer.intake import Intake
    from consumer.pipeline import Pipeline
    from consumer.recovery import Recovery

__all__ = ["WorkerHealth"]

_HANDLER_GRACE = 10.0
"""Seconds a handler may go on after its time limit before the worker counts as stuck."""
# The rest are longer than the time-outs of what is called take together, tries included: those come first.
_RECEIVE_TRIES = 3
_RECEIVE_GRACE = 120.0
"""Seconds beyond its waits, one for each try of an SDK, that a receive may take."""
_RECEIVES = 60.0
"""Seconds without a receive, although one could begin."""
_PERMITS = 120.0
_PIPELINE = 180.0
_SETTLEMENT = 180.0
_HEARTBEAT = 60.0
"""Seconds for which a lease has run out without anybody noticing."""
_ASIDE = 180.0
_RECOVERY = 300.0


class WorkerHealth:
    """Answers the probes of one worker. `overdue` says for how long a handler has gone on after its time limit."""

    def __init__(
        self,
        intakes: Sequence[Intake],
        recoveries: Sequence[Recovery],
        pipeline: Pipeline,
        *,
        overdue: Callable[[], float],
        stopping: Callable[[], bool],
    ) -> None:
        self._intakes = intakes
        self._overdue = overdue
        self._stopping = stopping
        self._progress = Progress()
        self._progress.watch("events in hand are not handled", lambda: pipeline.standing, limit=_PIPELINE)
        for intake, recovery in zip(intakes, recoveries, strict=True):
            self._watch(intake, recovery)

    def not_live(self, now: float | None = None) -> str | None:
        """Why the process should be restarted, or None. `now` is in monotonic seconds, for tests."""
        found = self._progress.standstill(time.monotonic() if now is None else now)
        overdue = self._overdue()
        if overdue > _HANDLER_GRACE:
            return f"a handler has gone on for {overdue:.0f} s after its time limit"
        for intake in self._intakes:
            if isinstance(intake.source, SelfWatching) and (why := intake.source.not_live()) is not None:
                return f"source {intake.source.name}: {why}"
        return found

    def not_ready(self) -> str | None:
        """Why the worker does not handle events now, or None."""
        if self._stopping():
            return "stopping"
        for intake in self._intakes:
            why = _not_ready(intake)
            if why is not None:
                prefix = f"source {intake.source.name}: "
                return prefix + why.removeprefix(prefix)
        return None

    def _watch(self, intake: Intake, recovery: Recovery) -> None:
        def watch(what: str, read: Callable[[], Hashable | None], limit: float) -> None:
            self._progress.watch(f"source {intake.source.name}: {what}", read, limit=limit)

        waits = _RECEIVE_TRIES * intake.source.capabilities.poll_wait
        watch("a receive does not come back", lambda: intake.receiver.asking.oldest, waits + _RECEIVE_GRACE)
        watch("nothing is received, although it could be", lambda: _may_receive(intake), _RECEIVES)
        watch("room for deliveries is lost", lambda: _lost_room(intake), _PERMITS)
        watch("the queue is not told what is done", lambda: intake.settlement.standing, _SETTLEMENT)
        watch("leases are not renewed", lambda: intake.settlement.lapsed, _HEARTBEAT)
        watch("an event is not put aside or opened", lambda: intake.aside, _ASIDE)
        watch("it is paused and nobody looks", lambda: recovery.standing, _RECOVERY)


def _may_receive(intake: Intake) -> int | None:
    """What changes with every receive, while one should begin; what is in hand is watched otherwise."""
    return intake.receiver.begun if not intake.held and intake.receiver.may_begin else None


def _lost_room(intake: Intake) -> int | None:
    """How many permits nobody holds; None for none. A pause takes some while it looks through the queue."""
    if intake.paused.is_set():
        return None
    return intake.permits.held - sum(held.permit for held in intake.held) or None


def _not_ready(intake: Intake) -> str | None:
    if intake.pauses.why is not None:
        return intake.pauses.why
    if intake.receiver.error is not None:
        return str(intake.receiver.error)
    return None if intake.receiver.connected else "not connected yet: its queue has not answered a receive"
