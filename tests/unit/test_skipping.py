"""What an operator wants skipped, and what is known of events between two attempts."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from consumer import retrying as retrying_module
from consumer import skipping as skipping_module
from consumer.deliveries import Held, Item
from consumer.outcomes import DeadLettered, GivenBack, Handled, WillRetry
from consumer.retrying import Retrying
from consumer.skipping import Skips
from consumer.sources.base import Message


def test_what_is_skipped() -> None:
    """An event by one of its ids, until it came by."""
    skips = Skips()
    assert not skips
    assert not skips.wants("e0", "m0")
    assert skips.add("e0")
    assert skips.wants(None, "e0")
    assert not skips.wants("m0", None)
    skips.done(None)
    skips.done("e1")
    assert skips.waiting == ["e0"]
    skips.done("e0")
    assert not skips.wants("e0")


def test_skips_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many at once, each for a day; asked for again, its day begins anew."""
    monkeypatch.setattr(skipping_module, "_MOST", 2)
    skips = Skips()
    begun = time.monotonic()
    assert [skips.add(one) for one in ("a", "b", "c", "a")] == [True, True, False, True]
    assert skips.waiting == ["b", "a"]
    monkeypatch.setattr(time, "monotonic", lambda: begun + 86_399)
    assert skips.wants("a")
    monkeypatch.setattr(time, "monotonic", lambda: begun + 86_500)
    assert not skips.wants("a")
    assert (skips.add("c"), skips.waiting) == (True, ["c"])


def _item(name: str, lane: str | None = None) -> Item:
    route: Any = None
    held = Held(Message(b"", f"m-{name}", None, datetime.now(UTC)), received_at=0.0)
    held.lane = lane
    item = Item(held, route, 0, b"")
    item.key, item.event_id, item.event_type = name.encode(), name, "lab.result"
    return item


def test_events_between_two_attempts() -> None:
    """The one due next comes first; one that is settled is forgotten, one only given back is not."""
    waiting = Retrying()
    for name, delay in (("late", 50.0), ("soon", 5.0), ("done", 20.0)):
        waiting.note(_item(name, "a"), WillRetry(delay))
    waiting.note(_item("late"), GivenBack("withdrawn"))
    waiting.note(_item("done"), Handled())
    assert [one.event_id for one in waiting.all()] == ["soon", "late"]
    found = waiting.find("m-soon")
    assert found is not None
    assert (found, found.failed_attempts, found.lane) == (waiting.find("soon"), 1, "a")
    assert waiting.find("done") is None
    waiting.note(_item("soon"), DeadLettered("skipped"))
    assert waiting.find("soon") is None


def test_they_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first, and those that never came are somebody else's by now."""
    monkeypatch.setattr(retrying_module, "_MOST", 2)
    waiting = Retrying()
    begun = time.monotonic()
    for name in "abc":
        waiting.note(_item(name), WillRetry(10.0))
    assert [one.event_id for one in waiting.all()] == ["b", "c"]
    monkeypatch.setattr(time, "monotonic", lambda: begun + 4_000)
    assert waiting.all() == []
