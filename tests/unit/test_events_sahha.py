"""Reading Sahha's bodies: typed events, their keys, and that a refusal says nothing of the content."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer import DispatchTable, SahhaSignature
from consumer.errors import InvalidEvent, SettingsError, Unreadable, VerificationError
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
from consumer.events.sahha_reading import SAHHA_CLASSES, SahhaReader
from consumer.events.schema import event_schemas
from consumer.providers import build_readers
from consumer.settings import Settings
from consumer.signatures import Opened
from consumer.testing import sample_body

CANARY = "canary-4711"
SCORE, BIOMARKER, ARCHETYPE, DATA_LOG = (cls.event_types[0] for cls in SAHHA_CLASSES)
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "sahha.json").read_text())
READER = SahhaReader()


def opened(content: dict[str, Any], event_type: str = SCORE) -> Opened:
    """A body whose signature holds, under a header that nobody signed."""
    return Opened(json.dumps(content).encode(), None, 0, {"x-event-type": event_type}, content)


def read(content: dict[str, Any], event_type: str = SCORE) -> Event:
    return READER.read(opened(content, event_type))


def score(**fields: Any) -> dict[str, Any]:
    body = {"id": "s1", "externalId": "u1", "type": "sleep", "score": 0.5, "scoreDateTime": "2026-03-15T00:00+12:00"}
    return {**body, "createdAtUtc": "2026-03-16T08:00:00.5Z", **fields}


def refusal(content: dict[str, Any], event_type: str = SCORE) -> str:
    with pytest.raises(InvalidEvent) as caught:
        read(content, event_type)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def vector(name: str) -> Event:
    """The event in one of the published messages."""
    case = next(case for case in VECTORS if case["name"] == name)
    signature = SahhaSignature(secrets=[case["secret"]], encoding=case["encoding"])
    return READER.read(signature.open(case["raw"].encode(), case["headers"]))


def test_a_score() -> None:
    """A score has its fields as typed attributes, its factors as models and its day with the member's offset."""
    event = vector("score")
    assert isinstance(event, ScoreEvent)
    assert (event.provider, event.event_type, event.user_id) == ("sahha", SCORE, "user_12345")
    assert (event.type, event.state, event.score, event.data_sources[0]) == ("readiness", "medium", 0.93, "age")
    assert (event.factors[1].name, event.factors[1].unit) == ("sleep_duration", "minute")
    assert event.score_date_time.utcoffset() == timedelta(hours=12)
    assert event.occurred_at == event.created_at_utc == datetime(2025, 7, 9, 20, 1, 33, 418200, UTC)
    assert event.profile_id == "0f087b92-026b-418f-a39d-f3596ce324e0"
    assert event.model_extra == {}


def test_a_biomarker() -> None:
    """The value is read as its type says, and the text it came as is kept."""
    event = vector("biomarker")
    assert isinstance(event, BiomarkerEvent)
    assert (event.category, event.type, event.raw_value, event.value) == ("activity", "steps", "10432", 10432)


@pytest.mark.parametrize(
    ("value_type", "raw", "value"),
    [
        ("integer", 384, 384),
        ("double", "0.972", 0.972),
        ("datetime", "2025-07-10T22:00+12:00", datetime(2025, 7, 10, 22, tzinfo=timezone(timedelta(hours=12)))),
        ("colour", "red", "red"),
        (None, None, None),
    ],
)
def test_a_biomarkers_value(value_type: str | None, raw: Any, value: Any) -> None:
    """Whatever cannot be read as its type says is given as it came."""
    event = read({"category": "x", "type": "y", "value": raw, "valueType": value_type}, BIOMARKER)
    assert isinstance(event, BiomarkerEvent)
    assert (event.raw_value, event.value) == (raw, value)


def test_an_archetype() -> None:
    """An archetype's value is among those of its name, with its place there."""
    event = vector("archetype")
    assert isinstance(event, ArchetypeEvent)
    assert (event.name, event.value, event.data_type, event.ordinality) == (
        "sleep_duration",
        "average_sleeper",
        "ordinal",
        2,
    )


def test_a_data_log() -> None:
    """Logs without an id of their own took place when Sahha received them, and carry their readings."""
    event = vector("data-log")
    assert isinstance(event, DataLogEvent)
    assert event.occurred_at == event.received_at_utc == datetime(2025, 7, 9, 20, 0, 41, 120000, UTC)
    assert [entry.value for entry in event.data_logs] == [210, 454, 424]


def test_keys() -> None:
    """A key is type, id and time as they stand in the body, so a result computed again is another event."""
    assert read(score()).event_id == f"sahha:{SCORE}:s1:2026-03-16T08:00:00.5Z"
    assert read(score(createdAtUtc="2026-03-16T08:00:00.500Z")).event_id != read(score()).event_id


@pytest.mark.parametrize(
    "changes", [{"id": None}, {"id": ""}, {"createdAtUtc": None}, {"createdAtUtc": 1773648000}, {"id": None, "x": 1}]
)
def test_keys_without_an_id(changes: dict[str, Any]) -> None:
    """Without an id or a time as text, the body itself makes the key."""
    body = score(**changes)
    digest = sha256(json.dumps(body).encode()).hexdigest()
    assert read(body).event_id == f"sahha:{SCORE}:{digest}"


def test_keys_of_data_logs_and_of_unknown_types() -> None:
    """Logs have the body's hash; so has what nobody knows, whatever name its unsigned header gives it."""
    log = {"logType": "activity", "dataLogs": [], "id": "an id", "createdAtUtc": "2026-03-16T08:00:00Z"}
    digest = sha256(json.dumps(log).encode()).hexdigest()
    assert read(log, DATA_LOG).event_id == f"sahha:{DATA_LOG}:{digest}"
    new = {"insight": 1}
    digest = sha256(json.dumps(new).encode()).hexdigest()
    assert {read(new, name).event_id for name in ("New", "Other")} == {f"sahha:unknown:{digest}"}


def test_an_unknown_type() -> None:
    """An unknown event has all of the body as extras, and whom and when as far as the body says it."""
    content = score(event_id="mine", data=[1], target={"id": 7}, provider="thrive", user_id="somebody else")
    del content["scoreDateTime"]
    body, signature = json.dumps(content).encode(), SahhaSignature(secrets=["a secret"])
    headers = signature.sign(body, external_id="u1", event_type="InsightCreatedIntegrationEvent")
    event = READER.read(signature.open(body, headers))
    assert type(event) is UnknownEvent
    assert (event.provider, event.event_type, event.user_id) == ("sahha", "InsightCreatedIntegrationEvent", "u1")
    assert event.occurred_at == datetime(2026, 3, 16, 8, 0, 0, 500000, UTC)
    assert event.model_extra == content
    assert read({"createdAtUtc": "yesterday"}, "New").occurred_at is None


@pytest.mark.parametrize("cls", SAHHA_CLASSES)
def test_a_known_body_under_an_unknown_name(cls: type[SahhaEvent]) -> None:
    """Who renames an event makes no new kind of event of it: no handler of those gets it."""
    with pytest.raises(VerificationError, match="another event type than X-Event-Type claims") as caught:
        read(sample_body(cls), "InsightCreatedIntegrationEvent")
    assert (caught.value.reason, caught.value.proven) == ("unknown_event", False)


_NAMES = (
    "provider",
    "event_id",
    "eventId",
    "event_type",
    "eventType",
    "user_id",
    "userId",
    "occurred_at",
    "occurredAt",
)


@pytest.mark.parametrize("name", [*_NAMES, "profile_id", "external_id", "created_at_utc", "raw_value"])
@pytest.mark.parametrize("value", ["thrive", 7, None, {}])
def test_a_body_cannot_say_what_is_worked_out(name: str, value: Any) -> None:
    """Fields named like an event's own are extras of the body; only the names that Sahha uses mean anything."""
    plain, event = read(score()), read(score(**{name: value}))
    assert isinstance(event, ScoreEvent)
    assert event.model_extra == {name: value}
    for attribute in ("provider", "event_id", "event_type", "user_id", "occurred_at", "external_id", "profile_id"):
        assert getattr(event, attribute) == getattr(plain, attribute)
    assert json.loads(event.model_dump_json(by_alias=True))[name] == value


@pytest.mark.parametrize(
    "case", [case["name"] for case in VECTORS if case["valid"] and case["name"] != "unknown-event-type"]
)
def test_a_dump_has_the_bodys_shape(case: str) -> None:
    """What an event is written as has exactly the names of the body it came from, and reads as an equal event."""
    event = vector(case)
    assert isinstance(event, SahhaEvent)
    dumped = json.loads(event.model_dump_json(by_alias=True))
    body = next(one["raw"] for one in VECTORS if one["name"] == case)
    assert dumped.keys() == json.loads(body).keys()
    again = read(dumped, event.event_type)
    assert again.model_copy(update={"event_id": event.event_id}) == event


def test_what_is_not_there_is_none() -> None:
    """A body with nothing but what tells its type is an event all the same, of nobody known."""
    event = read({"type": "sleep", "score": None, "scoreDateTime": "2026-03-15T00:00:00Z"})
    assert isinstance(event, ScoreEvent)
    assert (event.id, event.profile_id, event.external_id, event.user_id) == (None, None, None, None)
    assert (event.score, event.state, event.occurred_at, event.factors) == (None, None, None, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": CANARY}, "ScoreEvent: score: expected a number"),
        ({"type": None}, "ScoreEvent: type: expected text"),
        ({"id": 4711}, "ScoreEvent: id: expected text"),
        ({"scoreDateTime": CANARY}, "ScoreEvent: scoreDateTime: expected a time"),
        ({"createdAtUtc": CANARY}, "ScoreEvent: createdAtUtc: expected a time, as ISO 8601 or since the epoch"),
        ({"factors": [{"score": CANARY}]}, "ScoreEvent: factors.0.score: expected a number"),
        ({"dataSources": CANARY}, "ScoreEvent: dataSources: expected a list"),
        ({"externalId": {CANARY: 1}}, "ScoreEvent: externalId: expected text"),
        ({"externalId": "\ud800"}, "externalId: expected text that is not empty"),
        ({"profileId": ""}, "profileId: expected text that is not empty"),
        ({"id": "\ud800"}, "id, createdAtUtc: expected valid Unicode text"),
    ],
)
def test_a_wrong_type_is_named_without_its_value(changes: dict[str, Any], said: str) -> None:
    """A known field of another type makes the event invalid; the text names the field and holds nothing of it."""
    text = refusal(score(**changes))
    assert said in text
    assert "canary" not in text
    assert "4711" not in text


@pytest.mark.parametrize("name", ["", "a\nb", "\ud800", "x" * 201])
def test_a_header_that_names_no_type(name: str) -> None:
    """An unsigned name must be one that a log and a dead letter can take."""
    with pytest.raises(Unreadable, match=r"^X-Event-Type: expected a name$") as caught:
        read(score(), name)
    assert not caught.value.proven
    assert READER.facts(opened(score(), name))[1] is None


def test_facts_of_what_cannot_be_read() -> None:
    """A dead letter of an invalid event has the key it would have had, unless that is no text."""
    assert READER.facts(opened(score(score="x"))) == (f"sahha:{SCORE}:s1:2026-03-16T08:00:00.5Z", SCORE)
    assert READER.facts(opened(score(id="\ud800"))) == (None, SCORE)


def test_events_show_their_type_and_id_only() -> None:
    """What a log line prints of an event is not somebody's health."""
    for text in (repr(vector("score")), str(vector("score"))):
        assert "readiness" not in text
        assert "user_12345" not in text


@pytest.mark.parametrize("cls", SAHHA_CLASSES)
def test_schemas_describe_bodies(cls: type[SahhaEvent]) -> None:
    """A schema has the body's names, and none of what is worked out from it."""
    (schema,) = event_schemas([cls]).values()
    assert schema["x-event-types"] == list(cls.event_types)
    assert sample_body(cls, seed=1).keys() <= schema["properties"].keys()
    assert not {"provider", "eventId", "eventType", "userId", "occurredAt"} & schema["properties"].keys()


def test_a_class_of_ones_own_is_refused() -> None:
    """Nothing signed says that a body is of a new type, so a table that waits for one never got it: that is said."""

    class InsightEvent(SahhaEvent):
        """Of a type that Sahha may send one day."""

    table = DispatchTable()
    table.ignore(InsightEvent)
    with pytest.raises(SettingsError, match=r"no event of Sahha's is a InsightEvent: expected one of ScoreEvent"):
        build_readers(Settings(), table)
    table = DispatchTable()
    table.ignore(ScoreEvent, LabResultEvent)
    assert set(build_readers(Settings(), table)) == {"thrive", "sahha"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = sorted({name for cls in SAHHA_CLASSES for name in sample_body(cls, seed=3)})


@settings(max_examples=50)
@given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    st.sampled_from(SAHHA_CLASSES),
    st.integers(min_value=0, max_value=5),
)
def test_no_body_does_anything_but_be_read_or_refused(
    changes: dict[str, Any], cls: type[SahhaEvent], seed: int
) -> None:
    """Whatever the fields hold, the outcome is an event of the class or `InvalidEvent`."""
    content = sample_body(cls, seed=seed) | changes
    body = json.dumps(content).encode()
    message = Opened(body, None, 0, {"x-event-type": cls.event_types[0]}, content)
    try:
        event = READER.read(message)
    except InvalidEvent:
        assert READER.facts(message)[1] == cls.event_types[0]
    else:
        assert type(event) is cls
