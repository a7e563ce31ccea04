"""What users test their handlers of Sahha's events with: samples, and a worker in a box with a source of Sahha's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer import Context, DispatchTable, NotConfigured, SahhaSignature
from consumer.envelope import wrap_neutral
from consumer.events import (
    ArchetypeEvent,
    BiomarkerEvent,
    DataLogEvent,
    Event,
    LabResultEvent,
    SahhaEvent,
    ScoreEvent,
    UnknownEvent,
)
from consumer.testing import (
    DeadLettered,
    Duplicate,
    Handled,
    TestConsumer,
    WillRetry,
    make_context,
    sample,
    sample_body,
    sign_sahha,
)

CLASSES = (ScoreEvent, BiomarkerEvent, ArchetypeEvent, DataLogEvent)
ROOT = Path(__file__).parents[2]
SECRET = "a secret of this test"
AT = datetime(2026, 3, 16, 8, tzinfo=UTC)


class Seen:
    """A table that keeps what its handler was given."""

    def __init__(self) -> None:
        self.table = DispatchTable()
        self.events: list[Event] = []
        self.contexts: list[Context] = []

        @self.table.on(*CLASSES, LabResultEvent, UnknownEvent)
        async def keep(event: Event, context: Context) -> None:
            self.events.append(event)
            self.contexts.append(context)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def box(seen: Seen) -> AsyncIterator[TestConsumer]:
    async with TestConsumer(seen.table, secret=SECRET) as consumer:
        yield consumer


@pytest.mark.parametrize("cls", CLASSES)
async def test_a_sample_arrives_as_itself(cls: type[SahhaEvent], box: TestConsumer, seen: Seen) -> None:
    """A sample is signed as Sahha's, comes from a source of Sahha's with its headers, and takes effect once."""
    event = sample(cls, user_id="u1")
    assert await box.send(event) == Handled()
    assert seen.events == [event]
    assert await box.send(event) == Duplicate()
    (context,) = seen.contexts
    assert context.delivery.source == "sahha"
    headers = {name.lower(): value for name, value in context.delivery.headers.items()}
    assert headers.keys() == {"x-signature", "x-external-id", "x-event-type"}
    assert (headers["x-external-id"], headers["x-event-type"]) == ("u1", cls.event_types[0])


async def test_both_platforms_in_one_box(box: TestConsumer, seen: Seen) -> None:
    """Each event comes from its own platform's source."""
    assert await box.send(sample(LabResultEvent)) == Handled()
    assert await box.send(sample(ScoreEvent)) == Handled()
    assert [(type(event), event.provider) for event in seen.events] == [
        (LabResultEvent, "thrive"),
        (ScoreEvent, "sahha"),
    ]
    assert [context.delivery.source for context in seen.contexts] == ["test", "sahha"]


@pytest.mark.parametrize("travel", ["native", "neutral", "an array"])
async def test_raw_webhooks(travel: str, box: TestConsumer, seen: Seen) -> None:
    """A captured webhook is delivered with its headers, or in the envelope that stands for them."""
    raw = json.dumps(sample_body(BiomarkerEvent, externalId="u1")).encode()
    headers = sign_sahha(raw, SECRET, external_id="u1", event_type=BiomarkerEvent.event_types[0])
    envelope = wrap_neutral(provider="sahha", body=raw, headers=headers, received_at=AT)
    if travel == "native":
        outcome = await box.send_raw(raw, {name.lower(): value for name, value in headers.items()})
    else:
        outcome = await box.send_raw(envelope if travel == "neutral" else b"[" + envelope + b"]")
    assert outcome == Handled()
    assert [event.user_id for event in seen.events] == ["u1"]


async def test_refusals(box: TestConsumer) -> None:
    """What is not Sahha's, or not as it was signed, is put aside with its headers."""
    raw = json.dumps(sample_body(ScoreEvent, externalId="u1")).encode()
    headers = sign_sahha(raw, "another secret", external_id="u1", event_type=ScoreEvent.event_types[0])
    assert await box.send_raw(raw, headers) == DeadLettered("bad_signature")
    assert await box.send_raw(raw) == DeadLettered("unsigned")
    (letter, _) = box.dead_letters
    assert (letter.provider, letter.source, letter.message, letter.headers) == ("sahha", "sahha", raw, headers)


async def test_a_conflicting_duplicate(box: TestConsumer) -> None:
    """A result with the id and the time of one that took effect, and another body, is not taken for a repeat."""
    event = sample(ScoreEvent, score=0.5)
    assert await box.send(event) == Handled()
    assert await box.send(event.model_copy(update={"score": 0.6})) == DeadLettered("conflicting_duplicate")
    again = event.model_copy(update={"created_at_utc": AT})
    assert await box.send(again) == Handled()


async def test_an_unknown_event_round_trips(box: TestConsumer, seen: Seen) -> None:
    """What an unknown event was can be sent again."""
    body = json.dumps({"externalId": "u1", "insight": {"a": 1}}).encode()
    assert await box.send_raw(body, sign_sahha(body, SECRET, external_id="u1", event_type="New")) == Handled()
    (event,) = seen.events
    assert await box.send(event) == Duplicate()


async def test_without_an_external_id(box: TestConsumer, seen: Seen) -> None:
    """A body that names nobody arrives with nobody, whatever the unsigned header says."""
    assert await box.send(sample(DataLogEvent, external_id=None)) == Handled()
    assert [event.user_id for event in seen.events] == [None]


async def test_ages_matter_only_when_asked_for(seen: Seen) -> None:
    """A sample may be of any age, unless the test sets a limit."""
    old = sample(ScoreEvent, occurred_at=datetime.now(UTC) - timedelta(days=400))
    settings = {"sahha.signature.max_age": "60d"}
    async with TestConsumer(seen.table, settings=settings) as limited:
        assert await limited.send(old) == DeadLettered("stale")
        assert await limited.send(sample(ScoreEvent, occurred_at=datetime.now(UTC))) == Handled()


async def test_a_retry_of_a_sahha_event() -> None:
    """Settings of the top level hold for Sahha's source too."""
    table = DispatchTable()

    @table.on(ScoreEvent)
    async def fail(event: ScoreEvent, context: Context) -> None:
        raise ValueError

    async with TestConsumer(table, settings={"max_attempts": 2}) as consumer:
        event = sample(ScoreEvent)
        assert isinstance(await consumer.send(event), WillRetry)
        assert await consumer.send(event) == DeadLettered("attempts_exhausted")


@pytest.mark.parametrize("cls", CLASSES)
def test_samples_are_consistent(cls: type[SahhaEvent]) -> None:
    """Whom and when an event is of is the same wherever it is said, and its key is that of its body."""
    for change in ("user_id", "external_id"):
        event = sample(cls, **{change: "u7"})
        assert (event.user_id, event.external_id) == ("u7", "u7")
    own = "received_at_utc" if cls is DataLogEvent else "created_at_utc"
    for change in ("occurred_at", own):
        event = sample(cls, **{change: AT})
        assert (event.occurred_at, getattr(event, own)) == (AT, AT)
    assert sample(cls, event_id="mine").event_id == "mine"
    assert event.event_id.startswith(f"sahha:{cls.event_types[0]}:")
    with pytest.raises(TypeError, match="has no attribute 'data'"):
        sample(cls, data=1)


def test_changes_of_a_sample() -> None:
    """Attributes are changed by their own names; a biomarker's value, too."""
    event = sample(BiomarkerEvent, type="steps", value="10432", value_type="integer")
    assert (event.raw_value, event.value) == ("10432", 10432)
    assert sample(ScoreEvent, data_sources=("sleep",)).data_sources == ("sleep",)
    assert all(sample(ScoreEvent).score is not None for _ in range(100))


@pytest.mark.parametrize("cls", CLASSES)
def test_bodies_are_seeded(cls: type[SahhaEvent]) -> None:
    """The same seed gives the same body, by the body's own names; it opens as Sahha's."""
    body = sample_body(cls, seed=5, externalId="u9")
    assert body == sample_body(cls, seed=5, externalId="u9")
    assert body != sample_body(cls, seed=6, externalId="u9")
    raw = json.dumps(body).encode()
    headers = sign_sahha(raw, SECRET, external_id="u9", event_type=cls.event_types[0])
    assert SahhaSignature(secrets=[SECRET]).open(raw, headers).content == body


def test_what_sahha_sends_nothing_of() -> None:
    """There are no samples of a class that is none of Sahha's four."""
    for make in (sample, sample_body):
        with pytest.raises(TypeError, match="Sahha sends no SahhaEvent"):
            make(SahhaEvent)


async def test_clients_have_no_keys(seen: Seen) -> None:
    """In a box the clients are there, and a call says which setting is missing; a bare context has none at all."""
    with pytest.raises(NotConfigured, match="TENANT_KEY"):
        _ = make_context().thrive
    with pytest.raises(NotConfigured, match="CLIENT_ID"):
        _ = make_context().sahha
    async with TestConsumer(seen.table) as consumer:
        assert await consumer.send(sample(LabResultEvent)) == Handled()
    (context,) = seen.contexts
    with pytest.raises(NotConfigured, match="TENANT_KEY"):
        await context.thrive.health_profile("u1")
    with pytest.raises(NotConfigured, match="CLIENT_ID"):
        await context.sahha.scores("u1")


async def test_inline_data_needs_no_key() -> None:
    """A handler that fetches what its event is about is testable without a key, if the event carries it."""
    table = DispatchTable()
    fetched: list[Any] = []

    @table.on(LabResultEvent)
    async def fetch(event: LabResultEvent, context: Context) -> None:
        fetched.append(await context.thrive.fetch(event))

    async with TestConsumer(table) as consumer:
        event = sample(LabResultEvent)
        assert await consumer.send(event) == Handled()
    assert fetched == [event.data]


async def test_clients_can_be_stood_in_for(seen: Seen) -> None:
    """What a test gives for a client is what handlers get, and the other stays as it is."""
    stand_in = object()
    async with TestConsumer(seen.table, sahha=stand_in) as consumer:
        await consumer.send(sample(ScoreEvent))
    (context,) = seen.contexts
    assert context.sahha is stand_in
    assert context.thrive is not stand_in


def test_handlers_are_imported_without_the_clients() -> None:
    """What a partner's handlers import costs no HTTP library."""
    code = (
        "import sys; from consumer import Context, DispatchTable; import consumer.events, consumer.app;"
        "print(sorted({'aiohttp', 'jwt', 'stamina', 'consumer.clients.http'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "[]\n"
