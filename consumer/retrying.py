"""Which events wait for their next attempt, as far as this process gave them back: for an operator's eyes."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consumer.outcomes import GivenBack, Lost, Verdict, WillRetry

if TYPE_CHECKING:
    from consumer.deliveries import Item

__all__ = ["Retrying", "Waiting"]

_MOST = 1_000
_FORGOTTEN_AFTER = 3_600.0
"""Seconds after an event is due in which it did not come: another worker has it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One event between two attempts. No user id, and nothing of the body."""

    event_id: str | None
    event_type: str | None
    message_id: str
    failed_attempts: int
    due: float
    """When its next attempt is due, in monotonic seconds."""
    lane: str | None
    """What it blocks meanwhile; may name a member, so it is shown to nobody."""


class Retrying:
    """Remembers the last thousand events of one source that are to be tried again."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, Waiting] = OrderedDict()

    def note(self, item: Item, verdict: Verdict) -> None:
        """Take note of what became of an event."""
        if isinstance(verdict, WillRetry):
            due = time.monotonic() + verdict.delay
            self._waiting[item.key] = Waiting(
                item.event_id, item.event_type, item.held.message.message_id, item.attempt, due, item.held.lane
            )
            self._waiting.move_to_end(item.key)
            if len(self._waiting) > _MOST:
                self._waiting.popitem(last=False)
        elif self._waiting and not isinstance(verdict, GivenBack | Lost):
            self._waiting.pop(item.key, None)

    def all(self) -> list[Waiting]:
        """Every event known to wait, the one due next first."""
        forget_before = time.monotonic() - _FORGOTTEN_AFTER
        for key in [key for key, one in self._waiting.items() if one.due < forget_before]:
            del self._waiting[key]
        return sorted(self._waiting.values(), key=lambda one: one.due)

    def find(self, identity: str) -> Waiting | None:
        """The event with this id, its own or its message's."""
        return next((one for one in self.all() if identity in (one.event_id, one.message_id)), None)
