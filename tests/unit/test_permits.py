"""Permits: what may be in hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.permits import Permits


def test_a_receive_reserves_the_largest_a_message_may_be() -> None:
    """Before anything is known of sizes, room is reserved for the worst."""
    permits = Permits(count=200, size=64, largest=16)
    assert permits.reserve(10) == (4, 64)
    assert permits.reserve(10) == (0, 0)


def test_the_estimate_follows_what_messages_really_weigh() -> None:
    """Small messages soon allow whole batches."""
    permits = Permits(count=200, size=1024, largest=1024)
    for _ in range(40):
        count, cost = permits.reserve(10)
        sizes = [8] * count
        assert permits.exchange(count, cost, sizes) == count
        for size in sizes:
            permits.give_back(size)
    assert permits.reserve(10)[0] == 10


def test_a_little_in_hand_does_not_keep_the_next_batch_out() -> None:
    """Where room for the worst is less than a batch, more is received all the same while some is in hand for long."""
    permits = Permits(count=200, size=64 << 20, largest=1 << 20)
    count, cost = permits.reserve(100)
    assert permits.exchange(count, cost, [1000] * count) == 64
    assert permits.reserve(100)[0] > 64


def test_a_message_larger_than_all_room_passes_alone() -> None:
    """It could never be handled otherwise."""
    permits = Permits(count=10, size=100, largest=50)
    count, cost = permits.reserve(10)
    assert permits.exchange(count, cost, [500, 1]) == 1
    assert permits.held_bytes == 500


def test_what_does_not_fit_is_not_kept() -> None:
    """A batch heavier than expected is kept only as far as there is room."""
    permits = Permits(count=10, size=100, largest=10)
    count, cost = permits.reserve(10)
    assert permits.exchange(count, cost, [40, 40, 40, 1]) == 2


@given(st.integers(1, 50), st.integers(1, 50))
def test_a_receive_never_asks_for_more_than_there_is_room(count: int, want: int) -> None:
    """Whatever is wanted, the count is the limit."""
    permits = Permits(count=count, size=1 << 30, largest=1)
    assert permits.reserve(want)[0] <= count


class PermitsMachine(RuleBasedStateMachine):
    """Any interleaving of receives and settlements keeps the bounds, and all room comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = Permits(count=7, size=100, largest=30)
        self.reserved: list[tuple[int, int]] = []
        self.held: list[int] = []

    @rule(want=st.integers(1, 10))
    def reserve(self, want: int) -> None:
        count, cost = self.permits.reserve(want)
        assert count <= want
        if count:
            self.reserved.append((count, cost))

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        count, cost = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        sizes = data.draw(st.lists(st.integers(0, 120), max_size=count))
        self.held += sizes[: self.permits.exchange(count, cost, sizes)]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.permits.give_back(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def bounded(self) -> None:
        assert self.permits.held == len(self.held) <= 7
        assert self.permits.held_bytes == sum(self.held)
        assert sum(self.held) <= 100 or len(self.held) == 1

    @invariant()
    def never_stuck(self) -> None:
        assert self.held or self.reserved or Permits.reserve(self._copy(), 1)[0]

    def _copy(self) -> Permits:
        fresh = Permits(count=7, size=100, largest=30)
        for name in Permits.__slots__:
            setattr(fresh, name, getattr(self.permits, name))
        return fresh


TestPermits = PermitsMachine.TestCase
