"""One owned partition of a log that has no nack: what arrived, what is in hand, what waits, and how far it is done."""

from __future__ import annotations

from bisect import insort
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import takewhile
from operator import attrgetter

from consumer.sources.base import Message, Suspects
from consumer.watermark import Watermark

__all__ = ["LONGEST_WAIT", "MOST_ABOVE", "MOST_ABOVE_A_RETRY", "Partition", "Place"]

LONGEST_WAIT = 30.0
"""Seconds an event may wait here for its next attempt; longer waits are parked in the database."""
MOST_ABOVE_A_RETRY = 1_000
"""Finished events above one that waits for its next attempt, before that one is parked too."""
MOST_ABOVE = 10_000
"""Finished events above one that is being handled, before nothing else is handed out: a slow event bounds memory."""


@dataclass(slots=True, eq=False)
class Place:
    """Where in its partition a message is; its receipt."""

    partition: Partition
    sequence: int
    lane: str | None = None
    due: float = 0.0
    """Monotonic seconds before which it is not handed out; 0: at once."""
    held: bool = False
    """Handed out."""
    parks: bool = False
    """To be parked for its own sake, not for its lane's."""


_sequence = attrgetter("receipt.sequence")


@dataclass(slots=True, eq=False)
class _Lane:
    waiting: list[Message] = field(default_factory=list)
    """In order of their sequence numbers."""
    held: int = 0

    def due(self, now: float) -> int:
        """How many can be handed out now, once none is held: the rest is behind one that waits."""
        return sum(1 for _ in takewhile(lambda message: message.receipt.due <= now, self.waiting))


class Partition:
    """Plays the broker for one ownership of a partition. Takes the time, does no I/O.

    Messages of a lane are handed out in order, and none while an earlier handing-out of that lane is not settled, so
    that whatever goes back can take its place again. With `parks` false nothing leaves for the database.
    """

    def __init__(self, partition_id: str, *, parks: bool = False) -> None:
        self.id = partition_id
        self.watermark = Watermark()
        self.suspects: Suspects | None = None
        """Set when one of what arrives may be what ended an earlier process."""
        self.held: set[Message] = set()
        self._parks = parks
        self.closed = False
        """Whether it is somebody else's, or nobody's, by now."""
        self._lanes: dict[str, _Lane] = {}
        self.waiting_bytes = 0
        """Bytes of what is here and not handed out."""
        self._waiting: dict[int, Message] = {}
        self._retrying = 0
        # Sequence numbers; one that does not wait any more, or not as the first of its lane, is in there in vain.
        self._ready: list[int] = []
        self._delayed: list[tuple[float, int]] = []
        self._leaving: dict[int, Message] = {}
        self._parked_lanes: set[str] = set()

    @property
    def waiting(self) -> int:
        """Messages that are here and not handed out."""
        return len(self._waiting) + len(self._leaving)

    @property
    def oldest(self) -> datetime | None:
        """When the hub accepted the oldest of the messages that are here; None: there are none."""
        here = (self.held, self._waiting.values(), self._leaving.values())
        return min((message.accepted_at for some in here for message in some), default=None)

    def is_full(self, count: int, size: int) -> bool:
        """Whether no more should arrive: so many wait for their turn, ten times as many in all, or so many bytes."""
        fresh = self.waiting - self._retrying
        return fresh > count or self.waiting > 10 * count or self.waiting_bytes > size

    def ready(self, now: float) -> int:
        """Of those, how many could be handed out now."""
        alone = [one.receipt for one in self._waiting.values() if one.receipt.lane is None]
        in_lanes = sum(lane.due(now) for lane in self._lanes.values() if not lane.held)
        return in_lanes + sum(1 for place in alone if place.due <= now)

    def close(self) -> list[Message]:
        """It is somebody else's, or nobody's, by now: what is in hand, which is returned, is lost to its new owner."""
        self.closed = True
        for message in self.held:
            message.lease_until = 0.0
        return list(self.held)

    # Arriving and leaving for handlers

    def arrive(self, message: Message, *, sequence: int, offset: str, lane: str | None) -> bool:
        """Take in an event that was received. False: a repeat of what this ownership holds or has finished."""
        if not self.watermark.begin(sequence, offset):
            return False
        message.receipt = Place(self, sequence, lane)
        message.suspects = self.suspects
        self.waiting_bytes += message.size
        self._line_up(message)
        return True

    def arrive_settled(self, sequence: int, offset: str) -> None:
        """Take note of an event that is durable elsewhere already."""
        if self.watermark.begin(sequence, offset):
            self.watermark.finish(sequence)

    def take(self, limit: int, now: float) -> list[Message]:
        """Hand out up to so many messages that are due, in the order of their sequence numbers."""
        taken: list[Message] = []
        while self._delayed and self._delayed[0][0] <= now:
            heappush(self._ready, heappop(self._delayed)[1])
        while len(taken) < limit and self._may_go:
            message = self._waiting.get(heappop(self._ready))
            if message is not None:
                taken += self._take_from(message, limit - len(taken), now)
        return taken

    @property
    def _may_go(self) -> bool:
        """Whether the first in line may be handed out; what holds the position back always may."""
        if not self._ready or self.watermark.waiting < MOST_ABOVE:
            return bool(self._ready)
        lowest = self.watermark.lowest_open
        return lowest is None or self._ready[0] <= lowest

    def _take_from(self, message: Message, limit: int, now: float) -> list[Message]:
        """A message, or what is due of its lane; nothing while the lane has one in hand."""
        taken = [message]
        if message.receipt.lane is not None:
            lane = self._lanes[message.receipt.lane]
            if lane.held:
                return []
            end = min(limit, lane.due(now))
            taken, lane.waiting = lane.waiting[:end], lane.waiting[end:]
            lane.held = end
        for one in taken:
            self._out_of_line(one)
            self.waiting_bytes -= one.size
            one.receipt.held = True
        self.held.update(taken)
        return taken

    @property
    def next_due(self) -> float | None:
        """When there is something to take: 0 at once, monotonic seconds, or None until something changes."""
        if self._may_go:
            return 0.0
        return self._delayed[0][0] if self._delayed else None

    # Coming back from handlers

    def finish(self, message: Message) -> bool:
        """A message handed out is done. False: it is not ours any more."""
        if not self._returned(message):
            return False
        self.watermark.finish(message.receipt.sequence)
        self._leave_lane(message)
        return True

    def give_back(self, message: Message, *, delay: float, now: float) -> bool:
        """A message handed out goes back, to be handed out again after a while. False: it is not ours any more."""
        if not self._returned(message):
            return False
        self.waiting_bytes += message.size
        message.receipt.due = now + delay if delay > 0 else 0.0
        if self._parks and delay > LONGEST_WAIT:
            message.receipt.parks = True
            self._leave(message)
        else:
            self._line_up(message)
        self._leave_lane(message)
        return True

    def hasten(self, message_id: str) -> bool:
        """Let an event that waits for its next attempt be due now. False: no such event waits here."""
        found = next((one for one in self._waiting.values() if one.message_id == message_id), None)
        if found is None or not found.receipt.due:
            return False
        place: Place = found.receipt
        entry = (place.due, place.sequence)
        place.due = 0.0
        self._retrying -= 1
        if entry in self._delayed:
            # Left there, it would hand the event out early should it have to wait once more.
            self._delayed.remove(entry)
            heapify(self._delayed)
            lane = None if place.lane is None else self._lanes[place.lane]
            if lane is None or (lane.waiting[0] is found and not lane.held):
                self._enqueue(found)
        return True

    def join(self, message: Message, name: str, *, follows: bool) -> bool:
        """A message handed out without a lane turns out to belong to one. False: it must go back and wait there.

        `follows` says that the caller holds the lane's head and keeps the message behind it.
        """
        place: Place = message.receipt
        lane = self._lane(name)
        # One that had joined before is handed out again from its lane, when it is its turn.
        if place.lane != name:
            self._leave_lane(message)
            place.lane = name
            lane.held += 1
            if lane.held > 1 and not follows:
                return False
        overtakes = bool(lane.waiting) and lane.waiting[0].receipt.sequence < place.sequence
        return name not in self._parked_lanes and not overtakes

    def _returned(self, message: Message) -> bool:
        if self.closed or not message.receipt.held:
            return False
        message.receipt.held = False
        self.held.discard(message)
        return True

    # Waiting in line

    def _line_up(self, message: Message) -> None:
        place: Place = message.receipt
        if place.lane is not None and place.lane in self._parked_lanes:
            self._leave(message)
            return
        self._waiting[place.sequence] = message
        self._retrying += place.due > 0
        if place.lane is None:
            self._enqueue(message)
        else:
            lane = self._lane(place.lane)
            insort(lane.waiting, message, key=_sequence)
            if lane.waiting[0] is message:
                self._line_up_lane(lane)

    def _out_of_line(self, message: Message) -> None:
        if self._waiting.pop(message.receipt.sequence, None) is not None:
            self._retrying -= message.receipt.due > 0

    def _lane(self, name: str) -> _Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane()
        return lane

    def _leave_lane(self, message: Message) -> None:
        name = message.receipt.lane
        if name is None:
            return
        lane = self._lanes[name]
        lane.held -= 1
        if lane.held == 0 and not lane.waiting:
            del self._lanes[name]
        else:
            self._line_up_lane(lane)

    def _line_up_lane(self, lane: _Lane) -> None:
        if lane.waiting and not lane.held:
            self._enqueue(lane.waiting[0])

    def _enqueue(self, message: Message) -> None:
        place: Place = message.receipt
        if place.due:
            heappush(self._delayed, (place.due, place.sequence))
        else:
            heappush(self._ready, place.sequence)

    # Parking

    def lanes_are_parked(self, lanes: Iterable[str]) -> None:
        """The database holds events of these lanes: what arrives in them goes behind those."""
        self._parked_lanes.update(lanes)

    @property
    def parked_lanes(self) -> set[str]:
        """The lanes whose events go to the database."""
        return set(self._parked_lanes)

    @property
    def must_park(self) -> bool:
        """Whether `to_park` has something."""
        return bool(self._leaving) or self._pinning() is not None

    def to_park(self) -> list[Message]:
        """What has to be parked, in order: what waits too long or holds back too much, and what is behind it.

        It stays listed until `parked` or `reopen`.
        """
        while (pinning := self._pinning()) is not None:
            pinning.receipt.parks = True
            self._leave(pinning)
        return sorted(self._leaving.values(), key=_sequence)

    def doubtful_lanes(self) -> set[str]:
        """Lanes of what is to be parked only because the database holds, or held, something of the lane."""
        lanes = {one.receipt.lane for one in self._leaving.values() if one.receipt.lane is not None}
        return lanes - {one.receipt.lane for one in self._leaving.values() if one.receipt.parks}

    def parked(self, messages: Iterable[Message]) -> None:
        """These are durable in the database."""
        for message in messages:
            sequence = message.receipt.sequence
            if self._leaving.pop(sequence, None) is not None:
                self.waiting_bytes -= message.size
                self.watermark.finish(sequence)

    def reopen(self, lanes: Collection[str]) -> None:
        """The database holds nothing of these lanes any more: what was to go behind it runs from here.

        But for a lane of which something has to be parked for its own sake by now.
        """
        opened = set(lanes) - {one.receipt.lane for one in self._leaving.values() if one.receipt.parks}
        self._parked_lanes -= opened
        for message in [one for one in self._leaving.values() if one.receipt.lane in opened]:
            del self._leaving[message.receipt.sequence]
            self._line_up(message)

    def _pinning(self) -> Message | None:
        """The event that waits for its next attempt while too many finished ones wait above it."""
        if not self._parks or self.watermark.waiting <= MOST_ABOVE_A_RETRY:
            return None
        lowest = self.watermark.lowest_open
        message = self._waiting.get(lowest) if lowest is not None else None
        return message if message is not None and message.receipt.due else None

    def _leave(self, message: Message) -> None:
        """Out of the line, with everything behind it in its lane."""
        name = message.receipt.lane
        leaving = [message]
        if name is not None:
            self._parked_lanes.add(name)
            lane = self._lanes.get(name)
            if lane is not None:
                leaving += lane.waiting
                lane.waiting = []
                if not lane.held:
                    del self._lanes[name]
        for one in leaving:
            self._out_of_line(one)
            self._leaving[one.receipt.sequence] = one
