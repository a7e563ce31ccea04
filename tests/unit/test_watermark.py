"""How far a partition is done, whatever the order in which its events finish and whoever owns it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from consumer import watermark
from consumer.watermark import Watermark


def test_nothing_is_done_at_first() -> None:
    """A new ownership has nothing to write down, however much it has in hand."""
    mark = Watermark()
    assert (mark.position, mark.highest, mark.lowest_open) == (None, None, None)
    assert mark.begin(7, "70")
    assert (mark.position, mark.highest, mark.lowest_open, mark.unfinished) == (None, 7, 7, 1)


def test_an_unfinished_event_holds_the_position_back() -> None:
    """Everything above an unfinished event waits; once that is finished, the position is where all of it ends."""
    mark = Watermark()
    for sequence in (1, 2, 3, 4):
        mark.begin(sequence, str(sequence * 10))
    for sequence in (1, 3, 4):
        assert mark.finish(sequence)
    assert (mark.position, mark.waiting, mark.lowest_open) == ((1, "10"), 2, 2)
    assert mark.finish(2)
    assert (mark.position, mark.waiting, mark.lowest_open) == ((4, "40"), 0, None)


def test_what_is_not_open_cannot_finish() -> None:
    """An event that never began, or has finished, changes nothing when it finishes."""
    mark = Watermark()
    assert not mark.finish(1)
    mark.begin(1, "10")
    assert mark.finish(1)
    assert not mark.finish(1)
    assert mark.position == (1, "10")


def test_late_events_are_told_from_repeats() -> None:
    """Each event of a gap is taken once, whenever it comes, and does not take the position back."""
    mark = Watermark()
    for sequence in (0, 5):
        mark.begin(sequence, str(sequence))
        mark.finish(sequence)
    for sequence in (3, 1, 2, 4):
        assert mark.begin(sequence, str(sequence))
        assert not mark.begin(sequence, str(sequence))
        assert mark.lowest_open == sequence
        assert mark.finish(sequence)
        assert not mark.begin(sequence, str(sequence))
        assert mark.position == (5, "5")
    mark.begin(6, "6")
    mark.begin(7, "7")
    mark.finish(7)
    assert not mark.begin(7, "7")


def test_gaps_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late event is told from a repeat by the gap it left; very many gaps are not all remembered."""
    mark = Watermark()
    for sequence in range(0, 10 * watermark._GAPS, 2):
        assert mark.begin(sequence, "")
    assert len(mark._gaps) == watermark._GAPS
    assert not mark.begin(1, "")
    assert mark.begin(10 * watermark._GAPS - 3, "")
    assert not mark.begin(10 * watermark._GAPS - 3, "")


@given(st.lists(st.integers(0, 15), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_any_arrivals_in_any_order_end_with_the_highest(sequences: list[int], random: object) -> None:
    """Once everything that began is finished, nothing is open, nothing waits, and the position is the highest."""
    mark = Watermark()
    begun = [sequence for sequence in sequences if mark.begin(sequence, str(sequence))]
    assert len(set(begun)) == len(begun)
    random.shuffle(begun)  # type: ignore[attr-defined]  # hypothesis has no class of its own to name
    assert all(mark.finish(sequence) for sequence in begun)
    assert mark.position == (max(begun), str(max(begun)))
    assert (mark.unfinished, mark.waiting, mark.lowest_open) == (0, 0, None)


@dataclass
class Blob:
    """What is written down, with who wrote it last: a save compares before it sets."""

    position: int = -1
    owner: int = 0


@dataclass
class Ownership:
    """One owner's time with the partition, with plain sets beside the watermark under test."""

    number: int
    mark: Watermark = field(default_factory=Watermark)
    next: int = 0
    """What the service sends it next."""
    first: int | None = None
    open: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    """Jumped over, and not come since."""
    late: set[int] = field(default_factory=set)
    """Came after the position had passed them."""
    unprotected: set[int] = field(default_factory=set)
    """Jumped over, and not come before the position passed them, if it did."""
    before: int = -1
    """The position when it was last looked at."""

    @property
    def seen(self) -> set[int]:
        return self.open | self.finished


class WatermarkMachine(RuleBasedStateMachine):
    """Two owners read one log; ownership moves and crashes at any moment, and the old owner does not know at once."""

    @initialize()
    def begin(self) -> None:
        self.blob = Blob()
        self.done: set[int] = set()
        """Finished by anybody."""
        self.never_came: set[int] = set()
        """Jumped over in an ownership whose position passed them and was written down."""
        self.length = 0
        self.numbers = 0
        self.owner = self.stale = self.open_new()

    def open_new(self) -> Ownership:
        self.numbers += 1
        self.blob.owner = self.numbers
        return Ownership(self.numbers, next=self.blob.position + 1)

    @rule(count=st.integers(1, 5))
    def publish(self, count: int) -> None:
        self.length += count

    def arrive(self, owner: Ownership, sequence: int) -> None:
        new = owner.mark.begin(sequence, str(sequence))
        below_the_first = owner.first is not None and sequence < owner.first
        assert new is (sequence not in owner.seen and not below_the_first)
        if not new:
            return
        if owner.first is None:
            owner.first = sequence
        position = owner.mark.position
        if position is not None and sequence < position[0]:
            owner.late.add(sequence)
        else:
            owner.unprotected.discard(sequence)
        owner.open.add(sequence)
        owner.skipped.discard(sequence)

    @rule(count=st.integers(1, 5), old=st.booleans())
    def receive(self, count: int, old: bool) -> None:
        """In order; both owners may be served for a while."""
        owner = self.stale if old else self.owner
        for sequence in range(owner.next, min(self.length, owner.next + count)):
            self.arrive(owner, sequence)
            owner.next = sequence + 1

    @precondition(lambda self: self.owner.next + 1 < self.length)
    @rule()
    def jump_over_one(self) -> None:
        owner = self.owner
        if owner.first is not None:
            owner.skipped.add(owner.next)
        owner.unprotected.add(owner.next)
        self.arrive(owner, owner.next + 1)
        owner.next += 2

    @precondition(lambda self: self.owner.skipped)
    @rule(data=st.data())
    def come_late(self, data: st.DataObject) -> None:
        self.arrive(self.owner, data.draw(st.sampled_from(sorted(self.owner.skipped))))

    @precondition(lambda self: self.owner.seen)
    @rule(data=st.data())
    def come_again(self, data: st.DataObject) -> None:
        self.arrive(self.owner, data.draw(st.sampled_from(sorted(self.owner.seen))))

    @rule(data=st.data(), old=st.booleans(), count=st.integers(1, 4))
    def finish(self, data: st.DataObject, old: bool, count: int) -> None:
        owner = self.stale if old else self.owner
        for _ in range(min(count, len(owner.open))):
            sequence = data.draw(st.sampled_from(sorted(owner.open)))
            assert owner.mark.finish(sequence)
            assert not owner.mark.finish(sequence)
            owner.open.discard(sequence)
            owner.finished.add(sequence)
            self.done.add(sequence)

    @rule(old=st.booleans())
    def save(self, old: bool) -> None:
        owner = self.stale if old else self.owner
        position = owner.mark.position
        if position is not None and self.blob.owner == owner.number and position[0] > self.blob.position:
            self.blob.position = position[0]
            self.never_came |= {one for one in owner.unprotected if one <= position[0]}

    @rule()
    def crash(self) -> None:
        """What was in memory is gone, with whatever was not written down."""
        self.owner = self.stale = self.open_new()

    @rule()
    def move(self) -> None:
        """Somebody else takes the partition; the one who had it goes on for now."""
        self.stale, self.owner = self.owner, self.open_new()

    @invariant()
    def nothing_is_lost(self) -> None:
        passed = set(range(self.blob.position + 1))
        assert passed - self.done <= self.never_came

    @invariant()
    def the_position_is_as_far_as_it_can_be(self) -> None:
        for owner in (self.owner, self.stale):
            mark = owner.mark
            said = mark.position
            assert said is None or said[1] == str(said[0])
            reached = -1 if said is None else said[0]
            assert reached >= owner.before
            owner.before = reached
            assert reached in owner.finished or said is None
            assert not [one for one in owner.open - owner.late if one <= reached]
            # Whatever is finished above it is held back by something open.
            assert all(min(owner.open, default=one) < one for one in owner.finished if one > reached)
            assert mark.lowest_open == min(owner.open, default=None)
            assert mark.highest == max(owner.seen, default=None)

    @invariant()
    def memory_is_what_is_open_and_what_waits_above(self) -> None:
        mark = self.owner.mark
        lowest = min(self.owner.open, default=None)
        above = {one for one in self.owner.finished if lowest is not None and one > lowest}
        assert mark.unfinished == len(self.owner.open)
        # What had been passed before a late event came below it is forgotten already.
        assert mark.waiting <= len(above)
        assert len(mark._open_heap) <= mark.unfinished + mark.waiting
        assert len(mark._finished_heap) == mark.waiting


TestWatermark = WatermarkMachine.TestCase
TestWatermark.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
