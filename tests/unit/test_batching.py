"""Batches of settlements."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.batching import Batcher


@given(st.lists(st.floats(0, 0.2), max_size=60), st.integers(1, 10))
def test_batches_are_never_late_never_too_large_and_lose_nothing(pauses: list[float], most: int) -> None:
    """Whatever the rhythm of arrivals, every entry leaves once, within the linger, in order."""
    batcher: Batcher[int] = Batcher(most=most, linger=0.05)
    now, arrived, sent = 0.0, {}, []
    for number, pause in enumerate(pauses):
        now += pause
        if batcher.due is not None and batcher.due <= now:
            due = batcher.due
            sent += [(one, due) for one in batcher.take()]
        arrived[number] = now
        full = batcher.add(number, now)
        if full is not None:
            assert len(full) == most
            sent += [(one, now) for one in full]
        assert len(batcher) < most
    if batcher.due is not None:
        due = batcher.due
        sent += [(one, due) for one in batcher.take()]
    assert [one for one, _ in sent] == list(range(len(pauses)))
    assert all(at - arrived[one] <= 0.05 + 1e-9 for one, at in sent)
    assert batcher.due is None
