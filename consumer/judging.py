"""What a verdict comes to, given what only its source knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from consumer.deliveries import Item
from consumer.expiry import time_left
from consumer.outcomes import DeadLettered, GivenBack, Verdict, WillRetry
from consumer.route import Route

__all__ = ["Judge"]


class Judge:
    """Knows a source's retention, and whether all of what comes from it looks like a wrong secret.

    `suspect` is told, once, when it begins to look so.
    """

    def __init__(self, route: Route, *, suspect: Callable[[], None]) -> None:
        self._route = route
        self._suspect = suspect
        self._suspected = False

    def judge(self, item: Item, verdict: Verdict) -> Verdict:
        """The verdict that counts."""
        if isinstance(verdict, DeadLettered) and not item.proven:
            verdict = self._judge_unproven(verdict)
        if isinstance(verdict, WillRetry | GivenBack) and item.held.message.expires_at is not None:
            left = time_left(item.held.message, datetime.now(UTC))
            if left <= 0 and getattr(verdict, "why", None) != "stopped":
                return DeadLettered("expiring", "its queue was about to delete it")
            if isinstance(verdict, WillRetry):
                return WillRetry(min(verdict.delay, max(left, 0.0)))
        return verdict

    def _judge_unproven(self, verdict: DeadLettered) -> Verdict:
        """The message that rouses the suspicion of a wrong secret is still put aside; those after it are not."""
        if self._route.guard.suspicion != "signatures":
            self._suspected = False
            return verdict
        if self._suspected:
            return GivenBack("signatures")
        self._suspected = True
        self._suspect()
        return verdict
