"""What Sahha's messages open to: natively with headers, in a neutral envelope, and when their sender means ill."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumer import Context, DispatchTable, SahhaSignature
from consumer.deliveries import Held, Item
from consumer.envelope import wrap_neutral
from consumer.events import ArchetypeEvent, BiomarkerEvent, DataLogEvent, Event, ScoreEvent, UnknownEvent
from consumer.events.sahha_reading import SAHHA_CLASSES, SahhaReader
from consumer.guard import Guard
from consumer.lanes import member_lane
from consumer.opening import open_message
from consumer.outcomes import REASONS, DeadLettered
from consumer.route import Route
from consumer.sources.base import Message
from consumer.testing import sample_body

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "sahha.json").read_text())
NOW = datetime(2026, 3, 16, 8, tzinfo=UTC)
SIGNATURE = SahhaSignature(secrets=["a secret"], max_age=3600)
AT = "2026-03-16T07:30:00Z"
BODY = json.dumps(sample_body(ScoreEvent, seed=1, createdAtUtc=AT)).encode()
WHOM = str(json.loads(BODY)["externalId"])
SCORE, BIOMARKER, ARCHETYPE, DATA_LOG = (cls.event_types[0] for cls in SAHHA_CLASSES)
HEADERS = SIGNATURE.sign(BODY, external_id=WHOM, event_type=SCORE)

table = DispatchTable()


@table.on(ScoreEvent, BiomarkerEvent, ArchetypeEvent, DataLogEvent)
async def handle(event: Event, context: Context) -> None:
    """Never called: opening is all there is here."""


def route(signature: SahhaSignature = SIGNATURE, **changes: Any) -> Route:
    """A source's route with a guard that has seen nothing."""
    parts = {"source": "wellness", "provider": "sahha", "namespace": "", "reader": SahhaReader(), "table": table}
    return Route(**{**parts, "signature": signature, "guard": Guard(), "max_message_bytes": 100_000, **changes})


def opened(raw: bytes, headers: Mapping[str, str] | None = None, by: Route | None = None) -> list[Item]:
    """What a message that the queue accepted at `NOW` opens to."""
    message = Message(raw, "m", None, NOW, headers=headers or {})
    return open_message(Held(message, received_at=time.monotonic()), by or route())


def neutral(raw: bytes, headers: Mapping[str, str], provider: str = "sahha") -> bytes:
    """The envelope in which the message travels over a queue without headers."""
    return wrap_neutral(provider=provider, body=raw, headers=headers, received_at=NOW)


def reason(item: Item) -> str | None:
    """Why an item is put aside."""
    return item.verdict.reason if isinstance(item.verdict, DeadLettered) else None


@pytest.mark.parametrize("travel", ["native", "neutral"])
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: str(case["name"]))
def test_vectors(case: dict[str, Any], travel: str) -> None:
    """Every published case comes to its handler or is refused as it says, however its headers travel."""
    by = route(SahhaSignature(secrets=[case["secret"]], encoding=case["encoding"]))
    raw, headers = case["raw"].encode(), case["headers"]
    (item,) = opened(raw, headers, by) if travel == "native" else opened(neutral(raw, headers), by=by)
    if not case["valid"]:
        assert reason(item) in {"unsigned", "bad_signature", "unreadable"}
        assert item.event is None
    elif case["name"] == "unknown-event-type":
        assert (reason(item), item.event) == ("unknown_event", None)  # its body is a score's
    else:
        assert (item.verdict, len(item.handlers), item.proven) == (None, 1, True)
        assert item.event is not None
        assert item.event.user_id == json.loads(raw).get("externalId")


def test_the_way_does_not_matter() -> None:
    """Native or neutral, with its headers in any spelling, a body is one event, with one key and one hash."""
    spelled = [HEADERS, {name.upper(): value for name, value in HEADERS.items()}]
    spelled.append({name.lower(): value for name, value in HEADERS.items()} | {"x-trace": "1"})
    spelled.append({**HEADERS, "X-Signature": f"sha256={HEADERS['X-Signature'].upper()}"})
    items = [opened(BODY, headers)[0] for headers in spelled]
    items += [opened(neutral(BODY, headers))[0] for headers in spelled]
    # The message's own headers count for nothing where it is an envelope with headers of its own.
    items += opened(neutral(BODY, HEADERS), {"X-Event-Type": "x"})
    assert [reason(item) for item in items] == [None] * 9
    assert len({(item.key, item.body_hash, item.event_id) for item in items}) == 1


def test_handlers_see_the_headers() -> None:
    """What the headers say that the body does not is there for handlers on every kind of queue."""
    assert opened(BODY, HEADERS)[0].delivery().headers == HEADERS
    (item,) = opened(neutral(BODY, HEADERS), {"trace": "1"})
    assert item.delivery().headers == HEADERS | {"trace": "1"}


def test_an_unknown_type_under_many_names_is_one_event() -> None:
    """The header is not signed, so the names it is given do not make several events of one body."""
    body = b'{"externalId":"u","createdAtUtc":"2026-03-16T07:30:00Z"}'
    items = [opened(body, SIGNATURE.sign(body, external_id="u", event_type=name))[0] for name in ("A", "B")]
    assert [reason(item) for item in items] == ["unknown_event"] * 2
    assert len({item.key for item in items}) == 1


def test_a_renamed_event_is_kept_and_does_nothing() -> None:
    """Whoever can put messages on the queue can rename an event that was Sahha's: nothing but a record comes of it.

    No handler of unknown events gets it, it is not acknowledged as one, and it names no member whose lane to close.
    """
    curious = DispatchTable()

    @curious.on(UnknownEvent)
    async def look(event: UnknownEvent, context: Context) -> None: ...

    for name, why in (("New", "unknown_event"), ("\x00", "unreadable"), ("N" * 201, "unreadable")):
        headers = SIGNATURE.sign(BODY, external_id=WHOM, event_type=name)
        for by in (route(table=curious), route(unknown_events="ack"), route(lane_by_member=True)):
            (item,) = opened(BODY, headers, by)
            assert (reason(item), item.handlers, item.proven) == (why, (), False)
            assert member_lane([item]) is None
    other = b'{"externalId":"u","createdAtUtc":"2026-03-16T07:30:00Z"}'
    (item,) = opened(other, SIGNATURE.sign(other, external_id="u", event_type="New"), route(table=curious))
    assert (reason(item), len(item.handlers), item.proven) == (None, 1, True)


def test_a_result_computed_again_is_another_event() -> None:
    """An id comes again with every update; the time makes the difference, and without it the body would be refused."""
    later = BODY.replace(AT.encode(), b"2026-03-16T07:31:00Z")
    changed = BODY.replace(b'"version": 1', b'"version": 2')
    items = [opened(raw, SIGNATURE.sign(raw, external_id=WHOM, event_type=SCORE))[0] for raw in (BODY, later, changed)]
    assert items[0].key != items[1].key
    assert items[0].key == items[2].key
    assert items[0].body_hash != items[2].body_hash


@pytest.mark.parametrize("claimed", SAHHA_CLASSES)
@pytest.mark.parametrize("real", SAHHA_CLASSES)
def test_a_type_swapped_on_the_way_reaches_no_handler(real: type[Any], claimed: type[Any]) -> None:
    """A header that claims another type than the body has the fields of is found out."""
    raw = json.dumps(sample_body(real, seed=2, createdAtUtc=AT, receivedAtUtc=AT)).encode()
    headers = SIGNATURE.sign(raw, external_id=json.loads(raw)["externalId"], event_type=claimed.event_types[0])
    (item,) = opened(raw, headers)
    assert type(item.event) is (real if claimed is real else type(None))
    assert reason(item) == (None if claimed is real else "unreadable")
    assert not item.handlers or claimed is real


@pytest.mark.parametrize(
    ("ago", "expected"), [(timedelta(minutes=59), None), (timedelta(minutes=61), "stale"), (-timedelta(days=1), None)]
)
@pytest.mark.parametrize(("cls", "field"), [(BiomarkerEvent, "createdAtUtc"), (DataLogEvent, "receivedAtUtc")])
def test_age(cls: type[Any], field: str, ago: timedelta, expected: str | None) -> None:
    """The signed time in the body is judged by the queue's own time, not by this clock's or the envelope's."""
    raw = json.dumps(sample_body(cls, seed=3, **{field: (NOW - ago).isoformat()})).encode()
    headers = SIGNATURE.sign(raw, external_id=json.loads(raw)["externalId"], event_type=cls.event_types[0])
    for item in (*opened(raw, headers), *opened(neutral(raw, headers))):
        assert (reason(item), item.signed_at) == (expected, None if expected else NOW - ago)
    assert reason(opened(raw, headers, route(any_age=True))[0]) is None


def test_age_of_what_was_created_at_null() -> None:
    """A body whose `createdAtUtc` is null is as old as it was received."""
    content = sample_body(DataLogEvent, seed=3, receivedAtUtc=AT, createdAtUtc=None)
    raw = json.dumps(content).encode()
    (item,) = opened(raw, SIGNATURE.sign(raw, external_id=content["externalId"], event_type=DATA_LOG))
    assert (reason(item), item.signed_at) == (None, datetime.fromisoformat(AT))


ENVELOPE = neutral(BODY, HEADERS)
CASES: dict[str, tuple[bytes, Mapping[str, str], list[str | None]]] = {
    "a plain body without headers": (BODY, {}, ["unsigned"]),
    "an envelope of another provider": (neutral(BODY, HEADERS, "thrive"), {}, ["unreadable"]),
    "a Thrive envelope": (b'{"signed_at":"x","signature":"y","body":"{}"}', {}, ["unsigned"]),
    "a header twice": (BODY, HEADERS | {"x-signature": HEADERS["X-Signature"]}, ["unreadable"]),
    "an array of envelopes": (b"[" + ENVELOPE + b"," + ENVELOPE + b"]", {}, [None, None]),
    "an array with a forged one": (b"[" + ENVELOPE + b"," + BODY + b"]", {}, [None, "unsigned"]),
    "an array of bodies": (b"[" + BODY + b"]", {}, ["unsigned"]),
    "an array of bodies under one signature": (b"[" + BODY + b"," + BODY + b"]", HEADERS, ["bad_signature"]),
    "an array that was signed whole": (b"[]", SIGNATURE.sign(b"[]", external_id="u", event_type="x"), ["unreadable"]),
    "an envelope under a header of its own": (ENVELOPE, HEADERS, [None]),
    "an array of envelopes under a header": (b"[" + ENVELOPE + b"]", HEADERS, ["unreadable"]),
    "too large": (b" " * 100_001, HEADERS, ["unreadable"]),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_messages(case: str) -> None:
    """An array that a header signs is one thing; an array of envelopes is taken apart."""
    raw, headers, expected = CASES[case]
    assert [reason(item) for item in opened(raw, headers)] == expected


@pytest.mark.parametrize("name", ["X-Signature", "X-External-Id", "X-Event-Type"])
@pytest.mark.parametrize("value", ["", "x", "\ud800", None])
def test_a_header_wrong_or_missing(name: str, value: str | None) -> None:
    """Without any one of the three headers as it was sent, the body does not reach its handler."""
    headers = {key: text for key, text in HEADERS.items() if key != name} | ({} if value is None else {name: value})
    (item,) = opened(BODY, headers)
    assert item.handlers == ()
    assert reason(item) in {"unsigned", "bad_signature", "unreadable", "unknown_event", "invalid_event"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
NAMES = st.sampled_from(["X-Signature", "x-signature", "X-Event-Type", "X-External-Id", "other"])
ODD = st.text(st.characters(), max_size=8)


@settings(max_examples=50)
@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), st.dictionaries(NAMES, ODD))
@example(b"[{}]", {"X-Signature": "00"})
@example(b"", {})
def test_no_bytes_and_headers_crash_opening(raw: bytes, headers: dict[str, str]) -> None:
    """Whatever comes from outside is a dead letter, natively and in an envelope."""
    envelope = {"provider": "sahha", "received_at": AT, "headers": headers, "body_b64": b64encode(raw).decode()}
    for item in (*opened(raw, headers), *opened(json.dumps(envelope).encode())):
        assert reason(item) in REASONS
        assert not item.proven


@settings(max_examples=50)
@given(st.dictionaries(st.sampled_from(sorted(json.loads(BODY))), JSON), ODD, st.sampled_from([SCORE, BIOMARKER, None]))
def test_no_signed_body_crashes_opening(changes: dict[str, Any], name: str, event_type: str | None) -> None:
    """Whatever Sahha itself signs is an event or a dead letter."""
    raw = json.dumps(json.loads(BODY) | changes).encode()
    external_id = (json.loads(BODY) | changes)["externalId"]
    whom = external_id if isinstance(external_id, str) else "u"
    (item,) = opened(raw, SIGNATURE.sign(raw, external_id=whom or "u", event_type=event_type or name))
    assert (reason(item) is None) == bool(item.handlers)
    assert not item.handlers or type(item.event) is ScoreEvent
