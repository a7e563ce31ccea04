"""Every sample body reads as the typed event a user would expect."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from consumer.events import DailyDeviceEvent, Event, LabResultEvent, NudgeEvent, ProgramEvent, UnknownEvent
from consumer.events.reading import ThriveReader
from consumer.models.thrive import HealthAction, LabResult, NudgeCard

SAMPLES = Path(__file__).parents[1] / "samples" / "thrive"
MEMBER = "515c8333-3a04-4486-ba63-376f81227b4f"


def read(name: str) -> Event:
    return ThriveReader().read_body(json.loads((SAMPLES / f"{name}.json").read_text()))


def test_inline_lab_result() -> None:
    """An inline lab result gives the event's facts and the whole result, typed."""
    event = read("lab-result-inline")
    assert type(event) is LabResultEvent
    assert (event.provider, event.event_type, event.user_id) == ("thrive", "lab.result.ready", MEMBER)
    assert event.event_id == "4ed9c64f-a9d8-483b-aa53-6c4dba315e9a"
    assert event.occurred_at == datetime(2026, 3, 16, 7, 58, 12, tzinfo=UTC)
    assert event.target is not None
    assert (event.target.type, event.target.id) == ("lab_result", "0bf7add1-4532-4ea0-861c-b147b3e09d36")
    lab = event.data
    assert isinstance(lab, LabResult)
    assert lab.lab_result_id == event.target.id
    assert (lab.status, lab.test_date, lab.confidence) == ("ready", date(2026, 3, 12), 0.94)
    assert [len(domain.values) for domain in lab.domains] == [3, 4, 2, 3, 3, 3]
    ldl = lab.domains[1].values[0]
    assert (ldl.parameter, ldl.value, ldl.unit, ldl.status) == ("LDL cholesterol", 118, "mg/dL", "Above Range")
    assert ldl.reference_range is not None
    assert (ldl.reference_range.low, ldl.reference_range.high) == (0, 99)
    egfr = lab.domains[2].values[1]
    assert (egfr.value, egfr.comparator) == (90, ">")
    assert egfr.reference_range is not None
    assert egfr.reference_range.high is None
    assert lab.domains[4].values[1].unit == "10^3/µL"
    assert lab.analysis is not None
    assert lab.analysis.follow_up_needed is True
    assert event.model_extra == {}


def test_daily_device_data() -> None:
    """A day of device data gives activity, sleep and every weighing; fields nobody declared are kept."""
    event = read("daily-device-data-inline")
    assert type(event) is DailyDeviceEvent
    day = event.data
    assert day is not None
    assert (day.date, day.provider_slug) == (date(2026, 3, 15), "example_watch")
    assert day.activity_summary is not None
    assert day.activity_summary.steps == 8412
    assert day.activity_summary.heart_rate is not None
    assert day.activity_summary.heart_rate.resting == 57
    assert day.activity_summary.model_extra == {"unit_system": "metric"}
    assert day.sleep_summary is not None
    assert day.sleep_summary.start == datetime(2026, 3, 14, 22, 47, 30, tzinfo=UTC)
    assert day.sleep_summary.stages_minutes is not None
    assert day.sleep_summary.stages_minutes.rem == 111
    assert [body.weight for body in day.body_summary] == [71.8, 72.3]
    assert day.body_summary[0].waist_circumference is None


def test_nudge_with_card() -> None:
    """A nudge for a card carries the card."""
    event = read("nudge-card-inline")
    assert type(event) is NudgeEvent
    assert event.is_card
    assert not event.is_health_action
    card = event.data
    assert isinstance(card, NudgeCard)
    assert (card.trigger_name, card.interaction_status) == ("missed_first_action", "pending")
    assert card.item_body is not None
    assert card.item_body.main is not None
    assert card.item_body.main.startswith("You have been consistent this week \u2013 four")
    assert card.supported_actions is not None
    assert card.supported_actions.action_keys == ("mark_health_action_as_completed",)
    assert card.item_preprocessing is not None
    assert card.item_preprocessing.audio_duration == 21.4
    assert card.created_at == datetime(2026, 3, 16, 16, 15, 2, tzinfo=UTC)


def test_nudge_with_health_action() -> None:
    """A nudge for a health action carries the health action."""
    event = read("nudge-health-action")
    assert type(event) is NudgeEvent
    assert event.is_health_action
    assert not event.is_card
    action = event.data
    assert isinstance(action, HealthAction)
    assert (action.title, action.status, action.execution_options) == ("Morning stretch", "pending", {})
    assert action.scheduled_at == datetime(2026, 3, 17, 7, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "event_class", "target"),
    [
        ("lab-result-basic", LabResultEvent, "lab_result"),
        ("nudge-card-basic", NudgeEvent, "card"),
        ("program-updated", ProgramEvent, "program"),
    ],
)
def test_basic_contract(name: str, event_class: type[Event], target: str) -> None:
    """Without inline data, `data` is None and the target says what to fetch."""
    event = read(name)
    assert type(event) is event_class
    assert isinstance(event, LabResultEvent | NudgeEvent | ProgramEvent)
    assert event.data is None
    assert event.target is not None
    assert event.target.type == target
    assert event.target.id
    assert event.user_id == MEMBER


def test_a_basic_nudge_knows_its_kind() -> None:
    """What a nudge is about is known before anything is fetched."""
    event = read("nudge-card-basic")
    assert isinstance(event, NudgeEvent)
    assert (event.is_card, event.is_health_action) == (True, False)


def test_unknown_type() -> None:
    """A type nobody named becomes an unknown event that keeps everything it said."""
    event = read("unknown-future-type")
    assert type(event) is UnknownEvent
    assert (event.provider, event.event_type) == ("thrive", "coach.journey.milestone_reached")
    assert event.data["badges"] == ["steady", "early"]
    assert event.target is not None
    assert event.target.type == "journey_milestone"
    assert event.target.model_extra == {"journey": {"slug": "better-sleep", "step": 3}}
    assert event.model_extra == {"schema_version": 7, "severity": "celebrate"}


def test_registration_test_publish() -> None:
    """The platform's test message has no member; it is an unknown event, not a failure."""
    event = read("registration-test-publish")
    assert type(event) is UnknownEvent
    assert event.user_id is None
    assert event.target is None
