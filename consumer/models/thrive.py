"""Thrive AI Health's resources: what its REST API returns and its events carry in `data`.

Every field may be missing, because nothing promises that it is there. Values the platform lists in its documentation
are given as examples, never enforced: new ones may appear at any time. *Documented* in a docstring means that the
field names are those of the API reference.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from consumer.models.base import CalendarDate, Flag, Number, PlatformModel, Rows, Timestamp
from consumer.models.thrive_daily import (
    ActivityHeartRate,
    ActivitySummary,
    BodySummary,
    DailySummary,
    IntensityMinutes,
    SleepHeartRate,
    SleepStages,
    SleepSummary,
)

__all__ = [
    "ActivityHeartRate",
    "ActivitySummary",
    "BodySummary",
    "CardBody",
    "CardPreprocessing",
    "DailySummary",
    "FocusCategory",
    "Goal",
    "GoalTarget",
    "HealthAction",
    "IntensityMinutes",
    "LabAnalysis",
    "LabDomain",
    "LabResult",
    "LabValue",
    "NudgeCard",
    "Priority",
    "Program",
    "ProgramCategory",
    "ProgramPhase",
    "ReferenceRange",
    "SleepHeartRate",
    "SleepStages",
    "SleepSummary",
    "SupportedActions",
]

LabStatus = Annotated[str, Field(examples=["pending", "processing", "ready", "failed"])]
ValueStatus = Annotated[str, Field(examples=["In Range", "Above Range", "Below Range"])]
InteractionStatus = Annotated[str, Field(examples=["pending", "opened", "completed", "dismissed"])]
ActionKey = Annotated[str, Field(examples=["mark_health_action_as_completed"])]
PriorityStatus = Annotated[str, Field(examples=["active", "dismissed", "completed", "outdated"])]
TriggerName = Annotated[
    str,
    Field(
        examples=[
            "missed_first_action",
            "multiple_missed_actions",
            "activity_momentum",
            "sleep_recovery",
            "step_trend_declining",
            "sleep_trend_declining",
            "mood_trend_down",
            "bedtime_drift",
            "jet_lag",
            "bounce_back",
            "action_reminder",
        ]
    ),
]


class ReferenceRange(PlatformModel):
    """The range a value is expected in, in the value's unit; either end may be open (documented)."""

    low: Number | None = None
    high: Number | None = None


class LabValue(PlatformModel):
    """One measured parameter of a lab result (documented)."""

    parameter: str | None = None
    value: Number | None = None
    comparator: str | None = None
    """`>` or `<` where the laboratory reports only a bound: `>` with 90 is "more than 90"."""
    unit: str | None = None
    reference_range: ReferenceRange | None = None
    status: ValueStatus | None = None
    explanation: str | None = None


class LabDomain(PlatformModel):
    """The values of one physiological domain (documented; the six domains' names are not published)."""

    domain_name: str | None = None
    domain_insight: str | None = None
    values: Rows[LabValue] = ()


class LabAnalysis(PlatformModel):
    """The platform's reading of a lab result as a whole (documented)."""

    overall_assessment: str | None = None
    recommendations: str | None = None
    follow_up_needed: Flag | None = None
    follow_up_reason: str | None = None


class LabResult(PlatformModel):
    """A lab result (`GET /v1/users/{user_id}/labs/{lab_result_id}`, documented).

    While `status` is not `ready`, `domains` is empty and `analysis` is None.
    """

    lab_result_id: str | None = None
    status: LabStatus | None = None
    test_date: CalendarDate | None = None
    lab_name: str | None = None
    title: str | None = None
    confidence: Number | None = None
    domains: Rows[LabDomain] = ()
    analysis: LabAnalysis | None = None


class CardBody(PlatformModel):
    """The texts of a nudge card (documented)."""

    main: str | None = None
    description: str | None = None
    header: str | None = None


class SupportedActions(PlatformModel):
    """What a member can do with a nudge card (documented)."""

    action_keys: Rows[ActionKey] = ()


class CardPreprocessing(PlatformModel):
    """A nudge card read aloud (documented); `audio_duration` is in seconds, as far as the samples tell."""

    audio_summary_url: str | None = None
    audio_duration: Number | None = None
    audio_script: str | None = None


class NudgeCard(PlatformModel):
    """A coaching nudge to show to a member (`GET /v1/users/{user_id}/cards/{card_item_id}`, documented)."""

    card_item_id: str | None = None
    item_header: str | None = None
    item_body: CardBody | None = None
    supported_actions: SupportedActions | None = None
    item_preprocessing: CardPreprocessing | None = None
    item_created_at: Timestamp | None = None
    interaction_status: InteractionStatus | None = None
    trigger_name: TriggerName | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None


class HealthAction(PlatformModel):
    """A scheduled action of a member (`GET /v1/users/{user_id}/health-actions/{health_action_id}`, documented)."""

    health_action_id: str | None = None
    title: str | None = None
    description: str | None = None
    status: Annotated[str, Field(examples=["pending"])] | None = None
    scheduled_at: Timestamp | None = None
    execution_options: dict[str, Any] | None = None


class ProgramCategory(PlatformModel):
    """A category programs are made of (documented)."""

    id: str | None = None
    name: str | None = None
    category_id: str | None = None
    description: str | None = None
    domain_id: str | None = None


class FocusCategory(PlatformModel):
    """A category a member's program puts weight on (documented; what `objectives` holds is not)."""

    id: str | None = None
    rationale: str | None = None
    objectives: Any = None
    rank: Number | None = None
    program_category: ProgramCategory | None = None


class GoalTarget(PlatformModel):
    """What is to be reached for a goal (documented; what kind of value `value` is, is not)."""

    id: str | None = None
    description: str | None = None
    frequency: Any = None
    value: Any = None
    vital_metric: Any = None


class ProgramPhase(PlatformModel):
    """A phase of a program (documented)."""

    id: str | None = None
    name: str | None = None
    description: str | None = None
    order: Number | None = None


class Goal(PlatformModel):
    """A goal of a program (documented; what `category_ref` holds is not)."""

    goal_id: str | None = None
    category_ref: Any = None
    category_id: str | None = None
    domain_id: str | None = None
    description: str | None = None
    targets: Rows[GoalTarget] = ()
    phase_id: str | None = None
    phase: ProgramPhase | None = None


class Program(PlatformModel):
    """A member's active program (`GET /v1/users/{user_id}/program`, documented)."""

    program_id: str | None = None
    name: str | None = None
    description: str | None = None
    analysis_insight: str | None = None
    created_at: Timestamp | None = None
    active: Flag | None = None
    focus_categories: Rows[FocusCategory] = ()
    goals: Rows[Goal] = ()


class Priority(PlatformModel):
    """One of a member's priorities (`GET /v1/users/{user_id}/priorities`, documented)."""

    user_priority_id: str | None = None
    title: str | None = None
    description: str | None = None
    target: Any = None
    domains: Rows[Any] = ()
    status: PriorityStatus | None = None
    rank: Number | None = None
    created_at: Timestamp | None = None
    updated_at: Timestamp | None = None
