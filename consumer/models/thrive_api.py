"""What Thrive's REST API answers about members, beside the resources its events carry too.

As in `consumer.models.thrive`, every field may be missing, others are kept, and listed values are examples. Where a
docstring says *proposed*, the documentation describes the content but does not name the fields.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from consumer.models.base import CalendarDate, Flag, Number, PlatformModel, Rows, Timestamp
from consumer.models.thrive import LabStatus

__all__ = [
    "AcceptedRecommendation",
    "BioAge",
    "BioAgePoint",
    "ConnectedDevice",
    "HealthProfile",
    "HealthScore",
    "HealthScorePoint",
    "Insights",
    "Job",
    "JobStarted",
    "LabSummary",
    "LabUpload",
    "Location",
    "Measurement",
    "Member",
    "MemberProfile",
    "MemberToken",
    "PrivacySettings",
    "Recommendation",
    "Sample",
    "SleepSegment",
    "Upload",
    "Workout",
]

JobStatus = Annotated[str, Field(examples=["accepted", "running", "completed", "failed"])]
SegmentKind = Annotated[str, Field(examples=["deep", "light", "rem", "awake"])]


class MemberToken(PlatformModel):
    """A member's token (`POST /v1/auth/token`, documented): a JWT, good for `expires_in` seconds."""

    # What a header can hold, and nothing that could end it.
    access_token: str = Field(pattern=r"^[\x21-\x7e]+$", max_length=16_384, repr=False)
    token_type: str | None = None
    expires_in: Number | None = None


class MemberProfile(PlatformModel):
    """What is known of a person (documented); weight and height in the units beside them, such as `kg` and `cm`."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    timezone: str | None = None
    birthday: CalendarDate | None = None
    weight: Number | None = None
    weight_unit: Annotated[str, Field(examples=["kg", "lb"])] | None = None
    height: Number | None = None
    height_unit: Annotated[str, Field(examples=["cm"])] | None = None
    preferences: Any = None
    pre_existing_conditions: Rows[Any] = ()
    gender: Annotated[str, Field(examples=["male"])] | None = None
    ethnicity: str | None = None


class Member(PlatformModel):
    """A member (`GET /v1/users/{user_id}`, documented; what `POST /v1/users` echoes)."""

    user_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    profile: MemberProfile | None = None


class Location(PlatformModel):
    """Where a member lives (documented)."""

    city: str | None = None
    state: str | None = None
    country: str | None = None


class PrivacySettings(PlatformModel):
    """A member's consents (documented)."""

    conversation_recording_opt_in: Flag | None = None


class ConnectedDevice(PlatformModel):
    """A device provider in a health profile (documented)."""

    provider_slug: str | None = None
    status: Annotated[str, Field(examples=["connected", "error"])] | None = None


class HealthProfile(PlatformModel):
    """All about a member in one view (`GET /v1/users/{user_id}/health-profile`, documented)."""

    user_id: str | None = None
    profile: MemberProfile | None = None
    location: Location | None = None
    privacy: PrivacySettings | None = None
    connected_devices: Rows[ConnectedDevice] = ()


class LabSummary(PlatformModel):
    """A lab result in a list (`GET /v1/users/{user_id}/labs`, documented)."""

    lab_result_id: str | None = None
    status: LabStatus | None = None
    test_date: CalendarDate | None = None
    lab_name: str | None = None


class Upload(PlatformModel):
    """Where to put a file (`POST /v1/uploads`, documented); `upload_url` grants access and works once."""

    upload_url: str
    file_url: str
    expires_at: Timestamp | None = None


class LabUpload(PlatformModel):
    """A lab document was taken in (`POST /v1/users/{user_id}/labs/upload`, documented).

    Without a `workflow_id` its reading did not start and never will: upload it again.
    """

    lab_result_id: str | None = None
    status: LabStatus | None = None
    workflow_id: str | None = None


class Workout(PlatformModel):
    """A recorded workout (`GET /v1/users/{user_id}/metrics/workouts/summary`; fields proposed)."""

    sample_id: str | None = None
    sport: str | None = None
    start: Timestamp | None = None
    end: Timestamp | None = None


class SleepSegment(PlatformModel):
    """A stretch of a night in one stage (`GET /v1/users/{user_id}/metrics/sleep/stream`; fields proposed)."""

    sample_id: str | None = None
    stage: SegmentKind | None = None
    start: Timestamp | None = None
    end: Timestamp | None = None


class Sample(PlatformModel):
    """One value of a time series, in `unit` (documented)."""

    start: Timestamp | None = None
    end: Timestamp | None = None
    unit: str | None = None
    value: Number | None = None
    systolic: Number | None = None
    diastolic: Number | None = None
    lead: Any = None
    sensor_location: str | None = None


class Measurement(PlatformModel):
    """One measurement by its id (documented; which fields it has depends on the metric)."""

    sample_id: str | None = None


class Insights(PlatformModel):
    """The platform's reading of a metric over a while (documented)."""

    metric: str | None = None
    time_range: Annotated[str, Field(examples=["week", "month", "quarter", "year"])] | None = None
    headline: str | None = None
    narrative: str | None = None
    key_findings: Rows[Any] = ()
    recommendations: Rows[Any] = ()
    generated_at: Timestamp | None = None
    model_version: str | None = None


class Recommendation(PlatformModel):
    """What a member could do for their biological age (documented)."""

    recommendation_id: str | None = None
    title: str | None = None
    description: str | None = None
    category: Annotated[str, Field(examples=["sleep"])] | None = None


class BioAge(PlatformModel):
    """A member's biological age in years (`GET /v1/users/{user_id}/bio-age`, documented)."""

    chronological_age: Number | None = None
    biological_age: Number | None = None
    delta: Number | None = None
    """Negative where ageing is slower than the calendar."""
    status: Annotated[str, Field(examples=["younger"])] | None = None
    updated_at: Timestamp | None = None
    recommendations: Rows[Recommendation] = ()


class BioAgePoint(PlatformModel):
    """The biological age on a day (fields proposed)."""

    date: CalendarDate | None = None
    biological_age: Number | None = None
    delta: Number | None = None


class HealthScore(PlatformModel):
    """A member's composite score (its shape is not published, so these fields take any value)."""

    overall_score: Any = None
    domains: Any = None
    updated_at: Any = None


class HealthScorePoint(PlatformModel):
    """The composite score on a day, and each domain's (fields proposed)."""

    date: CalendarDate | None = None
    overall_score: Any = None
    domains: Any = None


class AcceptedRecommendation(PlatformModel):
    """A recommendation became an action (documented); `focus_action_id` is readable as a health action."""

    recommendation_id: str | None = None
    focus_action_id: str | None = None
    accepted_at: Timestamp | None = None


class JobStarted(PlatformModel):
    """Work began that ends later (documented); `id` is what it makes, where it makes something."""

    id: str | None = None
    job_id: str | None = None
    status: JobStatus | None = None


class Job(PlatformModel):
    """How far a job is (`GET /v1/users/{user_id}/jobs/{job_id}`, documented)."""

    job_id: str | None = None
    status: JobStatus | None = None
    result: dict[str, Any] | None = None
    """Of a failed one, `error` and `reason`."""
