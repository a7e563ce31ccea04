"""One SQS queue as pure state: no I/O, time comes in as `now` (seconds since the epoch, a float).

Follows the public documentation of SQS. Where the service leaves itself a choice ("the message might not be
deleted"), the queue takes the one that is worst for a consumer.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tests.emulators.sqs_stub_messages import Ready, ReadyGroups, State, Stored

__all__ = ["IN_FLIGHT_LIMIT", "MAX_VISIBILITY", "Queue", "State", "Stored", "StubError"]

MAX_VISIBILITY = 43_200
"""Seconds a message may stay in flight after one receive, renewals included."""
IN_FLIGHT_LIMIT = 120_000
"""Messages of one queue that may be in flight at once."""
DEDUPLICATION_WINDOW = 300
"""Seconds a FIFO queue remembers a deduplication id, or the id of a receive attempt."""

_DEFAULTS = {
    "VisibilityTimeout": "30",
    "DelaySeconds": "0",
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "MaximumMessageSize": "1048576",
}
_RANGES = {
    "VisibilityTimeout": (0, MAX_VISIBILITY),
    "DelaySeconds": (0, 900),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "MaximumMessageSize": (1_024, 1_048_576),
}


class StubError(Exception):
    """An error of the service: its JSON code, the code older clients know, whose fault, and the HTTP status."""

    def __init__(
        self, code: str, message: str = "", *, query: str = "", sender: bool = True, status: int = 400
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message or code
        self.query = query or code
        self.sender = sender
        self.status = status


def _unusable(reason: str) -> StubError:
    return StubError(
        "InvalidParameterValue", f"Value for parameter ReceiptHandle is invalid. Reason: {reason}", status=400
    )


class Queue:
    """One queue; `dead_letters` finds the queue that a redrive policy names."""

    def __init__(
        self,
        name: str,
        *,
        arn: str = "",
        attributes: Mapping[str, str] | None = None,
        now: float = 0.0,
        dead_letters: Callable[[str], Queue | None] = lambda _arn: None,
    ) -> None:
        self.name = name
        self.arn = arn or f"arn:aws:sqs:us-east-1:000000000000:{name}"
        self.fifo = name.endswith(".fifo")
        self.created_at = now
        self.attributes = dict(_DEFAULTS)
        self.messages: dict[str, Stored] = {}
        self.counts = [0, 0, 0, 0]
        self.peak_in_flight = 0
        self._dead_letters = dead_letters
        self._ready: Ready | ReadyGroups = ReadyGroups() if self.fifo else Ready()
        self._waiting: list[tuple[float, int, Stored]] = []
        self._ages: deque[Stored] = deque()
        self._sequence = itertools.count(1)
        self._ticks = itertools.count(1)
        self._prefix = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        self._seen: dict[str, tuple[float, Stored]] = {}
        self._attempts: dict[str, tuple[float, list[tuple[Stored, int]]]] = {}
        self.configure(attributes or {})

    def configure(self, attributes: Mapping[str, str]) -> None:
        """Set attributes; raises StubError for a value out of range."""
        for name, value in attributes.items():
            low, high = _RANGES.get(name, (None, None))
            if low is not None and high is not None and not (value.isdigit() and low <= int(value) <= high):
                raise StubError("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
            self.attributes[name] = value
        numbers = {name: int(self.attributes[name]) for name in _DEFAULTS}
        self.visibility = numbers["VisibilityTimeout"]
        self.delay = numbers["DelaySeconds"]
        self.retention = numbers["MessageRetentionPeriod"]
        self.wait = numbers["ReceiveMessageWaitTimeSeconds"]
        self.max_size = numbers["MaximumMessageSize"]
        self.content_based = self.attributes.get("ContentBasedDeduplication") == "true"
        policy = json.loads(self.attributes.get("RedrivePolicy") or "{}")
        self.redrive_arn: str = policy.get("deadLetterTargetArn", "")
        self.redrive_after = int(policy.get("maxReceiveCount", 0))

    def send(
        self,
        body: str,
        *,
        now: float,
        attributes: Mapping[str, Any] | None = None,
        system: Mapping[str, str] | None = None,
        group: str | None = None,
        deduplication_id: str | None = None,
        delay: float | None = None,
    ) -> Stored:
        """Add a message, or return the one a FIFO queue already has under the same deduplication id."""
        dedup = self._deduplication_id(body, group, deduplication_id)
        if dedup is not None and (known := self._remembered(dedup, now)) is not None:
            return known
        number = next(self._sequence)
        message = Stored(f"{self._prefix[:8]}-{self._prefix[8:12]}-4000-8000-{number:012x}", body, number, now)
        message.attributes = attributes
        message.group = group
        message.system = dict(system or {})
        if dedup is not None:
            message.system["MessageDeduplicationId"] = dedup
            self._seen[dedup] = (now + DEDUPLICATION_WINDOW, message)
        self._admit(message, now + (self.delay if delay is None else delay), now)
        return message

    def _admit(self, message: Stored, visible_at: float, now: float) -> None:
        self.messages[message.id] = message
        self._ages.append(message)
        self.counts[State.GONE] += 1
        if visible_at > now:
            self._park(message, State.DELAYED, visible_at)
        else:
            self._move(message, State.READY)

    def _deduplication_id(self, body: str, group: str | None, given: str | None) -> str | None:
        if not self.fifo:
            return None
        if group is None:
            raise StubError("MissingParameter", "The request must contain the parameter MessageGroupId.")
        if given is None and not self.content_based:
            raise StubError("InvalidParameterValue", "The queue should either have ContentBasedDeduplication enabled")
        return given or hashlib.sha256(body.encode()).hexdigest()

    def _remembered(self, dedup: str, now: float) -> Stored | None:
        while self._seen and (first := next(iter(self._seen.values())))[0] <= now:
            del self._seen[str(first[1].system["MessageDeduplicationId"])]
        found = self._seen.get(dedup)
        return found[1] if found else None

    def receive(self, limit: int, *, now: float, visibility: float | None = None, attempt: str = "") -> list[Stored]:
        """Hand out up to `limit` messages; the same again for a FIFO receive attempt that is repeated."""
        self.advance(now)
        hold = self.visibility if visibility is None else visibility
        if self.fifo and attempt and (again := self._repeat(attempt, hold, now)) is not None:
            return again
        if self.counts[State.IN_FLIGHT] >= IN_FLIGHT_LIMIT:
            raise StubError("OverLimit", "Too many messages in flight.", status=403)
        given: list[Stored] = []
        opened: set[str] = set()
        while len(given) < limit and (message := self._ready.pop(opened)) is not None:
            if not self._redriven(message, now):
                self._hand_out(message, hold, now)
                given.append(message)
        if self.fifo and attempt and given:
            while self._attempts and next(iter(self._attempts.values()))[0] <= now:
                del self._attempts[next(iter(self._attempts))]
            self._attempts[attempt] = (now + DEDUPLICATION_WINDOW, [(m, m.lease) for m in given])
        return given

    def _repeat(self, attempt: str, hold: float, now: float) -> list[Stored] | None:
        expires, given = self._attempts.get(attempt, (0.0, []))
        if expires <= now or any(m.lease != lease or m.state is not State.IN_FLIGHT for m, lease in given):
            return None
        for message, _ in given:
            self._park(message, State.IN_FLIGHT, now + hold)
        return [message for message, _ in given]

    def _hand_out(self, message: Stored, hold: float, now: float) -> None:
        message.receive_count += 1
        message.first_received_at = message.first_received_at or now
        message.received_at = now
        message.lease = next(self._ticks)
        self._park(message, State.IN_FLIGHT, now + hold)
        self.peak_in_flight = max(self.peak_in_flight, self.counts[State.IN_FLIGHT])

    def _redriven(self, message: Stored, now: float) -> bool:
        if not self.redrive_after or message.receive_count < self.redrive_after:
            return False
        target = self._dead_letters(self.redrive_arn)
        if target is None:
            return False
        self.remove(message)
        target.adopt(message, source=self.arn, now=now)
        return True

    def adopt(self, message: Stored, *, source: str, now: float) -> None:
        """Take over a message that another queue gave up; a FIFO queue starts its age anew."""
        moved = Stored(message.id, message.body, next(self._sequence), now if self.fifo else message.sent_at)
        moved.attributes, moved.group, moved.receive_count = message.attributes, message.group, message.receive_count
        moved.system = {**message.system, "DeadLetterQueueSourceArn": source}
        self._admit(moved, now, now)

    def advance(self, now: float) -> None:
        """Let time do its work: delays end, leases lapse, old messages are deleted."""
        while self._waiting and self._waiting[0][0] <= now:
            _, tick, message = heapq.heappop(self._waiting)
            if message.tick == tick and message.state in {State.DELAYED, State.IN_FLIGHT}:
                self._move(message, State.READY)
        while self._ages and (self._ages[0].state is State.GONE or self._ages[0].sent_at + self.retention <= now):
            self.remove(self._ages.popleft())

    def next_change(self) -> float | None:
        """When `advance` may next make a message receivable; None: not by time alone."""
        return self._waiting[0][0] if self._waiting else None

    def find(self, handle: str) -> tuple[Stored | None, bool]:
        """The message of a receipt handle (None: deleted), and whether the handle is its latest, still in flight."""
        message_id, _, lease = handle.rpartition(".")
        if len(message_id) != 36 or not lease:  # a UUID's length
            raise StubError("ReceiptHandleIsInvalid", "The input receipt handle is invalid.", status=404)
        message = self.messages.get(message_id)
        if message is None:
            return None, False
        return message, message.state is State.IN_FLIGHT and f"{message.lease:x}" == lease

    def delete(self, handle: str, *, now: float) -> None:
        """Delete by receipt handle. A handle that is out of date deletes nothing: silently, or loudly on FIFO."""
        self.advance(now)
        message, current = self.find(handle)
        if message is not None and current:
            self.remove(message)
        elif message is not None and self.fifo:
            raise _unusable("The receipt handle has expired.")

    def change_visibility(self, handle: str, timeout: float, *, now: float) -> None:
        """Set when a message in flight becomes visible again."""
        self.advance(now)
        message, current = self.find(handle)
        if message is None:
            raise _unusable("Message does not exist or is not available for visibility timeout change.")
        if not current:
            raise StubError(
                "MessageNotInflight", "The message is not in flight.", query="AWS.SimpleQueueService.MessageNotInflight"
            )
        if now + timeout > message.received_at + MAX_VISIBILITY:
            raise _unusable("Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")
        self._park(message, State.IN_FLIGHT, now + timeout)
        self.advance(now)

    def purge(self) -> None:
        """Delete everything."""
        for message in list(self.messages.values()):
            self.remove(message)

    def remove(self, message: Stored) -> None:
        """Take one message out, whatever its state."""
        if self.messages.pop(message.id, None) is not None:
            self._move(message, State.GONE)

    def _park(self, message: Stored, state: State, until: float) -> None:
        message.tick = next(self._ticks)
        message.visible_at = until
        heapq.heappush(self._waiting, (until, message.tick, message))
        self._move(message, state)

    def _move(self, message: Stored, state: State) -> None:
        before, message.state = message.state, state
        self.counts[before] -= 1
        self.counts[state] += 1
        if before is not state and state is State.IN_FLIGHT:
            self._ready.hold(message)
        if state is State.READY:
            self._ready.put(message)
        if before is State.IN_FLIGHT and state is not before:
            self._ready.free(message)

    def described(self, now: float) -> dict[str, str]:
        """All attributes, as GetQueueAttributes tells them."""
        self.advance(now)
        fifo = {"FifoQueue": "true", "ContentBasedDeduplication": str(self.content_based).lower()} if self.fifo else {}
        return {
            **self.attributes,
            **fifo,
            "QueueArn": self.arn,
            "CreatedTimestamp": str(int(self.created_at)),
            "LastModifiedTimestamp": str(int(self.created_at)),
            "ApproximateNumberOfMessages": str(self.counts[State.READY]),
            "ApproximateNumberOfMessagesNotVisible": str(self.counts[State.IN_FLIGHT]),
            "ApproximateNumberOfMessagesDelayed": str(self.counts[State.DELAYED]),
        }
