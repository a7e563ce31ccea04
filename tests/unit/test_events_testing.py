"""Sample events, sample bodies and schemas."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumer.events import (
    DailyDeviceEvent,
    Event,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    Target,
    ThriveEvent,
    UnknownEvent,
)
from consumer.events.reading import ThriveReader
from consumer.events.schema import event_schemas
from consumer.models.base import PlatformModel
from consumer.models.thrive import HealthAction, LabResult, NudgeCard
from consumer.testing.samples import sample, sample_body


class Journey(PlatformModel):
    step: int


class JourneyEvent(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*", "coach.journey?")


class OwnLabEvent(LabResultEvent):
    event_types: ClassVar[tuple[str, ...]] = ("vendor.lab.*", "vendor.lab")


SHIPPED: list[type[Event]] = [LabResultEvent, DailyDeviceEvent, NudgeEvent, ProgramEvent, UnknownEvent]
ALL: list[type[Event]] = [*SHIPPED, JourneyEvent, OwnLabEvent]
READER = ThriveReader(classes=[JourneyEvent, OwnLabEvent])
SCHEMAS = event_schemas(ALL)


@given(st.sampled_from(ALL), st.booleans(), st.integers(0, 10_000))
def test_bodies_read_back(event_class: type[Event], inline: bool, seed: int) -> None:
    """A sample body is JSON, fits its schema, reads back as its class, and is the same for the same seed."""
    body = sample_body(event_class, inline=inline, seed=seed)
    assert body == sample_body(event_class, inline=inline, seed=seed)
    event = READER.read_body(json.loads(json.dumps(body)))
    assert type(event) is event_class
    assert event.event_id == body["event_id"]
    assert event.user_id
    assert event.model_extra == {}
    jsonschema.validate(body, SCHEMAS[event_class.__name__])
    if not inline:
        assert "data" not in body
    elif issubclass(event_class, LabResultEvent | DailyDeviceEvent | NudgeEvent | ProgramEvent):
        assert isinstance(event, ThriveEvent)
        assert event.data is not None
        assert not event.data.model_extra


@pytest.mark.parametrize("event_class", ALL)
def test_samples(event_class: type[Event]) -> None:
    """A sample is an event of exactly its class, with a fresh id each time, and survives the way over the wire."""
    event, other = sample(event_class), sample(event_class)
    assert type(event) is event_class
    assert event.event_id != other.event_id
    assert READER.read_body(event.model_dump(mode="json")) == event


def test_sample_changes() -> None:
    """Attributes can be set; the target follows the data, and the data follows the target."""
    event = sample(LabResultEvent, user_id="u1", event_id="e1", data=LabResult(lab_result_id="l1"))
    assert (event.user_id, event.event_id, event.data) == ("u1", "e1", LabResult(lab_result_id="l1"))
    assert event.target == Target(type="lab_result", id="l1")
    basic = sample(LabResultEvent, data=None)
    assert basic.data is None
    assert basic.target is not None
    assert basic.target.id
    action = sample(NudgeEvent, target=Target(type="health_action", id="a1"))
    assert isinstance(action.data, HealthAction)
    assert action.data.health_action_id == "a1"
    assert sample(NudgeEvent, data=HealthAction(health_action_id="a2")).is_health_action
    assert sample(JourneyEvent, data=Journey(step=2)).data == Journey(step=2)
    assert sample(JourneyEvent).data is None


def test_sample_refuses_slips() -> None:
    """A misspelt attribute or a wrong value fails at once instead of making an odd event."""
    with pytest.raises(TypeError, match="LabResultEvent has no attribute 'usr_id'"):
        sample(LabResultEvent, usr_id="u1")
    with pytest.raises(ValidationError):
        sample(LabResultEvent, user_id=7)


def test_body_changes() -> None:
    """A body takes any top-level field, models included."""
    body = sample_body(LabResultEvent, seed=1, user_id="u1", data=LabResult(title="x"), severity=3)
    assert (body["user_id"], body["severity"], body["data"]["title"]) == ("u1", 3, "x")
    assert json.dumps(body)


def test_samples_vary() -> None:
    """Sample bodies are different from one another, and nudges are of both kinds."""
    bodies = [json.dumps(sample_body(LabResultEvent, seed=seed)["data"]) for seed in range(20)]
    assert len(set(bodies)) == 20
    assert 1_000 < sum(map(len, bodies)) / 20 < 5_000
    kinds: set[type[Any]] = {type(sample(NudgeEvent).data) for _ in range(100)}
    assert kinds == {NudgeCard, HealthAction}


def test_schemas() -> None:
    """Schemas are JSON, describe the body, and say which event types they are for."""
    lab = SCHEMAS["LabResultEvent"]
    assert json.loads(json.dumps(SCHEMAS)) == SCHEMAS
    assert lab["$schema"].startswith("https://json-schema.org/")
    assert lab["x-event-types"] == ["lab.*"]
    assert set(lab["required"]) == {"event_id", "event_type"}
    assert "provider" not in lab["properties"]
    assert "x-event-types" not in SCHEMAS["UnknownEvent"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(sample_body(LabResultEvent) | {"user_id": 7}, lab)


def test_schemas_of_namesakes() -> None:
    """Two classes of one name both have a schema."""

    class JourneyEvent(ThriveEvent[Journey]):
        event_types: ClassVar[tuple[str, ...]] = ("other",)

    names = list(event_schemas([globals()["JourneyEvent"], JourneyEvent, JourneyEvent]))
    assert len(names) == 2
    assert all(name.endswith("JourneyEvent") and "." in name for name in names)
