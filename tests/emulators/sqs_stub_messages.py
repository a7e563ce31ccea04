"""The messages of an SQS queue, and which of them may be received next: standard and FIFO."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

__all__ = ["Ready", "ReadyGroups", "State", "Stored"]


class State(IntEnum):
    """Where a message is in its life."""

    READY = 0
    DELAYED = 1
    IN_FLIGHT = 2
    GONE = 3


class Stored:
    """One message in a queue."""

    __slots__ = (
        "attributes",
        "encoded",
        "first_received_at",
        "group",
        "id",
        "lease",
        "md5",
        "receive_count",
        "received_at",
        "sent_at",
        "sequence",
        "state",
        "system",
        "tick",
        "visible_at",
    )

    def __init__(self, message_id: str, body: str, sequence: int, sent_at: float) -> None:
        self.id = message_id
        self.encoded = json.dumps(body)
        self.md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
        self.sequence = sequence
        self.sent_at = sent_at
        self.attributes: Mapping[str, Any] | None = None
        self.system: dict[str, str] = {}
        self.group: str | None = None
        self.receive_count = 0
        self.first_received_at = 0.0
        self.received_at = 0.0
        self.lease = 0
        self.state = State.GONE
        self.tick = 0
        self.visible_at = 0.0

    @property
    def body(self) -> str:
        """The text; kept as the JSON string that replies carry, so that a receive need not encode it."""
        return str(json.loads(self.encoded))

    @property
    def handle(self) -> str:
        """The receipt handle of the latest receive."""
        return f"{self.id}.{self.lease:x}"

    def __lt__(self, other: Stored) -> bool:
        return self.sequence < other.sequence


class Ready:
    """The messages of a standard queue that may be received, roughly in order."""

    def __init__(self) -> None:
        self._messages: deque[Stored] = deque()

    def put(self, message: Stored) -> None:
        self._messages.append(message)

    def pop(self, opened: set[str]) -> Stored | None:
        while self._messages:
            message = self._messages.popleft()
            if message.state is State.READY:
                return message
        return None

    def hold(self, message: Stored) -> None:
        """A message went out; a standard queue does not care."""

    def free(self, message: Stored) -> None:
        """It came back or was deleted."""


class _Group:
    __slots__ = ("heap", "held", "listed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.heap: list[Stored] = []
        self.held = 0
        self.listed = False


class ReadyGroups:
    """The same for a FIFO queue: a group is closed while a message of it is in flight."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._candidates: deque[_Group] = deque()

    def _list(self, group: _Group) -> None:
        if group.heap and not group.held and not group.listed:
            group.listed = True
            self._candidates.append(group)

    def put(self, message: Stored) -> None:
        name = str(message.group)
        group = self._groups.get(name) or self._groups.setdefault(name, _Group(name))
        heapq.heappush(group.heap, message)
        self._list(group)

    def pop(self, opened: set[str]) -> Stored | None:
        """The next message, of a group this very receive has opened before any other."""
        while self._candidates:
            group = self._candidates[0]
            while group.heap and group.heap[0].state is not State.READY:
                heapq.heappop(group.heap)
            if group.heap and (not group.held or group.name in opened):
                opened.add(group.name)
                return heapq.heappop(group.heap)
            group.listed = False
            self._candidates.popleft()
            self._forget_if_empty(group)
        return None

    def _forget_if_empty(self, group: _Group) -> None:
        if not group.heap and not group.held and not group.listed:
            self._groups.pop(group.name, None)

    def hold(self, message: Stored) -> None:
        self._groups.setdefault(str(message.group), _Group(str(message.group))).held += 1

    def free(self, message: Stored) -> None:
        group = self._groups[str(message.group)]
        group.held -= 1
        self._list(group)
        self._forget_if_empty(group)
