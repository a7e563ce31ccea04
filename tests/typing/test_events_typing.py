"""What a type checker must know about events; it is enough that this file checks."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, assert_type

from consumer.events import (
    DailyDeviceEvent,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    Target,
    ThriveEvent,
    UnknownEvent,
)
from consumer.models.base import PlatformModel
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Program
from consumer.testing.samples import sample


class Journey(PlatformModel):
    """A partner's model."""

    step: int | None = None


class JourneyEvent(ThriveEvent[Journey]):
    """A partner's event."""

    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)


def check_lab_result(event: LabResultEvent) -> None:
    """Attributes of a lab result are typed all the way down."""
    assert_type(event.event_id, str)
    assert_type(event.user_id, str | None)
    assert_type(event.occurred_at, datetime | None)
    assert_type(event.target, Target | None)
    assert_type(event.data, LabResult | None)
    if event.data is not None:
        assert_type(event.data.domains[0].values[0].value, int | float | None)


def check_others(
    daily: DailyDeviceEvent, nudge: NudgeEvent, program: ProgramEvent, journey: JourneyEvent, unknown: UnknownEvent
) -> None:
    """Every event knows the type of its data."""
    assert_type(daily.data, DailySummary | None)
    assert_type(nudge.data, NudgeCard | HealthAction | None)
    assert_type(program.data, Program | None)
    assert_type(journey.data, Journey | None)
    assert_type(unknown.target, Target | None)


def test_samples_keep_their_type() -> None:
    """A sample has the type of its class."""
    assert_type(sample(LabResultEvent), LabResultEvent)
    assert_type(sample(JourneyEvent), JourneyEvent)
