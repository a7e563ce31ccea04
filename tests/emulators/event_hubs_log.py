"""Event hubs as pure state: hubs, partitions, events, and who reads them. No I/O; time comes in as `now` (seconds).

Follows the public documentation of Event Hubs; the texts and conditions of refusals come from there and from client
libraries, not from a capture of the service.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.emulators.amqp_codec import Array, MalformedFrame, Symbol, Timestamp, encode
from tests.emulators.amqp_frames import AmqpError, Section, section, sections

__all__ = ["BATCH_FORMAT", "READERS_LIMIT", "Event", "EventHubsLog", "Hub", "Partition", "Reader", "position"]

BATCH_FORMAT = 0x80013700
"""The message format of a batch: each data section is an encoded message."""
READERS_LIMIT = 5
"""Readers without an owner level on one partition and consumer group."""

_SELECTOR = re.compile(r"\s*amqp\.annotation\.(x-opt-[a-z-]+)\s*(>=?)\s*'([^']*)'\s*")
_KEY = Symbol("x-opt-partition-key")
_OWN = frozenset({"x-opt-sequence-number", "x-opt-offset", "x-opt-enqueued-time"})
_SEQUENCE_KEY, _OFFSET_KEY, _TIME_KEY = (
    encode(Symbol(f"x-opt-{n}")) for n in ("sequence-number", "offset", "enqueued-time")
)
_MAP_PREFIX = b"\x00\x53\x72\xd1"


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is kept and handed out."""

    sequence: int
    offset: str
    enqueued: int
    """Milliseconds since the epoch."""
    key: str | None
    encoded: bytes
    """The whole message, annotations included: what goes over the wire."""
    head: int
    """Bytes of `encoded` before the message annotations."""

    @property
    def data(self) -> tuple[bytes, ...]:
        """The data sections as they were sent."""
        return tuple(s.value for s in sections(self.encoded) if s.code == Section.DATA)

    @property
    def body(self) -> bytes:
        """The data sections, joined."""
        return b"".join(self.data)

    @property
    def properties(self) -> Mapping[str, Any]:
        """The application properties."""
        found = (s.value for s in sections(self.encoded) if s.code == Section.APPLICATION_PROPERTIES)
        return next(found, {})


@dataclass(frozen=True, slots=True)
class _Incoming:
    """A message taken apart: what comes before the annotations, the annotations, what comes after them."""

    head: bytes
    annotations: Mapping[Any, Any]
    rest: bytes


def _take_apart(message: bytes) -> _Incoming:
    head, rest = b"", []
    annotations: Mapping[Any, Any] = {}
    for part in sections(message):
        raw = message[part.start : part.end]
        if part.code == Section.HEADER:
            head = raw
        elif part.code == Section.MESSAGE_ANNOTATIONS:
            annotations = part.value or {}
        elif part.code != Section.DELIVERY_ANNOTATIONS:
            rest.append(raw)
    if not rest:
        raise MalformedFrame("a message without a body")
    return _Incoming(head, annotations, b"".join(rest))


class Partition:
    """A partition: its events, and where they begin after the oldest were deleted."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.first = 0
        """The sequence number of the oldest event that is kept, or of the next one."""
        self.events: list[Event] = []
        self.listeners: set[Callable[[], None]] = set()
        """Called when events were added."""
        self.readers: dict[str, list[Reader]] = {}
        """By consumer group."""
        self.delivered = 0
        """Events handed out, each as often as it was."""
        self._size = 0
        self._last: tuple[int, str, int] = (-1, "-1", 0)

    @property
    def last(self) -> int:
        """The sequence number of the latest event ever; -1: there was none."""
        return self._last[0]

    def append(self, message: _Incoming, key: str | None, now: float) -> Event:
        """Keep one message as the next event."""
        sequence, offset, time = self._last[0] + 1, str(self._size), round(now * 1000)
        pairs = [_SEQUENCE_KEY, encode(sequence), _OFFSET_KEY, encode(offset), _TIME_KEY, encode(Timestamp(time))]
        for name, value in message.annotations.items():
            if name not in _OWN and name != _KEY:
                pairs += (encode(name), encode(value))
        if key is not None:
            pairs += (encode(_KEY), encode(key))
        content = b"".join(pairs)
        sizes = (len(content) + 4).to_bytes(4, "big") + len(pairs).to_bytes(4, "big")
        encoded = b"".join((message.head, _MAP_PREFIX, sizes, content, message.rest))
        event = Event(sequence, offset, time, key, encoded, len(message.head))
        self.events.append(event)
        self._size += len(encoded)
        self._last = (sequence, offset, time)
        return event

    def told(self) -> None:
        """Tell the listeners that there are new events."""
        for listener in list(self.listeners):
            listener()

    def read(self, sequence: int, limit: int) -> list[Event]:
        """Up to `limit` events from this sequence number on, or from the oldest that is left."""
        start = max(0, sequence - self.first)
        return self.events[start : start + limit]

    def trim(self, count: int) -> int:
        """Delete the oldest events, as retention does; returns how many."""
        count = min(count, len(self.events))
        del self.events[:count]
        self.first += count
        return count

    def metrics(self, now: float) -> bytes:
        """The delivery annotations that tell a reader how far the partition is."""
        sequence, offset, time = self._last
        values = {
            Symbol("last_enqueued_sequence_number"): sequence,
            Symbol("last_enqueued_offset"): offset,
            Symbol("last_enqueued_time_utc"): Timestamp(time),
            Symbol("runtime_info_retrieval_time_utc"): Timestamp(round(now * 1000)),
        }
        return section(Section.DELIVERY_ANNOTATIONS, values)

    def stats(self) -> dict[str, Any]:
        """What it holds, what was handed out, and who reads it, as JSON can say it."""
        readers = [
            {"group": reader.group, "level": reader.level, "next": reader.next}
            for group in self.readers.values()
            for reader in group
        ]
        return {
            "first": self.first,
            "last": self.last,
            "events": len(self.events),
            "delivered": self.delivered,
            "readers": readers,
        }

    def describe(self, hub: str) -> dict[str, Any]:
        """What the management node says about it."""
        sequence, offset, time = self._last
        return {
            "name": hub,
            "type": "com.microsoft:partition",
            "partition": self.id,
            "begin_sequence_number": self.first,
            "last_enqueued_sequence_number": sequence,
            "last_enqueued_offset": offset,
            "last_enqueued_time_utc": Timestamp(time),
            "is_partition_empty": not self.events,
        }


def position(partition: Partition, selector: str | None) -> int:
    """The sequence number that a reader starts at. Raises AmqpError for a selector that is none."""
    if selector is None:
        return partition.first
    match = _SELECTOR.fullmatch(selector)
    if match is None:
        raise AmqpError("amqp:invalid-field", "The selector of the link cannot be read.")
    name, operator, value = match.groups()
    if name == "x-opt-offset" and value in {"@latest", "-1"}:
        return partition.last + 1 if value == "@latest" else partition.first
    try:
        number = int(value)
    except ValueError:
        raise AmqpError("com.microsoft:argument-error", "The position in the selector is not a number.") from None
    return _search(partition, name, number, inclusive=operator == ">=")


def _search(partition: Partition, name: str, number: int, *, inclusive: bool) -> int:
    keys: Mapping[str, Callable[[Event], int]] = {
        "x-opt-offset": lambda event: int(event.offset),
        "x-opt-sequence-number": lambda event: event.sequence,
        "x-opt-enqueued-time": lambda event: event.enqueued,
    }
    if name not in keys:
        raise AmqpError("amqp:invalid-field", f"A selector on {name} is not known.")
    last = {"x-opt-offset": int(partition._last[1]), "x-opt-sequence-number": partition.last}.get(name)
    if last is not None and number > last:
        what = name.removeprefix("x-opt-").replace("-", " ")
        text = f"The supplied {what} '{number}' is invalid. The last {what} in the system is '{last}'"
        raise AmqpError("com.microsoft:argument-error", text)
    key = keys[name]
    low, high = 0, len(partition.events)
    while low < high:
        middle = (low + high) // 2
        found = key(partition.events[middle])
        if found < number or (found == number and not inclusive):
            low = middle + 1
        else:
            high = middle
    return partition.first + low


class Hub:
    """An event hub: partitions and consumer groups."""

    def __init__(self, name: str, partitions: int, groups: Iterable[str], now: float) -> None:
        self.name = name
        self.partitions = [Partition(str(number)) for number in range(partitions)]
        self.groups = {group.casefold() for group in groups}
        self.created = now
        self._next = 0

    def partition(self, name: str) -> Partition:
        """A partition by its id. Raises AmqpError if there is none."""
        for partition in self.partitions:
            if partition.id == name:
                return partition
        text = "The specified partition is invalid for an EventHub partition sender or receiver. It should be between"
        raise AmqpError("com.microsoft:argument-out-of-range", f"{text} 0 and {len(self.partitions) - 1}.")

    def choose(self, key: str | None) -> Partition:
        """The partition for a key (a hash of our own, not the service's), or the next in turn."""
        if key is not None:
            return self.partitions[zlib.crc32(key.encode()) % len(self.partitions)]
        self._next = (self._next + 1) % len(self.partitions)
        return self.partitions[self._next]

    def put(self, message: bytes, message_format: int, now: float, partition: Partition | None = None) -> list[Event]:
        """Take a message or a batch of them. Raises MalformedFrame; then nothing was kept."""
        outer = _take_apart(message)
        parts = [outer]
        if message_format == BATCH_FORMAT:
            parts = [_take_apart(s.value) for s in sections(message) if s.code == Section.DATA]
        key = outer.annotations.get(_KEY) or next((p.annotations[_KEY] for p in parts if p.annotations.get(_KEY)), None)
        chosen = partition or self.choose(key)
        events = [chosen.append(part, part.annotations.get(_KEY) or key, now) for part in parts]
        chosen.told()
        return events

    def fill(
        self,
        bodies: Iterable[bytes],
        now: float,
        *,
        partition: Partition | None = None,
        key: Callable[[int], str | None] = lambda _: None,
        properties: Mapping[str, Any] | None = None,
    ) -> int:
        """Put many events at once, without a client; returns how many. `key` gives the partition key of the n-th."""
        head = section(Section.APPLICATION_PROPERTIES, dict(properties)) if properties else b""
        count, touched = 0, set()
        for count, body in enumerate(bodies, 1):
            name = key(count - 1)
            chosen = partition or self.choose(name)
            chosen.append(_Incoming(b"", {}, head + section(Section.DATA, body)), name, now)
            touched.add(chosen)
        for chosen in touched:
            chosen.told()
        return count

    def describe(self) -> dict[str, Any]:
        """What the management node says about it."""
        return {
            "name": self.name,
            "type": "com.microsoft:eventhub",
            "created_at": Timestamp(round(self.created * 1000)),
            "partition_count": len(self.partitions),
            "partition_ids": Array(partition.id for partition in self.partitions),
        }


@dataclass(eq=False, slots=True)
class Reader:
    """A reader of one partition and consumer group; an owner level makes it exclusive."""

    partition: Partition
    group: str
    level: int | None
    name: str
    steal: Callable[[AmqpError], None]
    """Detaches it, with the reason."""
    next: int = field(default=0)

    def register(self) -> None:
        """Take the place of those this one may displace. Raises AmqpError if another has the better right."""
        others = self.partition.readers.setdefault(self.group, [])
        owner = next((reader for reader in others if reader.level is not None), None)
        if self.level is None:
            self._join(others, owner)
        else:
            self._own(others, owner, self.level)
        others.append(self)

    def _join(self, others: Sequence[Reader], owner: Reader | None) -> None:
        if owner is not None:
            text = f"At least one receiver for the endpoint is created with epoch of '{owner.level}', and so non-epoch"
            text += " receiver is not allowed. Either reconnect with a higher epoch, or make sure all epoch receivers"
            raise AmqpError("amqp:link:stolen", f"{text} are closed or disconnected.")
        if len(others) >= READERS_LIMIT:
            text = "Exceeded the maximum number of allowed receivers per partition in a consumer group which is"
            raise AmqpError("amqp:resource-limit-exceeded", f"{text} {READERS_LIMIT}.")

    def _own(self, others: Sequence[Reader], owner: Reader | None, level: int) -> None:
        if owner is not None and owner.level is not None and owner.level > level:
            text = f"At least one receiver for the endpoint is created with epoch of '{owner.level}', and so receiver"
            text += f" with lower epoch '{level}' is not allowed. Either reconnect with a higher epoch, or make sure"
            raise AmqpError("amqp:link:stolen", f"{text} all epoch receivers are closed or disconnected.")
        for other in list(others):
            text = f"New receiver '{self.name}' with higher epoch of '{level}' is created hence current receiver"
            text += f" '{other.name}' with epoch '{other.level}' is getting disconnected. If you are recreating the"
            other.leave()
            other.steal(AmqpError("amqp:link:stolen", f"{text} receiver, make sure a higher epoch is used."))

    def leave(self) -> None:
        """It reads no longer."""
        others = self.partition.readers.get(self.group, [])
        if self in others:
            others.remove(self)


class EventHubsLog:
    """All hubs of a namespace."""

    def __init__(self, hubs: Mapping[str, int], groups: Sequence[str], now: float) -> None:
        self.hubs = {name.casefold(): Hub(name, partitions, groups, now) for name, partitions in hubs.items()}

    def hub(self, name: str) -> Hub:
        """A hub by its name. Raises AmqpError if there is none."""
        hub = self.hubs.get(name.casefold())
        if hub is None:
            raise AmqpError("amqp:not-found", f"The messaging entity '{name}' could not be found.")
        return hub
