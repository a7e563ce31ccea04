"""Workout plans, nutrition plans and meals, as far as they are documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from consumer.clients.thrive_calls import ThriveCalls, changed, time_text
from consumer.models.thrive_api import JobStarted
from consumer.models.thrive_api_care import (
    Meal,
    MealAnalysis,
    MealLog,
    NutritionPlan,
    PlannedWorkout,
    PlanWeek,
    WorkoutPlan,
)

__all__ = ["Meals", "Plans"]

_WORKOUT_PLANS = "/v1/users/{user_id}/workout-plans"
_WORKOUTS = "/v1/users/{user_id}/workouts"
_NUTRITION_PLANS = "/v1/users/{user_id}/nutrition-plans"
_MEALS = "/v1/users/{user_id}/meals"


class Plans:
    """`thrive.plans`: workout plans, planned workouts and nutrition plans. Making one is a job (`thrive.jobs`)."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def workout_plans(self, user_id: str) -> AsyncIterator[WorkoutPlan]:
        """A member's workout plans."""
        return self._calls.pages(WorkoutPlan, user_id, _WORKOUT_PLANS)

    async def workout_plan(self, user_id: str, plan_id: str) -> WorkoutPlan:
        """A workout plan."""
        return await self._calls.read(WorkoutPlan, user_id, f"{_WORKOUT_PLANS}/{{plan_id}}", path={"plan_id": plan_id})

    async def workout_plan_week(self, user_id: str, plan_id: str, week_index: int) -> PlanWeek:
        """One week of a workout plan."""
        return await self._week(user_id, _WORKOUT_PLANS, plan_id, week_index)

    async def create_workout_plan(self, user_id: str, title: str, *, idempotency_key: str | None = None) -> JobStarted:
        """Have a workout plan made."""
        return await self._calls.create(
            JobStarted, user_id, _WORKOUT_PLANS, json={"title": title}, idempotency_key=idempotency_key
        )

    async def workout(self, user_id: str, workout_id: str) -> PlannedWorkout:
        """A planned workout."""
        return await self._calls.read(
            PlannedWorkout, user_id, f"{_WORKOUTS}/{{workout_id}}", path={"workout_id": workout_id}
        )

    async def create_workout(
        self, user_id: str, workout_plan_id: str, scheduled_time: datetime, *, idempotency_key: str | None = None
    ) -> JobStarted:
        """Have a workout of a plan made, for a time with an offset."""
        fields = {"workout_plan_id": workout_plan_id, "scheduled_time": time_text(scheduled_time)}
        return await self._calls.create(JobStarted, user_id, _WORKOUTS, json=fields, idempotency_key=idempotency_key)

    def nutrition_plans(self, user_id: str) -> AsyncIterator[NutritionPlan]:
        """A member's nutrition plans."""
        return self._calls.pages(NutritionPlan, user_id, _NUTRITION_PLANS)

    async def nutrition_plan(self, user_id: str, plan_id: str) -> NutritionPlan:
        """A nutrition plan."""
        return await self._calls.read(
            NutritionPlan, user_id, f"{_NUTRITION_PLANS}/{{plan_id}}", path={"plan_id": plan_id}
        )

    async def nutrition_plan_week(self, user_id: str, plan_id: str, week_index: int) -> PlanWeek:
        """One week of a nutrition plan."""
        return await self._week(user_id, _NUTRITION_PLANS, plan_id, week_index)

    async def create_nutrition_plan(
        self, user_id: str, title: str, *, idempotency_key: str | None = None
    ) -> JobStarted:
        """Have a nutrition plan made."""
        return await self._calls.create(
            JobStarted, user_id, _NUTRITION_PLANS, json={"title": title}, idempotency_key=idempotency_key
        )

    async def _week(self, user_id: str, plans: str, plan_id: str, week_index: int) -> PlanWeek:
        return await self._calls.read(
            PlanWeek,
            user_id,
            f"{plans}/{{plan_id}}/weeks/{{week_index}}",
            path={"plan_id": plan_id, "week_index": str(week_index)},
        )


class Meals:
    """`thrive.meals`: planned and logged meals."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def list(self, user_id: str) -> AsyncIterator[Meal]:
        """A member's meals."""
        return self._calls.pages(Meal, user_id, _MEALS)

    async def get(self, user_id: str, meal_id: str) -> Meal:
        """A meal."""
        return await self._calls.read(Meal, user_id, f"{_MEALS}/{{meal_id}}", path={"meal_id": meal_id})

    async def create(self, user_id: str, *, idempotency_key: str | None = None, **fields: Any) -> Meal:
        """Add a meal; its fields are those of `Meal`."""
        return await self._calls.create(Meal, user_id, _MEALS, json=changed(fields), idempotency_key=idempotency_key)

    async def analysis(self, user_id: str, meal_id: str) -> MealAnalysis:
        """What the platform makes of a meal."""
        return await self._calls.read(
            MealAnalysis, user_id, f"{_MEALS}/{{meal_id}}/analysis", path={"meal_id": meal_id}
        )

    async def log(self, user_id: str, meal_id: str, **fields: Any) -> MealLog:
        """Record what was eaten, in place of what was recorded before; its fields are those of `MealLog`."""
        template = f"{_MEALS}/{{meal_id}}/log"
        reply = await self._calls.as_member(user_id, "PUT", template, path={"meal_id": meal_id}, json=changed(fields))
        return self._calls.data(f"PUT {template}", reply, MealLog)

    async def delete_log(self, user_id: str, meal_id: str) -> None:
        """Delete what was recorded."""
        await self._calls.as_member(user_id, "DELETE", f"{_MEALS}/{{meal_id}}/log", path={"meal_id": meal_id})
