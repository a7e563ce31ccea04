"""What Thrive's REST API answers about devices, plans and meals. See `consumer.models.thrive_api`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from consumer.models.base import Number, PlatformModel, Rows, Timestamp

__all__ = [
    "Device",
    "DeviceBackfill",
    "DeviceConnection",
    "DeviceStatus",
    "Meal",
    "MealAnalysis",
    "MealLog",
    "NutritionPlan",
    "PlanWeek",
    "PlannedWorkout",
    "WorkoutPlan",
]


class Device(PlatformModel):
    """A device provider a member has connected (`GET /v1/users/{user_id}/devices`, documented)."""

    provider_slug: str | None = None
    device_name: str | None = None
    connected_at: Timestamp | None = None
    last_sync_at: Timestamp | None = None
    status: Annotated[str, Field(examples=["connected", "error"])] | None = None


class DeviceConnection(PlatformModel):
    """How a device's connection is (documented)."""

    status: str | None = None
    connected_at: Timestamp | None = None
    error: Any = None


class DeviceBackfill(PlatformModel):
    """How far the past of a device has been read (documented)."""

    status: str | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    error: Any = None


class DeviceStatus(PlatformModel):
    """A device provider in detail (`GET /v1/users/{user_id}/devices/{provider_slug}/status`, documented)."""

    slug: str | None = None
    name: str | None = None
    connection: DeviceConnection | None = None
    backfill: DeviceBackfill | None = None
    data_freshness: dict[str, Any] | None = None


class WorkoutPlan(PlatformModel):
    """A workout plan (its summary is documented, its fields are proposed)."""

    id: str | None = None
    title: str | None = None
    status: Annotated[str, Field(examples=["active", "ended", "archived", "draft"])] | None = None
    updated_at: Timestamp | None = None


class PlannedWorkout(PlatformModel):
    """A planned workout (fields proposed); the steps' `kind` is open by design."""

    id: str | None = None
    workout_plan_id: str | None = None
    scheduled_time: Timestamp | None = None
    steps: Rows[Any] = ()


class NutritionPlan(PlatformModel):
    """A nutrition plan (documented)."""

    id: str | None = None
    title: str | None = None
    status: Annotated[str, Field(examples=["active", "inactive"])] | None = None
    active_job_id: str | None = None
    updated_at: Timestamp | None = None


class PlanWeek(PlatformModel):
    """A week of a plan (its fields are not published)."""

    week_index: Any = None


class MealLog(PlatformModel):
    """What was eaten (documented); calories in kcal, the rest in grams, as far as the documentation tells."""

    meal_log_id: str | None = None
    meal_id: str | None = None
    user_id: str | None = None
    logged_at: Timestamp | None = None
    title: str | None = None
    notes: str | None = None
    calories: Number | None = None
    protein: Number | None = None
    carbohydrates: Number | None = None
    fat: Number | None = None
    insight_headline: str | None = None
    insight_body: str | None = None


class Meal(PlatformModel):
    """A planned or logged meal (`GET /v1/users/{user_id}/meals/{meal_id}`, documented)."""

    meal_id: str | None = None
    nutrition_plan_id: str | None = None
    meal_type: Annotated[str, Field(examples=["breakfast"])] | None = None
    scheduled_time: Any = None
    title: str | None = None
    calories: Number | None = None
    ingredients: Rows[Any] = ()
    instructions: Rows[Any] = ()
    log: MealLog | None = None


class MealAnalysis(PlatformModel):
    """The platform's reading of a meal (documented)."""

    meal_id: str | None = None
    status: Annotated[str, Field(examples=["processing", "ready", "failed"])] | None = None
    job_id: str | None = None
    analysis_summary: Any = None
