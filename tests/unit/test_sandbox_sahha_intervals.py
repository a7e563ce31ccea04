"""The interval of the sandbox's Sahha webhooks: what is sent, when, and what is not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.sandbox.sahha_intervals import IntervalWindows

STEPS = st.lists(st.tuples(st.floats(0, 40), st.sampled_from("abc"), st.booleans()), max_size=40)


def test_without_an_interval_nothing_is_held() -> None:
    """Real-time: every value is delivered at once."""
    windows: IntervalWindows[int] = IntervalWindows(0)
    assert [windows.offer("steps", value, now=1.0) for value in (1, 2, 3)] == [1, 2, 3]
    assert windows.next_due() is None


def test_only_the_last_value_of_a_window_is_sent() -> None:
    """After a delivery later values wait for the window's end; the last one is sent and opens the next window."""
    windows: IntervalWindows[int] = IntervalWindows(60)
    assert windows.offer("steps", 1, now=0) == 1
    assert windows.offer("steps", 2, now=10) is None
    assert windows.offer("steps", 3, now=59) is None
    assert (windows.due(59.9), windows.held, windows.next_due()) == ([], 1, 60)
    assert windows.due(60) == [3]
    assert windows.offer("steps", 4, now=119) is None
    assert windows.due(120) == [4]
    assert windows.due(180) == []
    assert windows.offer("steps", 5, now=181) == 5


def test_metrics_do_not_wait_for_each_other() -> None:
    """Each metric of each profile has a window of its own."""
    windows: IntervalWindows[int] = IntervalWindows(60)
    assert windows.offer(("p1", "sleep"), 1, now=0) == 1
    assert windows.offer(("p2", "sleep"), 2, now=1) == 2
    assert windows.offer(("p1", "activity"), 3, now=2) == 3


def test_a_value_after_the_end_of_a_window_takes_the_place_of_what_was_held() -> None:
    """Whoever asks late for what is due is not told a value that has been superseded."""
    windows: IntervalWindows[int] = IntervalWindows(60)
    windows.offer("steps", 1, now=0)
    windows.offer("steps", 2, now=10)
    assert windows.offer("steps", 3, now=61) == 3
    assert windows.due(1000) == []


def test_a_shorter_interval_ends_windows_that_are_open() -> None:
    """Changing the setting holds for what is held already."""
    windows: IntervalWindows[int] = IntervalWindows(600)
    windows.offer("steps", 1, now=0)
    windows.offer("steps", 2, now=10)
    windows.interval = 20
    assert windows.due(20) == [2]


@pytest.mark.parametrize("interval", [0, 7.0, 60.0])
@settings(max_examples=50, deadline=None)
@given(steps=STEPS)
def test_any_history(interval: float, steps: list[tuple[float, str, bool]]) -> None:
    """Deliveries of a metric are in order and at least an interval apart, and the last value always arrives."""
    windows: IntervalWindows[tuple[str, int]] = IntervalWindows(interval)
    now, delivered, last = 0.0, [], {}
    for number, (wait, key, ask) in enumerate(steps):
        now += wait
        if ask:
            delivered += [(now, payload) for payload in windows.due(now)]
        last[key] = (key, number)
        sent = windows.offer(key, (key, number), now)
        delivered += [] if sent is None else [(now, sent)]
    delivered += [(now + interval, payload) for payload in windows.due(now + interval)]
    for key, final in last.items():
        own = [(when, payload) for when, payload in delivered if payload[0] == key]
        assert own[-1][1] == final
        assert [payload for _, payload in own] == sorted({payload for _, payload in own})
        assert all(second - first >= interval - 1e-6 for (first, _), (second, _) in pairwise(own))
    assert windows.held == 0
