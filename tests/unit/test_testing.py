"""What partners test their handlers with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from consumer import Context, DispatchTable, NotConfigured, Reject, Retry, SahhaSignature, ThriveSignature, Unavailable
from consumer.errors import BadSignature, ConsumerError, SettingsError
from consumer.events import (
    DailyDeviceEvent,
    Event,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    ThriveEvent,
    UnknownEvent,
)
from consumer.models.base import PlatformModel
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
    sign_thrive,
)

SECRET = "another secret"


class Journey(PlatformModel):
    steps_done: int = Field(alias="stepsDone")
    pace: float | None = None


class JourneyEvent(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)


SHIPPED: list[type[Event]] = [LabResultEvent, DailyDeviceEvent, NudgeEvent, ProgramEvent]


def recording(*event_types: type[Event]) -> tuple[DispatchTable, list[Event]]:
    """A table that handles these types by keeping the events."""
    table, seen = DispatchTable(), list[Event]()

    @table.on(*event_types)
    async def record(event: Event, context: Context) -> None:
        seen.append(event)

    return table, seen


# Signing


def test_a_signed_envelope_opens() -> None:
    """What `sign_thrive` makes is opened with the same secret and scheme, and no other."""
    at = datetime(2026, 3, 16, 8, tzinfo=UTC)
    raw = sign_thrive({"event_id": "1"}, SECRET, signed_at=at, algorithm="sha512", encoding="base64", as_object=True)
    signature = ThriveSignature(secrets=[SECRET], algorithm="sha512")
    opened = signature.open(raw)
    assert (opened.content, opened.signed_at) == ({"event_id": "1"}, at)
    with pytest.raises(BadSignature):
        ThriveSignature(secrets=["wrong"], algorithm="sha512").open(raw)


def test_signed_headers_open() -> None:
    """What `sign_sahha` makes are the headers that prove the same text."""
    body = json.dumps({"externalId": "u1"})
    headers = sign_sahha(body, SECRET, external_id="u1", event_type="SomethingNew")
    assert SahhaSignature(secrets=[SECRET]).open(body.encode(), headers).content == {"externalId": "u1"}


# A context alone


async def test_a_context_without_anything() -> None:
    """`make_context` alone is enough for a handler that asks for little; the rest says what is missing."""
    context = make_context(attempt=3, source="labs", state={"a": 1})
    assert (context.delivery.attempt, context.delivery.source, context.state) == (3, "labs", {"a": 1})
    with pytest.raises(ConsumerError, match=r"make_context\(session="):
        _ = context.session
    with pytest.raises(NotConfigured):
        _ = context.thrive
    with pytest.raises(TypeError):
        make_context(no_such_thing=1)


async def test_a_context_with_stand_ins() -> None:
    """Stand-ins are what the handler finds."""
    client = object()
    context = make_context(thrive=client, sahha=client)
    assert context.thrive is client
    assert context.sahha is client


# A worker in a box


@pytest.mark.parametrize("event_class", SHIPPED)
@pytest.mark.parametrize("inline", [True, False])
async def test_an_event_comes_back_as_it_was_sent(event_class: type[Event], inline: bool) -> None:
    """A shipped event that is sent is the event the handler gets."""
    table, seen = recording(event_class)
    async with TestConsumer(table) as consumer:
        event = sample(event_class) if inline else sample(event_class, data=None)
        assert await consumer.send(event) == Handled()
    assert seen == [event]


async def test_a_partners_event_comes_back() -> None:
    """So is an event of a class of the partner's own, with aliases in its model."""
    table, seen = recording(JourneyEvent)
    async with TestConsumer(table) as consumer:
        event = sample(JourneyEvent, data={"stepsDone": 3, "pace": 1.5, "unknown": [1]})
        assert await consumer.send(event) == Handled()
    assert seen == [event]


async def test_an_event_type_nobody_names() -> None:
    """A class the table says nothing about is unknown, as it would be in production."""
    async with TestConsumer(DispatchTable()) as consumer:
        assert await consumer.send(sample(JourneyEvent, data=None)) == DeadLettered(
            "unknown_event", "no event type has this name"
        )
        outcome = await consumer.send(sample(LabResultEvent))
        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == "unhandled"
    table, seen = recording(UnknownEvent)
    async with TestConsumer(table) as consumer:
        assert await consumer.send(sample(JourneyEvent, data=None)) == Handled()
    assert type(seen[0]) is UnknownEvent


async def test_once_in_effect() -> None:
    """The same event again is a duplicate; another body under its id is put aside."""
    table, seen = recording(LabResultEvent)
    async with TestConsumer(table) as consumer:
        event = sample(LabResultEvent)
        assert await consumer.send(event) == Handled()
        assert await consumer.send(event) == Duplicate()
        outcome = await consumer.send(sample(LabResultEvent, event_id=event.event_id))
        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == "conflicting_duplicate"
    assert len(seen) == 1


async def test_what_a_handler_raises() -> None:
    """Each way of a handler to speak has its outcome, and a rejected event its dead letter."""
    said: list[BaseException] = []
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def speak(event: LabResultEvent, context: Context) -> None:
        raise said[-1]

    async with TestConsumer(table, settings={"max_attempts": 4}) as consumer:
        event = sample(LabResultEvent, event_id="e1", user_id="u1")
        said.append(Retry(17))
        assert await consumer.send(event) == WillRetry(17)
        said.append(Unavailable(retry_after=3))
        assert await consumer.send(event) == WillRetry(3)
        said.append(ValueError("no"))
        assert isinstance(await consumer.send(event), WillRetry)
        said.append(Reject("because"))
        assert await consumer.send(event) == DeadLettered("rejected", "because")
        (letter,) = consumer.dead_letters
        assert (letter.reason, letter.detail, letter.event_id, letter.user_id) == ("rejected", "because", "e1", "u1")
        assert letter.attempts == 3


async def test_attempts_are_counted_and_exhausted() -> None:
    """Failed runs are numbered; the last one makes a dead letter that names the exception, and counting starts anew."""
    table, attempts = DispatchTable(), list[int]()

    @table.on(LabResultEvent)
    async def fail(event: LabResultEvent, context: Context) -> None:
        attempts.append(context.delivery.attempt)
        raise KeyError(event.user_id)

    async with TestConsumer(table, settings={"max_attempts": 2}) as consumer:
        event = sample(LabResultEvent)
        assert isinstance(await consumer.send(event), WillRetry)
        outcome = await consumer.send(event)
        assert isinstance(outcome, DeadLettered)
        assert outcome.reason == "attempts_exhausted"
        assert outcome.error is not None
        assert outcome.error["type"].endswith("KeyError")
        assert isinstance(await consumer.send(event), WillRetry)
    assert attempts == [1, 2, 1]


async def test_what_a_handler_raises_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """A test that fails shows why; what handlers say on purpose is no failure."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def wrong(event: LabResultEvent, context: Context) -> None:
        raise ValueError("what is wrong")

    @table.on(NudgeEvent)
    async def later(event: NudgeEvent, context: Context) -> None:
        raise Retry

    async with TestConsumer(table) as consumer:
        await consumer.send(sample(NudgeEvent))
        assert "Traceback" not in capsys.readouterr().err
        await consumer.send(sample(LabResultEvent))
        assert "ValueError: what is wrong" in capsys.readouterr().err


async def test_a_failed_handler_leaves_no_row() -> None:
    """What a handler wrote before it failed is not there; what it wrote before it returned is."""
    metadata = MetaData()
    notes = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("name", String))
    table = DispatchTable(metadata=metadata)

    @table.on(LabResultEvent)
    async def write(event: LabResultEvent, context: Context) -> None:
        await context.session.execute(insert(notes).values(name=event.event_id))
        if event.event_id == "bad":
            raise Retry

    async with TestConsumer(table) as consumer:
        await consumer.send(sample(LabResultEvent, event_id="bad"))
        await consumer.send(sample(LabResultEvent, event_id="good"))
        async with consumer.session() as session:
            assert (await session.scalars(select(notes.c.name))).all() == ["good"]
        async with consumer.database.engine.connect() as connection:
            assert (await connection.execute(select(notes.c.id))).all() == [(1,)]


async def test_stand_ins_and_lifespans() -> None:
    """Handlers get what their lifespan yields, for as long as the consumer is open, and the stand-in clients."""
    said: list[Any] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        said.append("opened")
        yield "state"
        said.append("closed")

    table = DispatchTable(lifespan=lifespan)

    @table.on(LabResultEvent)
    async def handle(event: LabResultEvent, context: Context) -> None:
        said.extend([context.state, context.thrive, context.sahha])

    async with TestConsumer(table, thrive="T", sahha="S") as consumer:
        await consumer.send(sample(LabResultEvent))
    assert said == ["opened", "state", "T", "S", "closed"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"nonsense", "unreadable"),
        (b'{"signed_at": "2026-03-16T08:00:00Z", "body": "{}"}', "unsigned"),
        (sign_thrive({}, "wrong"), "bad_signature"),
        (sign_thrive({}, SECRET, signed_at=datetime.now(UTC) - timedelta(days=4)), "stale"),
        (sign_thrive({}, SECRET, signed_at=datetime.now(UTC) + timedelta(hours=1)), "stale"),
        (sign_thrive({}, SECRET), "invalid_event"),
    ],
)
async def test_raw_bytes(raw: bytes, reason: str) -> None:
    """Bytes that no handler may see become dead letters with the same reasons as in production."""
    table, seen = recording(LabResultEvent)
    async with TestConsumer(table, secret=SECRET) as consumer:
        for _ in range(25):  # more than a worker would take before it suspects its secret
            outcome = await consumer.send_raw(raw)
            assert isinstance(outcome, DeadLettered)
            assert outcome.reason == reason
        assert [letter.reason for letter in consumer.dead_letters] == [reason] * 25
        assert consumer.dead_letters[0].message == raw
    assert seen == []


async def test_several_envelopes_in_one_message() -> None:
    """Of a message with several envelopes all are handled, and the outcome is what decides for the queue."""
    table, seen = recording(LabResultEvent)
    async with TestConsumer(table, secret=SECRET) as consumer:
        good = [sign_thrive(sample_body(LabResultEvent), SECRET) for _ in range(2)]
        assert await consumer.send_raw(b"[%s,%s]" % tuple(good)) == Handled()
        forged = sign_thrive(sample_body(LabResultEvent), "wrong")
        outcome = await consumer.send_raw(b"[%s,%s]" % (good[0], forged))
        assert isinstance(outcome, DeadLettered)
    assert len(seen) == 2


async def test_settings_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are given by their dotted names; a wrong one is refused, and the environment plays no part."""
    monkeypatch.setenv("CONSUMER_THRIVE__EVENT_TYPES__LAB_RESULT", '["nothing"]')
    table, seen = recording(LabResultEvent)
    async with TestConsumer(table, settings={"thrive.event_types.lab_result": ["vendor.lab"]}) as consumer:
        assert await consumer.send(sample(LabResultEvent, event_type="vendor.lab")) == Handled()
    assert len(seen) == 1
    with pytest.raises(SettingsError, match="max-attempts"):
        await TestConsumer(table, settings={"max_attempts": "many"}).__aenter__()


async def test_outside_of_its_block() -> None:
    """A consumer that was not entered says how to use it."""
    with pytest.raises(ConsumerError, match="async with TestConsumer"):
        await TestConsumer(DispatchTable()).send(sample(LabResultEvent))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SHIPPED), st.integers(0, 10_000))
def test_sent_bodies_are_wire_bodies(event_class: type[Event], seed: int) -> None:
    """The JSON an event is sent as holds no name that the platform would not send."""
    body = sample_body(event_class, seed=seed)
    event = event_class.model_validate({"provider": "thrive", **body})
    sent = json.loads(event.model_dump_json(by_alias=True))
    assert "provider" not in sent
    assert body.keys() <= sent.keys()


def test_importing_needs_no_pytest() -> None:
    """`consumer.testing` works where pytest is not installed."""
    code = "import sys; sys.modules['pytest'] = None; import consumer.testing as t; print(t.sample, t.TestConsumer)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=".")
