"""What an event on a hub means as a message, read from the SDK's own objects."""

from __future__ import annotations

import gzip
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from azure.eventhub import EventData
from azure.eventhub._pyamqp._encode import encode_payload
from azure.eventhub._pyamqp.message import Message as AmqpMessage
from azure.eventhub._pyamqp.message import Properties
from azure.eventhub._pyamqp.types import AMQPTypes
from azure.eventhub.amqp import AmqpAnnotatedMessage
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.sources.event_hubs_messages import Reading, by_key

ENQUEUED = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
ANNOTATIONS = {
    b"x-opt-sequence-number": 7,
    b"x-opt-offset": b"4294967296",
    b"x-opt-enqueued-time": 1_772_366_400_123,
    b"x-opt-partition-key": b"patient-1",
}
LARGEST = 1_000
READING = Reading("key", None, LARGEST)


def received(
    *sections: bytes, annotations: dict[bytes, Any] = ANNOTATIONS, encoding: str | None = None, **parts: Any
) -> EventData:
    """An event as it comes off the wire."""
    if sections:
        parts["data"] = list(sections)
    properties = Properties(content_encoding=encoding) if encoding is not None else None
    time = annotations.get(b"x-opt-enqueued-time")
    if time is not None:
        annotations = {**annotations, b"x-opt-enqueued-time": {"TYPE": AMQPTypes.timestamp, "VALUE": time}}
    message = AmqpMessage(message_annotations=annotations, properties=properties, **parts)
    buffer = bytearray()
    encode_payload(buffer, message)
    return EventData.from_bytes(bytes(buffer))


def valued(**body: Any) -> EventData:
    """An event whose body the wire could have brought, made without it."""
    event = EventData("")
    event._raw_amqp_message = AmqpAnnotatedMessage(annotations=ANNOTATIONS, application_properties={}, **body)
    return event


def body_of(event: EventData) -> bytes:
    return READING.arrival(event, "0").message.body


def test_facts_of_an_event() -> None:
    """Place, time, id and key are the hub's own; there is no lease and no count of receives."""
    arrival = READING.arrival(received(b"{}"), "3")
    message = arrival.message
    assert (arrival.sequence, arrival.offset, arrival.lane) == (7, "4294967296", "patient-1")
    assert (message.body, message.accepted_at, message.expires_at) == (b"{}", ENQUEUED, None)
    assert message.message_id == "3-7-1772366400123"
    assert (message.receive_count, message.lease_until, message.receipt) == (0, float("inf"), None)
    assert (message.ordering_key, dict(message.headers), message.suspects) == ("patient-1", {}, None)


def test_retention_says_when_the_hub_deletes_it() -> None:
    """An event expires when the hub's retention has passed since it was enqueued."""
    message = Reading("key", timedelta(days=1), LARGEST).arrival(received(b"{}"), "0").message
    assert message.expires_at == ENQUEUED + timedelta(days=1)


@pytest.mark.parametrize(
    ("order_by", "key", "lane", "ordering_key"),
    [
        ("key", b"k", "k", "k"),
        ("key", "k", "k", "k"),
        ("key", b"\xff", "\ufffd", "\ufffd"),
        ("key", b"", "", ""),
        ("key", None, None, None),
        ("partition", b"k", "3", "3"),
        ("partition", None, "3", "3"),
        ("member", b"k", None, "k"),
        ("member", None, None, None),
    ],
)
def test_what_keeps_events_in_order(
    order_by: Literal["key", "partition", "member"], key: Any, lane: str | None, ordering_key: str | None
) -> None:
    """The lane is the partition key, or the partition; or shows only when the event is opened."""
    annotations = {name: value for name, value in ANNOTATIONS.items() if name != b"x-opt-partition-key"}
    if key is not None:
        annotations[b"x-opt-partition-key"] = key
    arrival = Reading(order_by, None, LARGEST).arrival(received(b"{}", annotations=annotations), "3")
    assert (arrival.lane, arrival.message.ordering_key) == (lane, ordering_key)


def test_an_event_of_which_little_is_known() -> None:
    """Without a time it was accepted now; without an offset its number stands for one."""
    arrival = READING.arrival(received(b"{}", annotations={b"x-opt-sequence-number": 0}), "0")
    assert (arrival.sequence, arrival.offset, arrival.lane) == (0, "0", None)
    assert abs(arrival.message.accepted_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_sections_are_one_body() -> None:
    """A body in several data sections is all of them, byte for byte."""
    assert body_of(received(b'{"a":', b"", b"\xff\x00", b"}")) == b'{"a":\xff\x00}'
    assert body_of(received(b"")) == b""


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"bytes", b"bytes"),
        ("text \u00e9", "text \u00e9".encode()),
        ("\ud800", b"\xed\xa0\x80"),
        (None, b"an AMQP body of type value"),
        (5, b"an AMQP body of type value"),
        (True, b"an AMQP body of type value"),
        ({"a": 1}, b"an AMQP body of type value"),
        ({b"a": b"1"}, b"an AMQP body of type value"),
        ([b"a", b"b"], b"an AMQP body of type value"),
        (uuid.UUID(int=1), b"an AMQP body of type value"),
    ],
)
def test_a_value_is_a_body_if_it_is_text_or_bytes(value: Any, body: bytes) -> None:
    """Text and bytes in a value section are the body; any other value arrives too, as nothing that could be signed."""
    assert body_of(valued(value_body=value)) == body


def test_bodies_without_data() -> None:
    """Sequences, and events with no body at all, arrive as well."""
    assert body_of(valued(sequence_body=[[b"a", 1], ["b"]])) == b"an AMQP body of type sequence"
    assert body_of(received(value="text")) == b"text"
    assert body_of(received()) == b"an AMQP body of type value"


@pytest.mark.parametrize("encoding", ["gzip", "GZip"])
def test_a_compressed_body_is_unfolded(encoding: str) -> None:
    """What is marked as gzip and is one, up to the largest message and in any number of sections, is unfolded."""
    for content in (b"", b"{}", b"x" * LARGEST):
        folded = gzip.compress(content)
        assert body_of(received(folded[:5], folded[5:], encoding=encoding)) == content


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        gzip.compress(b"{}")[:-1],
        gzip.compress(b"{}")[:-5] + b"?????",
        gzip.compress(b"{}") + b"more",
        gzip.compress(b"{}") + gzip.compress(b"{}"),
        gzip.compress(b"x" * (LARGEST + 1)),
        gzip.compress(bytes(50_000_000)),
        zlib.compress(b"{}"),
    ],
    ids=["empty", "plain", "cut", "damaged", "garbage", "two", "large", "bomb", "zlib"],
)
def test_what_is_no_proper_gzip_stays(body: bytes) -> None:
    """What is marked as gzip and is none, has something after it, or is too large inside, arrives as it came."""
    assert body_of(received(body, encoding="gzip")) == body


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "deflate"])
def test_only_what_is_marked_is_unfolded(encoding: str | None) -> None:
    """A gzip that nobody marked as one is what its sender signed."""
    folded = gzip.compress(b"{}")
    assert body_of(received(folded, encoding=encoding)) == folded


def test_properties_are_text() -> None:
    """Properties of every type that AMQP knows become text."""
    event = received(
        b"{}",
        application_properties={
            "text": "a",
            b"bytes": b"\xffb",
            "number": 5,
            "yes": True,
            "nothing": None,
            "fraction": 0.5,
            "id": uuid.UUID(int=1),
        },
    )
    assert READING.arrival(event, "0").message.headers == {
        "text": "a",
        "bytes": "\ufffdb",
        "number": "5",
        "yes": "True",
        "nothing": "None",
        "fraction": "0.5",
        "id": "00000000-0000-0000-0000-000000000001",
    }
    event.properties = None  # type: ignore[assignment]  # as the SDK's setter allows
    assert READING.arrival(event, "0").message.headers == {}


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text() | st.uuids()


@settings(deadline=None)
@given(
    st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner)),
    st.dictionaries(st.text() | st.binary(), VALUES),
    st.none() | st.binary() | st.text(),
)
def test_reading_never_fails(value: Any, properties: dict[Any, Any], key: Any) -> None:
    """No value as body, property or key keeps an event from arriving."""
    event = valued(value_body=value)
    event.raw_amqp_message.annotations = {**ANNOTATIONS, b"x-opt-partition-key": key}
    event.properties = properties
    message = READING.arrival(event, "0").message
    assert isinstance(message.body, bytes)
    assert all(isinstance(text, str) for pair in message.headers.items() for text in pair)


def test_what_is_sent_is_grouped_by_key() -> None:
    """Each key has its items in the order given, and so have those without a key."""
    items = [("a", 1), (None, 2), ("b", 3), ("a", 4), (None, 5)]
    assert by_key(items) == {"a": [1, 4], None: [2, 5], "b": [3]}
