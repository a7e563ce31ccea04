"""Which webhooks go to the queue together, and how long one may wait: the relay's batching, pure.

Nothing waits for a batch to fill. What arrives while every send allowed is under way goes together with the next one,
so that batches grow with the load and not with a timer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

__all__ = ["Batches", "Waiting"]

T = TypeVar("T")


class Waiting(Generic[T]):
    """One thing to send, and until when somebody waits for it."""

    __slots__ = ("deadline", "item")

    def __init__(self, item: T, deadline: float) -> None:
        self.item: T | None = item
        """None once it is sent or given up, so that its bytes are not kept for longer."""
        self.deadline = deadline


class Batches(Generic[T]):
    """Groups what is to be sent, in order: at most `most` together, `sends` groups at once, `patience` seconds each."""

    __slots__ = ("_all", "_queue", "_sending", "most", "patience", "sends")

    def __init__(self, *, most: int, sends: int, patience: float) -> None:
        self.most = most
        self.sends = sends
        self.patience = patience
        self._queue: deque[Waiting[T]] = deque()
        self._all: deque[Waiting[T]] = deque()
        self._sending = 0

    def add(self, item: T, now: float) -> None:
        """Let something wait for the next send."""
        waiting = Waiting(item, now + self.patience)
        self._queue.append(waiting)
        self._all.append(waiting)

    def take(self) -> list[Waiting[T]]:
        """The next group to send, which takes a place until `sent`; empty when no place is free or nothing waits."""
        group: list[Waiting[T]] = []
        if self._sending < self.sends:
            while self._queue and len(group) < self.most:
                waiting = self._queue.popleft()
                if waiting.item is not None:
                    group.append(waiting)
        if group:
            self._sending += 1
        return group

    def sent(self, group: list[Waiting[T]]) -> None:
        """A group's send has ended, well or not: its place is free, and its members are done with."""
        self._sending -= 1
        for waiting in group:
            waiting.item = None
        self._forget()

    def overdue(self, now: float) -> list[T]:
        """What has waited too long at `now`, on its way to the queue or not; nobody waits for it any more."""
        found = []
        self._forget()
        while self._all and self._all[0].deadline <= now:
            waiting = self._all.popleft()
            if waiting.item is not None:
                found.append(waiting.item)
                waiting.item = None
        return found

    @property
    def due(self) -> float:
        """When the first of those that wait becomes overdue; infinite when nobody waits."""
        self._forget()
        return self._all[0].deadline if self._all else math.inf

    def _forget(self) -> None:
        while self._all and self._all[0].item is None:
            self._all.popleft()
