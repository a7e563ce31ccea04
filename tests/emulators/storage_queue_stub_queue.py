"""One Azure Storage Queue as pure state: no I/O, time comes in as `now` (seconds since the epoch, a float).

Follows the service's REST reference. A pop receipt is good until the message is received or updated again, whether
or not its lease has lapsed meanwhile.
"""

from __future__ import annotations

import base64
import heapq
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["LARGEST", "LONGEST", "NEVER", "Queue", "Stored", "StubError"]

LONGEST = 604_800
"""Seconds: the longest visibility timeout, and the time to live if none is given."""
NEVER = 253_402_300_799.0
"""The end of the year 9999: when messages expire that never do."""
LARGEST = 65_536
"""Bytes of a message's text."""
_PAGE = 32


class StubError(Exception):
    """An error of the service: its code and HTTP status."""

    def __init__(self, code: str, status: int = 400, message: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status
        self.message = message or code


def _out_of_range(name: str) -> StubError:
    return StubError("OutOfRangeQueryParameterValue", 400, f"{name} is out of range")


@dataclass(slots=True, eq=False)
class Stored:
    """One message."""

    id: str
    text: str
    inserted: float
    expires: float
    visible_at: float
    tick: int = 0
    dequeue_count: int = 0
    gone: bool = False

    @property
    def receipt(self) -> str:
        """The pop receipt of the latest receive or update; base64, as the service's."""
        return base64.b64encode(b"%d.%d" % (self.visible_at, self.tick)).decode()


@dataclass(slots=True)
class Queue:
    """One queue."""

    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    messages: dict[str, Stored] = field(default_factory=dict)
    _order: list[tuple[float, int, Stored]] = field(default_factory=list)
    """By when they are visible; entries of an older tick mean nothing."""
    _ages: list[tuple[float, int, Stored]] = field(default_factory=list)
    _ticks: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, text: str, *, now: float, delay: int = 0, ttl: int = LONGEST) -> Stored:
        """Add a message that lives `ttl` seconds, -1 for ever."""
        if len(text.encode()) > LARGEST:
            raise StubError("RequestBodyTooLarge", 413)
        if not 0 <= delay <= LONGEST or (ttl != -1 and delay >= ttl):
            raise _out_of_range("visibilitytimeout")
        if ttl == 0 or ttl < -1:
            raise _out_of_range("messagettl")
        message = Stored(str(uuid.uuid4()), text, now, NEVER if ttl == -1 else now + ttl, now)
        self.messages[message.id] = message
        if ttl != -1:
            heapq.heappush(self._ages, (message.expires, next(self._ticks), message))
        self._hide(message, now + delay)
        return message

    def get(self, count: int = 1, *, now: float, visibility: int = 30) -> list[Stored]:
        """Hand out up to `count` messages, hidden from others for `visibility` seconds."""
        if not 1 <= visibility <= LONGEST:
            raise _out_of_range("visibilitytimeout")
        found = self._visible(count, now)
        for message in found:
            message.dequeue_count += 1
            self._hide(message, now + visibility)
        return found

    def peek(self, count: int = 1, *, now: float) -> list[Stored]:
        """The messages that a receive would hand out; they stay as they are."""
        found = self._visible(count, now)
        for message in found:
            heapq.heappush(self._order, (message.visible_at, message.tick, message))
        return found

    def update(self, message_id: str, receipt: str, *, now: float, visibility: int, text: str | None = None) -> Stored:
        """Give a message a new lease, and a new text if there is one."""
        message = self._held(message_id, receipt, now)
        if not 0 <= visibility <= LONGEST:
            raise _out_of_range("visibilitytimeout")
        if text is not None:
            message.text = text
        self._hide(message, now + visibility)
        return message

    def delete(self, message_id: str, receipt: str, *, now: float) -> None:
        """Delete a message."""
        self._remove(self._held(message_id, receipt, now))

    def clear(self) -> None:
        """Delete everything."""
        for message in list(self.messages.values()):
            self._remove(message)

    def count(self, now: float) -> int:
        """How many messages there are, invisible ones too."""
        self._expire(now)
        return len(self.messages)

    def _held(self, message_id: str, receipt: str, now: float) -> Stored:
        self._expire(now)
        message = self.messages.get(message_id)
        if message is None:
            raise StubError("MessageNotFound", 404)
        if message.receipt != receipt:
            raise StubError("PopReceiptMismatch")
        return message

    def _hide(self, message: Stored, until: float) -> None:
        message.tick = next(self._ticks)
        message.visible_at = until
        heapq.heappush(self._order, (until, message.tick, message))

    def _visible(self, count: int, now: float) -> list[Stored]:
        """Take the first `count` visible messages out of the order; who calls puts them back."""
        if not 1 <= count <= _PAGE:
            raise _out_of_range("numofmessages")
        self._expire(now)
        found: list[Stored] = []
        while len(found) < count and self._order and self._order[0][0] <= now:
            _, tick, message = heapq.heappop(self._order)
            if message.tick == tick and not message.gone:
                found.append(message)
        return found

    def _expire(self, now: float) -> None:
        while self._ages and self._ages[0][0] <= now:
            self._remove(heapq.heappop(self._ages)[2])

    def _remove(self, message: Stored) -> None:
        message.gone = True
        self.messages.pop(message.id, None)
