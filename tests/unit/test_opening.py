"""What a message opens to when its sender means ill."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumer import DispatchTable, ThriveSignature
from consumer.dead_letters.writing import record_of
from consumer.deliveries import Held, Item
from consumer.events.reading import ThriveReader
from consumer.guard import Guard
from consumer.opening import open_message
from consumer.outcomes import DeadLettered
from consumer.route import Route
from consumer.sources.base import Message

NOW = datetime(2026, 3, 16, 8, tzinfo=UTC)
SIGNATURE = ThriveSignature(secrets=["a secret"], max_age=3600)
GOOD = SIGNATURE.sign('{"event_id":"e","event_type":"lab.result.ready"}', signed_at=NOW)
FORGED = ThriveSignature(secrets=["guessed"]).sign('{"event_id":"f"}', signed_at=NOW)


def route() -> Route:
    """A source's route with a guard that has seen nothing."""
    return Route(
        source="labs",
        provider="thrive",
        namespace="",
        signature=SIGNATURE,
        reader=ThriveReader(),
        table=DispatchTable(),
        guard=Guard(),
        max_message_bytes=100_000,
    )


def opened(raw: bytes, by: Route | None = None) -> list[Item]:
    """What a message that the queue accepted at `NOW` opens to."""
    return open_message(Held(Message(raw, "m", None, NOW), received_at=time.monotonic()), by or route())


def reason(item: Item) -> Any:
    """Why an item is put aside."""
    return item.verdict.reason if isinstance(item.verdict, DeadLettered) else None


@pytest.mark.parametrize(
    ("member", "expected"), [(b"{}", "unsigned"), (FORGED, "bad_signature"), (b'{"signature":"00"}', "bad_signature")]
)
def test_a_forged_array_is_one_dead_letter(member: bytes, expected: str) -> None:
    """Thousands of envelopes that nobody signed are put aside as the one message they came in, byte for byte."""
    raw = b"[" + b",".join([member] * 50) + b"]"
    (item,) = opened(raw)
    assert (reason(item), item.raw, item.index, item.proven) == (expected, raw, 0, False)


def test_an_array_with_a_good_envelope_has_an_item_for_each() -> None:
    """What is proven is not put aside with what is not."""
    items = opened(b"[" + b",".join([FORGED, GOOD, b"{}"]) + b"]")
    assert [reason(item) for item in items] == ["bad_signature", "unhandled", "unsigned"]
    assert [item.index for item in items] == [0, 1, 2]


CASES: dict[str, tuple[bytes, str, bool]] = {
    "good": (GOOD, "unhandled", True),
    "stale": (SIGNATURE.sign("{}", signed_at=NOW - timedelta(days=1)), "stale", True),
    "a body that can be read in two ways": (SIGNATURE.sign('{"a":1,"a":1}', signed_at=NOW), "unreadable", True),
    "a body that is no object": (SIGNATURE.sign("[]", signed_at=NOW), "unreadable", True),
    "a time that is none": (SIGNATURE.sign("{}", signed_at="soon"), "unreadable", True),
    "an invalid event": (SIGNATURE.sign("{}", signed_at=NOW), "invalid_event", True),
    "forged": (FORGED, "bad_signature", False),
    "unsigned": (b"{}", "unsigned", False),
    "garbage": (b"garbage", "unreadable", False),
    "a broken array": (b"[{}", "unreadable", False),
    "a field twice": (b'{"signature":"a","signature":"b"}', "unreadable", False),
    "no time": (b'{"signature":"' + b"0" * 64 + b'","body":"{}"}', "unreadable", False),
    "too large": (b" " * 100_001, "unreadable", False),
    "another provider": (
        json.dumps({"provider": "x", "received_at": NOW.isoformat(), "headers": {}, "body_b64": "AAAA"}).encode(),
        "unreadable",
        False,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_counts_as_proven(case: str) -> None:
    """Only a good signature proves; twenty messages without one at the start rouse the suspicion of a wrong secret."""
    raw, expected, proven = CASES[case]
    by = route()
    for _ in range(20):
        (item,) = opened(raw, by)
        assert (reason(item), item.proven) == (expected, proven)
    assert by.guard.suspicion == (None if proven else "signatures")


@pytest.mark.parametrize(
    ("key", "lane", "said"), [(None, "of a member", "of a member"), ("k", "k", None), (None, None, None)]
)
def test_a_dead_letter_tells_its_lane(key: str | None, lane: str | None, said: str | None) -> None:
    """Where a lane is not the ordering key it goes with the record: a part of an array may name another member."""
    held = Held(Message(GOOD, "m", None, NOW, ordering_key=key), received_at=time.monotonic())
    held.lane = lane
    (item,) = open_message(held, route())
    record = record_of(item, DeadLettered("rejected"), first_received_at=NOW, now=NOW)
    assert record.attributes.get("lane") == said
    assert record.attributes["ordering_key"] == key
