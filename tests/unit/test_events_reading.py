"""Reading bodies: what is tolerated, what is refused, and that a refusal says nothing of the content."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import field_validator

from consumer.errors import InvalidEvent
from consumer.events import Event, LabResultEvent, NudgeEvent, ThriveEvent, UnknownEvent
from consumer.events.reading import ThriveReader
from consumer.models.base import PlatformModel
from consumer.models.thrive import HealthAction, NudgeCard
from consumer.signatures import Opened

CANARY = "canary-4711"
NUDGE = "coach.nudge.created"


class Journey(PlatformModel):
    step: int | None = None
    scores: dict[str, int] | None = None

    @field_validator("step", mode="after")
    @classmethod
    def _limited(cls, value: int | None) -> int | None:
        if value == 99:
            raise ValueError(CANARY)
        if value == 98:
            raise KeyError(CANARY)
        return value


class JourneyEvent(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)


READER = ThriveReader(classes=[JourneyEvent])


def body(event_type: str = "lab.result.ready", **fields: Any) -> dict[str, Any]:
    return {"event_id": "e1", "event_type": event_type, **fields}


def opened(content: dict[str, Any]) -> Opened:
    """A body whose signature holds."""
    return Opened(json.dumps(content).encode(), None, 0, {}, content)


def refusal(content: Any, reader: ThriveReader = READER) -> str:
    with pytest.raises(InvalidEvent) as caught:
        reader.read_body(content)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def event_or_silence(content: dict[str, Any]) -> Event | None:
    """The event, or None after a refusal that holds nothing of the content."""
    try:
        return READER.read_body(content)
    except InvalidEvent as error:
        refused = error
    assert CANARY not in str(refused)
    assert refused.__cause__ is None
    assert refused.__context__ is None
    return None


# --- tolerance -------------------------------------------------------------------------------------------------


def test_unfinished_lab_result() -> None:
    """While a result is not ready, null and missing parts read as nothing there, and unknown states are kept."""
    event = READER.read_body(body(data={"status": "being_reviewed", "domains": None, "analysis": None}))
    assert isinstance(event, LabResultEvent)
    assert event.data is not None
    assert (event.data.status, event.data.domains, event.data.analysis) == ("being_reviewed", (), None)


def test_extra_fields_survive_everywhere() -> None:
    """Fields of tomorrow are kept at every level, and a body's own `provider` field is one of them."""
    content = body(provider="oura", severity=3, data={"domains": [{"values": [{"loinc": "2345-7"}]}]})
    event = READER.read_body(content)
    assert isinstance(event, LabResultEvent)
    assert event.provider == "thrive"
    assert event.model_extra == {"provider": "oura", "severity": 3}
    assert event.data is not None
    assert event.data.domains[0].values[0].model_extra == {"loinc": "2345-7"}
    assert event.model_dump()["provider"] == "oura"


def test_reading_leaves_the_body_alone() -> None:
    """The body that was read is the caller's, and stays as it was."""
    content = body(user_id=None, target={"user_id": "u1", "card_item_id": "c1"})
    before = json.dumps(content)
    event = READER.read_body(content)
    assert event.user_id == "u1"
    assert json.dumps(content) == before


@pytest.mark.parametrize(
    ("content", "user_id", "target_id"),
    [
        ({"user_id": "u", "target": {"id": "t", "user_id": "no"}}, "u", "t"),
        ({"target": {"user_id": "u", "health_action_id": "t"}}, "u", "t"),
        ({"data": {"user_id": "u", "lab_result_id": "t"}}, "u", "t"),
        ({"user_id": None, "card_item_id": "t", "target": None}, None, "t"),
        ({"target": {"type": "lab_result"}}, None, None),
    ],
)
def test_ids_are_found_in_their_usual_places(content: dict[str, Any], user_id: str, target_id: str) -> None:
    """Member and target ids are taken from the first documented or usual place that has one; null is absent."""
    event = READER.read_body(body(**content))
    assert isinstance(event, LabResultEvent)
    assert event.user_id == user_id
    assert (event.target.id if event.target else None) == target_id
    extras = {key: value for key, value in content.items() if key not in type(event).model_fields}
    assert event.model_extra == extras


def test_configured_places() -> None:
    """Settings say where the values are, instead of the defaults; None leaves the defaults."""
    reader = ThriveReader(
        fields={"event_type": ["meta.kind"], "user_id": ["member.id"], "occurred_at": ["meta.at"], "target_id": None},
        event_types={"lab_result": ["LAB_*"], "nudge": None},
    )
    event = reader.read_body(
        {"event_id": "e", "meta": {"kind": "LAB_DONE", "at": 1773648000}, "member": {"id": "m"}, "target": {"id": "t"}}
    )
    assert isinstance(event, LabResultEvent)
    assert (event.event_type, event.user_id) == ("LAB_DONE", "m")
    assert event.occurred_at == datetime(2026, 3, 16, 8, tzinfo=UTC)
    assert event.target is not None
    assert event.target.id == "t"
    assert event.model_extra is not None
    assert set(event.model_extra) == {"meta", "member"}
    assert reader.class_for("lab.result.ready") is UnknownEvent
    assert reader.class_for(NUDGE) is NudgeEvent


@pytest.mark.parametrize("key", ["event_type", "type", "event"])
def test_event_type_names(key: str) -> None:
    """The event type is found under each of the usual names."""
    assert type(READER.read_body({"event_id": "e", key: "lab.x"})) is LabResultEvent
    assert READER.facts(opened({"event_id": "e", key: "lab.x"})) == ("e", "lab.x")


@pytest.mark.parametrize("content", [{}, {"event_type": None}, {"event_type": 7}, {"event_type": ""}, {"type": []}])
def test_facts_of_what_cannot_be_read(content: Any) -> None:
    """Asking a broken body for its id and type gives None, because dead letters need an answer."""
    assert READER.facts(opened(content)) == (None, None)
    assert READER.facts(opened(content | {"event_id": 7})) == (None, None)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-03-16T08:00:00Z", datetime(2026, 3, 16, 8, tzinfo=UTC)),
        ("2026-03-16T08:00:00", datetime(2026, 3, 16, 8, tzinfo=UTC)),
        ("2026-03-16T08:00:00.25+02:00", datetime(2026, 3, 16, 8, 0, 0, 250000, timezone(timedelta(hours=2)))),
        (1773648000, datetime(2026, 3, 16, 8, tzinfo=UTC)),
        (1773648000.5, datetime(2026, 3, 16, 8, 0, 0, 500000, UTC)),
        (1773648000000, datetime(2026, 3, 16, 8, tzinfo=UTC)),
    ],
)
def test_times(written: object, expected: datetime) -> None:
    """Times come as ISO 8601 or epoch numbers, are always aware, and are UTC when they do not say otherwise."""
    event = READER.read_body(body(occurred_at=written))
    assert event.occurred_at == expected
    assert event.occurred_at is not None
    assert event.occurred_at.utcoffset() == expected.utcoffset()


# --- nudges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "data", "model"),
    [
        ({"type": "card"}, {"item_header": "x"}, NudgeCard),
        ({"type": "health_action"}, {"title": "x"}, HealthAction),
        (None, {"card_item_id": "c"}, NudgeCard),
        (None, {"health_action_id": "h"}, HealthAction),
        ({"type": "digest"}, {"health_action_id": "h"}, HealthAction),
    ],
)
def test_what_a_nudge_carries(target: Any, data: dict[str, Any], model: type) -> None:
    """The target decides between card and health action; without its word, the id in the data does."""
    event = READER.read_body(body(NUDGE, target=target, data=data))
    assert isinstance(event, NudgeEvent)
    assert type(event.data) is model
    assert (event.is_card, event.is_health_action) == (model is NudgeCard, model is HealthAction)


def test_nudge_data_nobody_can_place() -> None:
    """Data that is neither a card nor a health action is refused, not guessed at; without data it passes."""
    assert refusal(body(NUDGE, target={"type": "digest"}, data={"x": 1})) == (
        "NudgeEvent: data: expected a card or a health action"
    )
    event = READER.read_body(body(NUDGE, target={"type": "digest"}))
    assert isinstance(event, NudgeEvent)
    assert (event.data, event.is_card, event.is_health_action) == (None, False, False)


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"event_type": "lab.x"}, "event_id: expected text that is not empty"),
        ({"event_id": "", "event_type": "lab.x"}, "event_id: expected text that is not empty"),
        ({"event_id": 17, "event_type": "lab.x"}, "event_id: expected text that is not empty"),
        ({"event_id": "\ud800", "event_type": "lab.x"}, "event_id: expected text that is not empty"),
        ({"event_id": "e"}, "event_type: expected an event type"),
        ({"event_id": "e", "type": 5}, "type: expected text that is not empty"),
        (body(user_id=5), "user_id: expected text that is not empty"),
        (body(user_id=""), "user_id: expected text that is not empty"),
        (body(target={"id": 5}), "target.id: expected text that is not empty"),
        (body(target="t"), "LabResultEvent: target: expected an object"),
        (body(data=[1]), "LabResultEvent: data: expected an object"),
        (body(data="x"), "LabResultEvent: data: expected an object"),
        (body(occurred_at="soon"), "LabResultEvent: occurred_at: expected a time, as ISO 8601 or since the epoch"),
        (body(occurred_at=True), "LabResultEvent: occurred_at: expected a time, as ISO 8601 or since the epoch"),
        (body(occurred_at=1e300), "LabResultEvent: occurred_at: expected a time, as ISO 8601 or since the epoch"),
        (body(data={"test_date": "2026"}), "LabResultEvent: data.test_date: expected a date, YYYY-MM-DD"),
        (body(data={"test_date": 20524}), "LabResultEvent: data.test_date: expected a date, YYYY-MM-DD"),
        (body(data={"confidence": "0.9"}), "LabResultEvent: data.confidence: expected a number"),
        (body(data={"confidence": True}), "LabResultEvent: data.confidence: expected a number"),
        (body(data={"confidence": 10**400}), "LabResultEvent: data.confidence: expected a number"),
        (body(data={"title": 1}), "LabResultEvent: data.title: expected text"),
        (body(data={"domains": {}}), "LabResultEvent: data.domains: expected a list"),
        (
            body(data={"domains": [{}, {"values": [{"value": "high"}]}]}),
            "LabResultEvent: data.domains.1.values.0.value: expected a number",
        ),
        (
            body(data={"analysis": {"follow_up_needed": "yes"}}),
            "LabResultEvent: data.analysis.follow_up_needed: expected true or false",
        ),
        (
            body(data={"title": 1, "status": 1, "lab_name": 1, "lab_result_id": "x", "confidence": "x"}),
            (
                "LabResultEvent: data.status: expected text; data.lab_name: expected text; data.title: expected text; "
                "and 1 more"
            ),
        ),
        ([1], "body: expected an object"),
    ],
)
def test_refusals_name_the_field_and_the_expectation(content: Any, text: str) -> None:
    """A wrong type in a known field is refused in one line that names the field and what belongs there."""
    assert refusal(content) == text


def test_big_whole_numbers_become_floats() -> None:
    """A whole number beyond 64 bits is still a number."""
    event = READER.read_body(body(data={"confidence": 10**30}))
    assert isinstance(event, LabResultEvent)
    assert event.data is not None
    assert event.data.confidence == 1e30


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"step": 99}, "JourneyEvent: data.step: expected what its model accepts (value_error)"),
        ({"step": 98}, "JourneyEvent: its validators raised KeyError"),
        ({"scores": {CANARY: "x"}}, "JourneyEvent: data.scores: expected a number"),
    ],
)
def test_partner_models_cannot_leak(data: dict[str, Any], text: str) -> None:
    """Neither the texts of a partner's validators nor keys of free-form objects reach the refusal."""
    assert refusal(body("coach.journey.started", data=data)) == text


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=5)
    | st.just(CANARY),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just(CANARY), inner, max_size=3)
    ),
    max_leaves=6,
)
WORDS = """
event_id type event_type user_id occurred_at target data provider id date value lab_result_id domains values
domain_name reference_range low test_date analysis steps activity_summary body_summary card_item_id item_body main
scheduled_at execution_options model_config model_extra __class__ __dict__ is_card event_types step scores self
"""
NAMES = st.sampled_from(WORDS.split())
OBJECTS: st.SearchStrategy[dict[str, Any]] = st.deferred(
    lambda: st.dictionaries(NAMES, JSON | OBJECTS | st.lists(OBJECTS, max_size=2), max_size=5)
)
TYPES = st.sampled_from(["lab.x", "daily.x", NUDGE, "program.updated", "coach.journey.x", "else"])


@given(OBJECTS, st.none() | OBJECTS | JSON, st.none() | OBJECTS | JSON, TYPES)
def test_any_object_is_an_event_or_a_silent_refusal(
    fields: dict[str, Any], data: Any, target: Any, event_type: str
) -> None:
    """Whatever a body holds, it is read or refused, and a refusal holds none of it."""
    content = {"event_id": CANARY, "data": data, "target": target, **fields, "event_type": event_type}
    event = event_or_silence(content)
    if event is not None:
        assert type(event) is READER.class_for(event_type)
        assert (event.event_id, event.provider) == (content["event_id"], "thrive")
        assert event.model_extra is not None
        assert event.model_extra == {
            key: value for key, value in content.items() if key == "provider" or key not in LabResultEvent.model_fields
        }


@given(st.lists(st.sampled_from(["data", "domains", "values", "value", 0]), max_size=5), JSON)
def test_canaries_in_known_fields_never_show(path: list[Any], leaf: Any) -> None:
    """A wrong value at any depth is refused without being quoted."""
    value: Any = {CANARY: leaf}
    for part in reversed(path):
        value = [value] if part == 0 else {part: value}
    event_or_silence(body(data={"lab_name": CANARY, "confidence": value, "domains": value}))
