"""Thrive's daily device data.

The platform describes what these summaries contain, but publishes neither the names nor the grouping of their fields:
all of them are this project's proposal until a real message is seen. Every field may be missing, and every other one
is kept in `model_extra`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consumer.models.base import CalendarDate, Number, PlatformModel, Rows, Timestamp

__all__ = [
    "ActivityHeartRate",
    "ActivitySummary",
    "BodySummary",
    "DailySummary",
    "IntensityMinutes",
    "SleepHeartRate",
    "SleepStages",
    "SleepSummary",
]


class IntensityMinutes(PlatformModel):
    """Minutes of a day at each intensity."""

    low: Number | None = None
    moderate: Number | None = None
    vigorous: Number | None = None


class ActivityHeartRate(PlatformModel):
    """Heart rate over a day, in beats a minute."""

    resting: Number | None = None
    average: Number | None = None
    max: Number | None = None


class ActivitySummary(PlatformModel):
    """A day's activity, merged over devices."""

    sample_id: str | None = None
    date: CalendarDate | None = None
    steps: Number | None = None
    calories_total: Number | None = None
    calories_active: Number | None = None
    distance_meters: Number | None = None
    floors_climbed: Number | None = None
    intensity_minutes: IntensityMinutes | None = None
    heart_rate: ActivityHeartRate | None = None


class SleepStages(PlatformModel):
    """Minutes of a night in each stage."""

    deep: Number | None = None
    light: Number | None = None
    rem: Number | None = None
    awake: Number | None = None


class SleepHeartRate(PlatformModel):
    """Heart rate over a night, in beats a minute."""

    average: Number | None = None
    lowest: Number | None = None


class SleepSummary(PlatformModel):
    """A night's sleep; `efficiency` is a share between 0 and 1."""

    sample_id: str | None = None
    date: CalendarDate | None = None
    start: Timestamp | None = None
    end: Timestamp | None = None
    duration_minutes: Number | None = None
    time_in_bed_minutes: Number | None = None
    efficiency: Number | None = None
    stages_minutes: SleepStages | None = None
    heart_rate: SleepHeartRate | None = None
    hrv_ms: Number | None = None
    respiratory_rate: Number | None = None


class BodySummary(PlatformModel):
    """One weighing or body measurement; several a day are possible."""

    sample_id: str | None = None
    measured_at: Timestamp | None = None
    weight: Number | None = None
    weight_unit: Annotated[str, Field(examples=["kg", "lb"])] | None = None
    bmi: Number | None = None
    fat_percent: Number | None = None
    water_percent: Number | None = None
    muscle_mass: Number | None = None
    lean_mass: Number | None = None
    visceral_fat: Number | None = None
    waist_circumference: Number | None = None


class DailySummary(PlatformModel):
    """One day of a member's device data."""

    date: CalendarDate | None = None
    provider_slug: str | None = None
    activity_summary: ActivitySummary | None = None
    sleep_summary: SleepSummary | None = None
    body_summary: Rows[BodySummary] = ()
