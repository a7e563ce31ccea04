"""What a handler can say by raising, and what can become of a delivery."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

__all__ = [
    "REASONS",
    "REDRIVEN",
    "DeadLettered",
    "Duplicate",
    "GivenBack",
    "Handled",
    "Lost",
    "Outcome",
    "Reject",
    "Retry",
    "Unavailable",
    "Verdict",
    "WillRetry",
]

REASONS = (
    "unsigned",
    "bad_signature",
    "stale",
    "unreadable",
    "invalid_event",
    "unknown_event",
    "unhandled",
    "rejected",
    "attempts_exhausted",
    "expiring",
    "crashed",
    "conflicting_duplicate",
    "skipped",
)
"""Every dead-letter reason; the values of a bounded metric label and of `--reason`."""

REDRIVEN = "redriven"
"""Not a reason of ours: a message on a dead-letter queue that came there without a note, as a redrive policy does."""


def _seconds(name: str, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        msg = f"{name} is a number of seconds, 0 or more"
        raise ValueError(msg)
    return value


class Retry(Exception):
    """Raised by a handler: not now, again later. Counts as an attempt.

    `delay` is in seconds and is cut to what the queue can hold; None means the usual exponential backoff.
    """

    def __init__(self, delay: float | None = None) -> None:
        super().__init__()
        self.delay = _seconds("Retry(delay)", delay)


class Unavailable(Exception):
    """Raised by a handler: what I depend on is gone, nothing can be handled now.

    The source pauses and resumes by itself; no attempt is counted. `retry_after` is in seconds. `why` is for people,
    as in "GET /v1/users/{user_id}: HTTP 503"; keep ids and health data out of it. `answered` counts what the same
    dependency did for others: only while that grows can the event itself be the trouble. Without it, any event that
    its source gets done meanwhile says so.
    """

    def __init__(
        self, retry_after: float | None = None, *, why: str | None = None, answered: Callable[[], int] | None = None
    ) -> None:
        super().__init__()
        self.why = why
        self.retry_after = _seconds("Unavailable(retry_after)", retry_after)
        self.answered = answered

    def __str__(self) -> str:
        return self.why or ""

    def __reduce__(self) -> tuple[Any, ...]:
        # A count lives in its process.
        return partial(Unavailable, self.retry_after, why=self.why), ()


class Reject(Exception):
    """Raised by a handler: this event can never be handled, dead-letter it now.

    `detail` is kept in the dead letter and never logged.
    """

    def __init__(self, detail: str) -> None:
        super().__init__()
        self.detail = detail

    def __reduce__(self) -> tuple[type[Reject], tuple[str]]:
        # The detail is no argument of the exception, so that no traceback prints it.
        return Reject, (self.detail,)


@dataclass(frozen=True, slots=True)
class Handled:
    """The event took effect, durably (or was ignored on purpose)."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The event had taken effect before; nothing was done."""


@dataclass(frozen=True, slots=True)
class WillRetry:
    """The event comes back after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The event was put aside, for one of `REASONS`."""

    reason: str
    detail: str | None = field(default=None, repr=False, compare=False)
    """Why in more words; may hold health data, so it is kept in the dead letter only."""
    error: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    """What is kept of a handler's exception; see `consumer.failures.describe`."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Trouble of our own: the delivery goes back to its queue as if it had never been received."""

    why: str
    retry_after: float | None = None
    detail: str | None = field(default=None, compare=False)
    """What a handler, or a client it used, says is gone; for the log, so without health data."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease ran out or was taken away: somebody else has the delivery now."""


Outcome = Handled | Duplicate | WillRetry | DeadLettered
"""What can become of an event."""

Verdict = Outcome | GivenBack | Lost
"""What can become of a delivery in a worker's hands."""
