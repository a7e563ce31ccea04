"""Event classes: partners' own, frozen, silent when printed; and the settings that map names to them."""

from __future__ import annotations

from datetime import timezone
from pprint import pformat
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError
from rich.pretty import pretty_repr

from consumer.errors import InvalidEvent, SettingsError
from consumer.events import DailyDeviceEvent, LabResultEvent, ThriveEvent, UnknownEvent
from consumer.events.reading import ThriveReader
from consumer.models.base import PlatformModel
from consumer.models.thrive import LabResult

CANARY = "canary-4711"


class Journey(PlatformModel):
    step: int | None = None


class JourneyEvent(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)


READER = ThriveReader(classes=[JourneyEvent])


def body(event_type: str = "lab.result.ready", **fields: Any) -> dict[str, Any]:
    return {"event_id": "e1", "event_type": event_type, **fields}


def test_partner_class() -> None:
    """A partner's own type is read into their own class and model."""
    event = READER.read_body(body("coach.journey.started", user_id="u", data={"step": 3, "more": True}))
    assert type(event) is JourneyEvent
    assert event.data == Journey.model_validate({"step": 3, "more": True})
    assert READER.class_for("coach.journey.ended") is JourneyEvent
    assert READER.class_for("coach.other") is UnknownEvent


def test_shipped_classes_may_be_named_again() -> None:
    """A dispatch table's classes can be handed over as they are, shipped ones included, without undoing settings."""
    reader = ThriveReader(
        event_types={"lab_result": ["labs"]}, classes=[LabResultEvent, DailyDeviceEvent, JourneyEvent]
    )
    assert reader.class_for("labs") is LabResultEvent
    assert reader.class_for("lab.x") is UnknownEvent


def test_events_and_data_are_frozen() -> None:
    """Neither an event nor its data can be changed."""
    event = READER.read_body(body(data={"title": "x"}))
    assert isinstance(event, LabResultEvent)
    with pytest.raises(ValidationError):
        event.user_id = "other"  # type: ignore[misc]  # the point of the test
    with pytest.raises(ValidationError):
        event.data.title = "other"  # type: ignore[misc, union-attr]  # the point of the test


def test_nothing_of_an_event_shows_when_printed() -> None:
    """However an event or its data is printed, only type and event id show."""
    event = READER.read_body(
        body(user_id=CANARY, data={"title": CANARY, "domains": [{"domain_name": CANARY}], "x": CANARY}, y=CANARY)
    )
    assert isinstance(event, LabResultEvent)
    assert repr(event) == str(event) == "LabResultEvent(event_type='lab.result.ready', event_id='e1')"
    assert repr(event.data) == str(event.data) == f"{event.data}" == "LabResult()"
    for printed in (pformat(event), pformat(event.data), pretty_repr(event), pretty_repr(event.data)):
        assert CANARY not in printed


def test_errors_of_hand_made_events_are_silent_too() -> None:
    """Building an event by hand with a wrong value fails without quoting it."""
    with pytest.raises(ValidationError) as caught:
        LabResultEvent.model_validate(body(data={"confidence": CANARY}))
    assert CANARY not in str(caught.value)
    assert CANARY not in repr(caught.value)


def test_models_are_usable_by_hand() -> None:
    """Events and data can be constructed with attributes, as tests of handlers do."""
    event = LabResultEvent(event_id="e", event_type="lab.x", data=LabResult(lab_result_id="l"))
    assert event.provider == "thrive"
    assert event.data == LabResult(lab_result_id="l")
    assert LabResultEvent.model_validate(event.model_dump(mode="json")) == event


class _NoTypes(ThriveEvent[Journey]):
    pass


class _Text(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = "coach.*"  # type: ignore[assignment]  # a missing comma, as people do


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"event_types": {"labs": ["x"]}}, "thrive.event_types.labs: expected one of lab_result"),
        ({"event_types": {"nudge": [""]}}, "NudgeEvent has an empty event type pattern"),
        ({"fields": {"user": ["x"]}}, "thrive.fields.user: expected one of event_type"),
        ({"fields": {"user_id": "user_id"}}, "thrive.fields.user_id: expected a list"),
        ({"fields": {"user_id": ["a..b"]}}, "thrive.fields.user_id: expected dotted paths"),
        ({"fields": {"event_type": []}}, "thrive.fields.event_type: expected at least one"),
        ({"classes": [_NoTypes]}, "_NoTypes.event_types: expected a tuple"),
        ({"classes": [_Text]}, "_Text.event_types: expected a tuple"),
    ],
)
def test_wrong_settings(options: dict[str, Any], text: str) -> None:
    """A setting that cannot work is refused at start, by name."""
    with pytest.raises(SettingsError, match=text):
        ThriveReader(**options)


def test_schema_less_partner_model() -> None:
    """A partner's model that JSON Schema cannot describe is still read, and refused in silence."""

    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        thing: complex | None = None
        raw: timezone | None = None

    class OddEvent(ThriveEvent[Odd]):
        event_types: ClassVar[tuple[str, ...]] = ("odd",)

    with pytest.raises(InvalidEvent, match="OddEvent: data: expected") as caught:
        ThriveReader(classes=[OddEvent]).read_body(body("odd", data={"raw": CANARY}))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("written", ["0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00"])
def test_times_that_are_none_in_utc_are_refused(written: str) -> None:
    """No database could keep them, and each attempt to would be a failed one."""
    with pytest.raises(ValidationError, match="occurred_at"):
        LabResultEvent(event_id="1", event_type="lab", occurred_at=written)
