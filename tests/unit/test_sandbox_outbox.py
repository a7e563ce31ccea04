"""What a stream has to publish: order, the documented schedule, bounds, and that nothing is lost silently."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.sandbox.outbox import RETRIES, WINDOW, Item, Outbox

HOUR = 3600.0


def item(number: int) -> Item:
    return Item(f"e{number}", b"{}")


def ids(items: list[Item]) -> list[str]:
    return [one.event_id for one in items]


def test_items_come_out_in_the_order_they_came_in():
    box = Outbox()
    for number in range(5):
        box.add(item(number), now=0.0)
    assert ids(box.take(0.0, 3)) == ["e0", "e1", "e2"]
    assert ids(box.take(0.0, 3)) == ["e3", "e4"]


def test_a_queue_that_always_fails_is_tried_seven_times_on_the_documented_schedule_and_then_given_up():
    box = Outbox()
    box.add(item(1), now=100.0)
    now, tried = 100.0, []
    while (due := box.next_due()) is not None:
        now = max(now, due)
        items = box.take(now, 10)
        tried.append(now - 100.0)
        box.not_sent(items, now)
    delays = [later - before for before, later in itertools.pairwise(tried)]
    assert delays == [60, 300, 1800, 2 * HOUR, 12 * HOUR, 24 * HOUR]
    assert tried[-1] < WINDOW
    assert (box.failed, box.waiting, box.later) == (1, 0, 0)


def test_nothing_is_tried_beyond_the_window_of_48_hours():
    box = Outbox()
    box.add(item(1), now=0.0)
    box.take(0.0, 1)
    late = item(2)
    late.tries, late.first_tried = 5, 0.0
    box.not_sent([late], now=WINDOW - 12 * HOUR + 1)
    assert box.failed == 1
    assert box.next_due() is None


def test_an_item_that_failed_goes_before_those_that_were_not_tried():
    box = Outbox()
    box.add(item(1), now=0.0)
    box.not_sent(box.take(0.0, 1), now=0.0)
    box.add(item(2), now=0.0)
    assert ids(box.take(RETRIES[0] - 1, 5)) == ["e2"]
    box.add(item(3), now=0.0)
    assert ids(box.take(RETRIES[0], 5)) == ["e1", "e3"]


def test_a_full_buffer_drops_the_oldest_and_counts_it():
    box = Outbox(most=3)
    for number in range(5):
        box.add(item(number), now=0.0)
    assert box.dropped == 2
    assert ids(box.take(0.0, 9)) == ["e2", "e3", "e4"]


def test_making_everything_due_keeps_the_order_in_which_it_was_due():
    box = Outbox()
    box.add(item(1), now=0.0, delay=200)
    box.add(item(2), now=0.0, delay=100)
    box.make_due()
    assert ids(box.take(0.0, 9)) == ["e2", "e1"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["add", "later", "good", "bad"]), st.floats(0, 2 * 86_400)), max_size=60))
def test_every_item_is_published_failed_dropped_or_still_there(steps: list[tuple[str, float]]):
    box, now, added = Outbox(most=8), 0.0, 0
    for step, wait in steps:
        now += wait
        if step in ("add", "later"):
            box.add(item(added), now, delay=wait if step == "later" else 0.0)
            added += 1
        else:
            items = box.take(now, 3)
            assert len(items) <= 3
            if step == "good":
                box.sent(items)
            else:
                box.not_sent(items, now)
        assert box.waiting + box.later <= 8
    assert added == box.published + box.failed + box.dropped + box.waiting + box.later
