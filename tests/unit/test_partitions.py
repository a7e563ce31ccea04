"""One owned partition, played with a worker, a database and owners that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer import partitions
from consumer.partitions import Partition
from consumer.sources.base import Message, Suspects

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MOST_ABOVE_A_RETRY = 4
MOST_ABOVE = 8


@pytest.fixture(autouse=True)
def _small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MOST_ABOVE_A_RETRY", MOST_ABOVE_A_RETRY)
    monkeypatch.setattr(partitions, "MOST_ABOVE", MOST_ABOVE)


def event(sequence: int) -> Message:
    return Message(b"x" * (sequence % 3), f"0-{sequence}", None, NOW)


def filled(count: int, *, lane: str | None = None, parks: bool = False) -> Partition:
    """A partition into which events 0, 1, 2... have arrived."""
    partition = Partition("0", parks=parks)
    for sequence in range(count):
        assert partition.arrive(event(sequence), sequence=sequence, offset=str(sequence), lane=lane)
    return partition


def numbers(messages: list[Message]) -> list[int]:
    return [message.receipt.sequence for message in messages]


@pytest.mark.parametrize("delay", [0.0, 10.0])
def test_the_event_that_holds_everything_back_is_handed_out(delay: float) -> None:
    """However much is finished above it, an event that went back gets its turn, and everything goes on."""
    partition = filled(MOST_ABOVE + 3)
    slow, *others = partition.take(MOST_ABOVE + 1, now=0.0)
    for message in others:
        assert partition.finish(message)
    assert (partition.take(10, now=0.0), partition.next_due) == ([], None)
    assert partition.give_back(slow, delay=delay, now=0.0)
    assert partition.next_due == delay
    assert partition.take(10, now=delay) == [slow]
    assert partition.finish(slow)
    assert len(partition.take(10, now=delay)) == 2


def test_what_goes_back_takes_its_place_again() -> None:
    """An event that went back unopened is handed out before later ones, whose member may be the same."""
    partition = filled(6)
    for message in reversed(partition.take(3, now=0.0)):
        partition.give_back(message, delay=0.0, now=0.0)
    assert numbers(partition.take(5, now=0.0)) == [0, 1, 2, 3, 4]


def test_a_lane_found_by_opening_lasts_over_attempts() -> None:
    """An event that joined its lane, went back and is handed out again joins it again, as often as it takes."""
    partition = filled(2)
    for attempt in range(4):
        (message,) = partition.take(1, now=attempt * 10.0)
        assert partition.join(message, "a", follows=False)
        partition.give_back(message, delay=10.0, now=attempt * 10.0)
    (second,) = partition.take(1, now=39.0)
    assert not partition.join(second, "a", follows=False)
    partition.give_back(second, delay=0.0, now=39.0)
    taken = partition.take(5, now=40.0)
    assert taken == [message, second]
    assert partition.join(message, "a", follows=False)
    assert partition.join(second, "a", follows=True)


def test_an_event_may_turn_out_to_belong_elsewhere() -> None:
    """When other secrets show another member in an event, it leaves the lane that it was in."""
    partition = filled(2)
    first, second = partition.take(2, now=0.0)
    assert partition.join(first, "a", follows=False)
    assert partition.join(first, "b", follows=False)
    assert partition.join(second, "a", follows=False)
    assert partition.finish(first)
    assert partition.finish(second)
    assert partition.watermark.position == (1, "1")


def test_a_lane_in_line_waits_for_one_that_joined_it() -> None:
    """While an event that joined a lane later is in hand, those of the lane that wait are not handed out."""
    partition = filled(2)
    first, second = partition.take(2, now=0.0)
    assert partition.join(second, "a", follows=False)
    partition.give_back(second, delay=0.0, now=0.0)
    assert partition.join(first, "a", follows=False)
    assert partition.take(5, now=0.0) == []
    partition.give_back(first, delay=5.0, now=0.0)
    assert partition.take(5, now=0.0) == []
    assert partition.take(5, now=5.0) == [first, second]


def test_an_event_waits_for_those_of_its_lane_in_hand() -> None:
    """One that joins a lane of which another is in hand goes back, unless its worker keeps it behind that one."""
    partition = filled(3)
    first, second, third = partition.take(3, now=0.0)
    assert partition.join(first, "a", follows=False)
    assert partition.join(second, "a", follows=True)
    assert not partition.join(third, "a", follows=False)
    partition.give_back(third, delay=0.0, now=0.0)
    partition.finish(first)
    assert partition.take(1, now=0.0) == []
    partition.finish(second)
    assert partition.take(1, now=0.0) == [third]


def test_a_lane_goes_as_far_as_it_is_due() -> None:
    """What is due of a lane is handed out up to the first that has to wait."""
    partition = filled(3, lane="a")
    for message in partition.take(3, now=0.0):
        partition.give_back(message, delay=10.0 * (message.receipt.sequence == 1), now=0.0)
    assert partition.ready(0.0) == 1
    (first,) = partition.take(3, now=0.0)
    partition.finish(first)
    assert partition.take(3, now=9.0) == []
    assert numbers(partition.take(3, now=10.0)) == [1, 2]


def test_a_retry_with_much_above_it_is_for_the_database() -> None:
    """A short wait that holds back more than so many finished events is parked; one that can go at once is not."""
    for delay in (10.0, 0.0):
        partition = filled(MOST_ABOVE_A_RETRY + 2, parks=True)
        first, *others = partition.take(100, now=0.0)
        assert partition.give_back(first, delay=delay, now=0.0)
        for message in others[:-1]:
            partition.finish(message)
        assert not partition.must_park
        partition.finish(others[-1])
        assert partition.must_park is (delay > 0)
        assert partition.to_park() == ([first] if delay > 0 else [])
        assert partition.take(1, now=10.0) == ([] if delay > 0 else [first])
        partition.parked(partition.to_park())
        assert (partition.watermark.position is not None) is (delay > 0)


def test_later_events_of_a_lane_follow_it_into_the_database() -> None:
    """Once a lane has left, what arrives in it leaves too, until the database holds nothing of it any more."""
    partition = filled(1, lane="a", parks=True)
    (head,) = partition.take(1, now=0.0)
    partition.give_back(head, delay=100.0, now=0.0)
    partition.parked(partition.to_park())
    for sequence in (1, 2):
        partition.arrive(event(sequence), sequence=sequence, offset=str(sequence), lane="a")
    assert partition.take(2, now=0.0) == []
    assert (numbers(partition.to_park()), partition.doubtful_lanes()) == ([1, 2], {"a"})
    partition.reopen({"a"})
    assert not partition.must_park
    assert numbers(partition.take(2, now=0.0)) == [1, 2]


def test_a_lane_in_the_database_is_joined_there() -> None:
    """An event that turns out to belong to a parked lane must go back, and goes behind what is parked."""
    partition = filled(1, parks=True)
    partition.lanes_are_parked({"a"})
    (message,) = partition.take(1, now=0.0)
    assert not partition.join(message, "a", follows=False)
    assert partition.give_back(message, delay=0.0, now=0.0)
    assert (partition.to_park(), partition.doubtful_lanes()) == ([message], {"a"})


def test_a_long_wait_is_for_the_database() -> None:
    """A wait of more than 30 seconds leaves with everything behind it in its lane; without a database it stays."""
    partition = filled(3, lane="a", parks=True)
    (head,) = partition.take(1, now=0.0)
    partition.give_back(head, delay=31.0, now=0.0)
    assert numbers(partition.to_park()) == [0, 1, 2]
    assert partition.doubtful_lanes() == set()
    partition.parked(partition.to_park())
    assert partition.watermark.position == (2, "2")

    partition = filled(1)
    (head,) = partition.take(1, now=0.0)
    partition.give_back(head, delay=3600.0, now=0.0)
    assert (partition.must_park, partition.next_due, partition.ready(3599.0)) == (False, 3600.0, 0)
    assert partition.take(1, now=3600.0) == [head]


def test_what_has_to_wait_long_by_now_is_not_taken_back() -> None:
    """A lane that the database held nothing of when asked stays on its way there if one of it has to wait long."""
    partition = filled(1, lane="a", parks=True)
    (head,) = partition.take(1, now=0.0)
    partition.lanes_are_parked({"a"})
    partition.arrive(event(1), sequence=1, offset="1", lane="a")
    assert partition.doubtful_lanes() == {"a"}
    partition.give_back(head, delay=60.0, now=0.0)
    partition.reopen({"a"})
    assert numbers(partition.to_park()) == [0, 1]


def test_the_first_to_arrive_may_be_suspect() -> None:
    """After an unclean end what arrives knows that it may have been the cause, and of how many others."""
    partition = Partition("0")
    partition.suspects = Suspects(2)
    messages = [event(sequence) for sequence in (5, 6, 7)]
    for message, sequence in zip(messages, (5, 6, 7), strict=True):
        partition.arrive(message, sequence=sequence, offset="", lane=None)
    assert {message.suspects for message in messages} == {partition.suspects}


def test_nothing_is_settled_after_the_end() -> None:
    """What is in hand when the partition goes to another owner is lost to it, and its lease has ended."""
    partition = filled(2)
    first, second = partition.take(2, now=0.0)
    partition.close()
    assert not partition.finish(first)
    assert not partition.give_back(second, delay=1.0, now=0.0)
    assert first.lease_until == second.lease_until == 0.0
    assert partition.watermark.position is None


def test_how_full_it_is() -> None:
    """What waits for a retry does not keep new events out, unless there is very much of it, or of bytes."""
    partition = filled(6)
    assert partition.is_full(5, 1_000)
    assert not partition.is_full(6, 1_000)
    assert not partition.is_full(6, 6)
    assert partition.is_full(6, 5)
    for message in partition.take(6, now=0.0):
        assert partition.give_back(message, delay=10.0, now=0.0)
    assert partition.waiting == 6
    assert not partition.is_full(1, 1_000)
    partition.arrive(event(6), sequence=6, offset="6", lane=None)
    assert partition.is_full(0, 1_000)


@dataclass
class Row:
    """An event in the database."""

    lane: str | None
    due: float


@dataclass
class Settling:
    """A settlement on its way to the source."""

    message: Message
    delay: float | None
    """None: it is done."""


class PartitionMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: order within lanes, nothing lost, nothing stuck, and the counts are true.

    The worker is played as the real one works: a lane's followers wait for its head, the next head starts when the one
    before is done though not yet settled, and when a head goes back its followers go back with it.
    """

    @initialize(by_key=st.booleans(), parks=st.booleans(), lanes=st.lists(st.sampled_from("aab-"), min_size=8))
    def begin(self, by_key: bool, parks: bool, lanes: list[str]) -> None:
        self.by_key = by_key
        self.parks = parks
        self.log = [None if lane == "-" else lane for lane in lanes]
        self.now = 1.0
        self.saved = -1
        self.done: set[int] = set()
        self.table: dict[int, Row] = {}
        self.open_new()

    def open_new(self) -> None:
        self.partition = Partition("0", parks=self.parks)
        if self.parks:
            self.partition.lanes_are_parked({row.lane for row in self.table.values() if row.lane is not None})
        self.next = self.saved + 1
        self.arrived: set[int] = set()
        self.finished: set[int] = set()
        self.parked: set[int] = set()
        self.in_hand: dict[int, Message] = {}
        """Handed out, and not settled yet."""
        self.due: dict[int, float] = {}
        self.heads: list[Message] = []
        self.lanes: dict[str, list[Message]] = {}
        """The followers of each head that has a lane."""
        self.settling: list[Settling] = []
        self.asked: set[str] | None = None
        """Lanes that the database had nothing of when it was last asked."""
        self.parking: list[Message] = []
        """In the database, and the partition does not know it yet."""

    def run(self, sequence: int) -> None:
        """The effect of an event: the first one must come after those of all earlier events of its lane."""
        lane = self.log[sequence]
        if lane is not None and sequence not in self.done:
            assert {one for one in range(sequence) if self.log[one] == lane} <= self.done
        self.done.add(sequence)

    # The hub

    @rule(lanes=st.lists(st.sampled_from("ab-"), min_size=1, max_size=4))
    def publish(self, lanes: list[str]) -> None:
        self.log += [None if lane == "-" else lane for lane in lanes]

    @rule(count=st.integers(1, 6))
    def arrive(self, count: int) -> None:
        for sequence in range(self.next, min(self.next + count, len(self.log))):
            lane = self.log[sequence] if self.by_key else None
            assert self.partition.arrive(event(sequence), sequence=sequence, offset=str(sequence), lane=lane)
            self.arrived.add(sequence)
            self.next = sequence + 1

    @precondition(lambda self: self.arrived)
    @rule(data=st.data())
    def arrive_again(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(sorted(self.arrived)))
        assert not self.partition.arrive(event(sequence), sequence=sequence, offset="", lane=None)

    # The worker

    @rule(limit=st.sampled_from([1, 2, 3, 100]), refused=st.integers(0, 2))
    def take(self, limit: int, refused: int = 0) -> None:
        partition = self.partition
        is_full = partition.watermark.waiting >= MOST_ABOVE
        ready, lowest, next_due = partition.ready(self.now), partition.watermark.lowest_open, partition.next_due
        taken = partition.take(limit, self.now)
        if next_due is None or next_due > self.now:
            assert not taken
        after = partition.next_due
        assert taken or after is None or after > self.now
        if is_full:
            assert not taken or numbers(taken)[0] == lowest
            assert len({message.receipt.lane for message in taken}) <= 1
            assert len(taken) <= 1 or taken[0].receipt.lane is not None
        else:
            assert len(taken) == min(limit, ready)
        self.check(taken)
        # The worker has no room for the last ones. By key they may come back whenever they do; what is not known to
        # be of a lane has to be back before the next are taken.
        kept = max(0, len(taken) - refused)
        for message in taken[:kept]:
            self.admit(message)
        for message in taken[kept:]:
            self.settle_later(message, 0.0)
            if not self.by_key:
                self.settle(self.settling[-1])

    def check(self, taken: list[Message]) -> None:
        in_lanes = {one.receipt.lane for one in self.in_hand.values()} - {None}
        for message in taken:
            sequence = message.receipt.sequence
            assert sequence in self.arrived - self.finished - self.parked
            assert sequence not in self.in_hand
            assert self.due.pop(sequence, 0.0) <= self.now
            assert message.receipt.lane not in in_lanes
        for lane in ("a", "b"):
            of_lane = numbers([message for message in taken if message.receipt.lane == lane])
            assert of_lane == sorted(of_lane)
        self.in_hand |= {message.receipt.sequence: message for message in taken}

    def admit(self, message: Message) -> None:
        lane = self.log[message.receipt.sequence]
        if lane is None:
            self.heads.append(message)
        elif not self.by_key and not self.partition.join(message, lane, follows=lane in self.lanes):
            self.settle_later(message, 0.0)
        elif lane in self.lanes:
            self.lanes[lane].append(message)
        else:
            self.lanes[lane] = []
            self.heads.append(message)

    def settle_later(self, message: Message, delay: float | None) -> None:
        self.settling.append(Settling(message, delay))

    @precondition(lambda self: self.heads)
    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        self.succeed(data.draw(st.sampled_from(self.heads)))

    def succeed(self, head: Message) -> None:
        sequence = head.receipt.sequence
        self.heads.remove(head)
        self.run(sequence)
        self.settle_later(head, None)
        lane = self.log[sequence]
        if lane is None:
            return
        if self.lanes[lane]:
            self.heads.append(self.lanes[lane].pop(0))
        else:
            del self.lanes[lane]

    @precondition(lambda self: self.heads)
    @rule(data=st.data(), delay=st.sampled_from([0.0, 1.0, 20.0, 31.0, 3600.0]))
    def retry(self, data: st.DataObject, delay: float) -> None:
        head = data.draw(st.sampled_from(self.heads))
        self.heads.remove(head)
        self.settle_later(head, delay)
        for follower in self.lanes.pop(self.log[head.receipt.sequence] or "", []):
            self.settle_later(follower, 0.0)

    @precondition(lambda self: self.settling)
    @rule(random=st.randoms(use_true_random=False), count=st.sampled_from([1, 2, 100]))
    def settle_some(self, random: Random, count: int) -> None:
        """Settlements go out in batches of a kind, so they may overtake each other."""
        for settling in random.sample(self.settling, min(count, len(self.settling))):
            self.settle(settling)

    def settle(self, settling: Settling) -> None:
        self.settling.remove(settling)
        message, delay = settling.message, settling.delay
        sequence = message.receipt.sequence
        del self.in_hand[sequence]
        if delay is None:
            assert self.partition.finish(message)
            self.finished.add(sequence)
            return
        assert self.partition.give_back(message, delay=delay, now=self.now)
        if delay > 0:
            self.due[sequence] = self.now + delay
        if self.parks and delay > 30:
            assert message in self.partition.to_park()
        assert not self.partition.give_back(message, delay=delay, now=self.now)

    @rule(seconds=st.sampled_from([0.5, 5.0, 31.0, 4000.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def hasten(self, data: st.DataObject) -> None:
        """What waits here comes now; what has left, or is in hand, does not."""
        sequence = data.draw(st.sampled_from(sorted(self.due)))
        waits = sequence in self.partition._waiting
        assert self.partition.hasten(f"0-{sequence}") == waits
        if waits:
            del self.due[sequence]

    # The database

    @precondition(lambda self: self.asked is None and not self.parking and self.partition.must_park)
    @rule()
    def ask_for_lanes(self) -> None:
        leaving = self.partition.to_park()
        assert leaving
        assert numbers(leaving) == sorted(numbers(leaving))
        self.asked = self.partition.doubtful_lanes() - {row.lane for row in self.table.values()}

    @precondition(lambda self: self.asked is not None)
    @rule(chunk=st.integers(1, 4))
    def park(self, chunk: int) -> None:
        self.partition.reopen(self.asked or set())
        self.asked = None
        self.parking = self.partition.to_park()[:chunk]
        for message in self.parking:
            place = message.receipt
            lane = self.log[place.sequence] if place.lane is not None else None
            self.table.setdefault(place.sequence, Row(lane, place.due))

    @precondition(lambda self: self.parking)
    @rule()
    def know_it_parked(self) -> None:
        self.partition.parked(self.parking)
        self.parked |= set(numbers(self.parking))
        self.parking = []

    def due_rows(self) -> Iterator[int]:
        fronts: set[str | None] = set()
        for sequence, row in sorted(self.table.items()):
            if row.due <= self.now and (row.lane is None or row.lane not in fronts):
                yield sequence
            fronts.add(row.lane)

    @precondition(lambda self: any(self.due_rows()))
    @rule(data=st.data(), delay=st.none() | st.sampled_from([1.0, 100.0]))
    def run_parked(self, data: st.DataObject, delay: float | None) -> None:
        sequence = data.draw(st.sampled_from(list(self.due_rows())))
        if delay is None:
            self.run(sequence)
            del self.table[sequence]
        else:
            self.table[sequence].due = self.now + delay

    # Owners

    @rule()
    def save(self) -> None:
        position = self.partition.watermark.position
        self.saved = max(self.saved, -1 if position is None else position[0])

    @rule(clean=st.booleans())
    def change_hands(self, clean: bool) -> None:
        if clean:
            self.save()
        self.partition.close()
        for message in self.in_hand.values():
            assert not self.partition.finish(message)
            assert message.lease_until == 0.0
        self.open_new()

    # What always holds

    @invariant()
    def counts_are_true(self) -> None:
        waiting = self.arrived - set(self.in_hand) - self.finished - self.parked
        assert self.partition.waiting == len(waiting)
        assert self.partition.waiting_bytes == sum(sequence % 3 for sequence in waiting)
        assert self.partition.held == set(self.in_hand.values())
        assert self.partition.watermark.unfinished == len(waiting) + len(self.in_hand)
        assert self.partition.ready(self.now) <= len(waiting)

    @invariant()
    def nothing_is_passed_unfinished(self) -> None:
        position = self.partition.watermark.position
        for passed in {self.saved, -1 if position is None else position[0]}:
            assert set(range(passed + 1)) <= self.done | set(self.table)

    @invariant()
    def a_retry_does_not_hold_much_back(self) -> None:
        mark = self.partition.watermark
        if self.parks and mark.waiting > MOST_ABOVE_A_RETRY and mark.lowest_open in self.due:
            assert self.partition.must_park
            assert mark.lowest_open in numbers(self.partition.to_park())

    @invariant()
    def memory_is_bounded(self) -> None:
        partition = self.partition
        assert len(partition._ready) + len(partition._delayed) <= 3 * len(self.arrived) + 20
        known = {one.receipt.lane for one in [*partition._waiting.values(), *partition.held]}
        assert set(partition._lanes) == known - {None}

    def teardown(self) -> None:
        """When all goes well from now on, everything ends."""
        for _ in range(len(self.log) + 20):
            self.now += 5000.0
            self.arrive(len(self.log))
            self.take(100)
            while self.heads:
                self.succeed(self.heads[0])
            while self.settling:
                self.settle(self.settling[-1])
            self.know_it_parked()
            if self.partition.must_park:
                self.ask_for_lanes()
                self.park(100)
                self.know_it_parked()
            for sequence in list(self.due_rows()):
                self.run(sequence)
                del self.table[sequence]
        assert self.done == set(range(len(self.log)))
        assert not self.table
        partition = self.partition
        assert (partition.waiting, partition.held, partition.must_park) == (0, set(), False)
        assert partition.watermark.unfinished == partition.watermark.waiting == 0
        self.save()
        assert self.saved == len(self.log) - 1
        assert (partition._lanes, partition._retrying, partition.waiting_bytes) == ({}, 0, 0)


class TestPartition(PartitionMachine.TestCase):  # type: ignore[misc, name-defined]  # made by hypothesis
    settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
