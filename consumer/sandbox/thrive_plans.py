"""Thrive's jobs, workout and nutrition plans, and meals: as far as they are documented.

What has `fail` in its title becomes a job that fails.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import Field

from consumer.sandbox.answers import Refusal, data, no_content
from consumer.sandbox.members import Member, Rows, text_of
from consumer.sandbox.requests import Moment, Page, Shape, body_of, found, listed, query_of
from consumer.sandbox.thrive_state import Thrive
from consumer.testing import synthetic

__all__ = ["plan_routes"]

_WEEKS = 4


class _Titled(Shape):
    title: str = Field(min_length=1, max_length=200)


class _NewWorkout(Shape):
    workout_plan_id: str
    scheduled_time: Moment


class _NewMeal(Shape):
    title: str = Field(min_length=1, max_length=200)
    meal_type: str = "breakfast"
    scheduled_time: Moment | None = None
    nutrition_plan_id: str | None = None


class _MealLog(Shape):
    title: str | None = Field(None, max_length=200)
    notes: str | None = Field(None, max_length=2000)
    calories: float | None = Field(None, ge=0)
    protein: float | None = Field(None, ge=0)
    carbohydrates: float | None = Field(None, ge=0)
    fat: float | None = Field(None, ge=0)


class _Plans:
    """The handlers."""

    def __init__(self, thrive: Thrive) -> None:
        self._thrive = thrive
        self._clock = thrive.parts.clock
        self._random = thrive.parts.world.draw_anew("plans")

    def _now(self) -> str:
        return text_of(self._clock.now())

    async def job(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.jobs.get(request.match_info["job_id"]), "job"))

    async def initial_plan(self, _: web.Request, member: Member) -> web.StreamResponse:
        def planned() -> None:
            member.program = {**synthetic.program(self._random), "created_at": self._now()}
            self._thrive.traffic.program_updated(member)

        job_id = self._thrive.start_job(member, then=planned)
        return data({"job_id": job_id, "status": "accepted"}, status=HTTPStatus.ACCEPTED)

    async def new_workout_plan(self, request: web.Request, member: Member) -> web.StreamResponse:
        return await self._new_plan(request, member, member.workout_plans, "draft")

    async def new_nutrition_plan(self, request: web.Request, member: Member) -> web.StreamResponse:
        return await self._new_plan(request, member, member.nutrition_plans, "inactive")

    async def _new_plan(self, request: web.Request, member: Member, plans: Rows, status: str) -> web.StreamResponse:
        title = (await body_of(request, _Titled)).title
        plan_id = self._thrive.new_id()
        row: dict[str, Any] = {"id": plan_id, "title": title, "status": status}

        def made() -> None:
            row.update(status="active", active_job_id=None, updated_at=self._now())

        job_id = self._thrive.start_job(member, fails="fail" in title.lower(), then=made)
        row.update(active_job_id=job_id, updated_at=self._now())
        plans.put(plan_id, row)
        return data({"id": plan_id, "job_id": job_id, "status": "accepted"}, status=HTTPStatus.ACCEPTED)

    async def workout_plans(self, request: web.Request, member: Member) -> web.StreamResponse:
        return listed(member.workout_plans.all(), query_of(request, Page))

    async def nutrition_plans(self, request: web.Request, member: Member) -> web.StreamResponse:
        return listed(member.nutrition_plans.all(), query_of(request, Page))

    async def workout_plan(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.workout_plans.get(request.match_info["plan_id"]), "plan"))

    async def nutrition_plan(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.nutrition_plans.get(request.match_info["plan_id"]), "plan"))

    async def week(self, request: web.Request, member: Member) -> web.StreamResponse:
        plans = member.workout_plans if request.match_info["kind"] == "workout" else member.nutrition_plans
        plan = found(plans.get(request.match_info["plan_id"]), "plan")
        index = request.match_info["week_index"]
        if not index.isdecimal() or int(index) >= _WEEKS:
            raise Refusal(404, "There is no such week")
        return data({"id": plan["id"], "week_index": int(index), "days": []})

    async def new_workout(self, request: web.Request, member: Member) -> web.StreamResponse:
        given = await body_of(request, _NewWorkout)
        found(member.workout_plans.get(given.workout_plan_id), "workout plan")
        workout_id = self._thrive.new_id()
        scheduled = text_of(given.scheduled_time)

        def made() -> None:
            steps = [{"kind": "run_segment", "duration_minutes": 20}, {"kind": "rest", "duration_minutes": 5}]
            row = {"id": workout_id, "workout_plan_id": given.workout_plan_id, "scheduled_time": scheduled}
            member.planned_workouts.put(workout_id, {**row, "steps": steps})

        job_id = self._thrive.start_job(member, then=made)
        return data({"id": workout_id, "job_id": job_id, "status": "accepted"}, status=HTTPStatus.ACCEPTED)

    async def workout(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.planned_workouts.get(request.match_info["workout_id"]), "workout"))

    async def meals(self, request: web.Request, member: Member) -> web.StreamResponse:
        return listed(member.meals.all(), query_of(request, Page))

    async def new_meal(self, request: web.Request, member: Member) -> web.StreamResponse:
        given = await body_of(request, _NewMeal)
        when = given.scheduled_time or self._clock.now()
        row: dict[str, Any] = {
            "meal_id": self._thrive.new_id(),
            "nutrition_plan_id": given.nutrition_plan_id,
            "meal_type": given.meal_type,
            "scheduled_time": text_of(when),
            "title": given.title,
            "calories": None,
            "ingredients": [],
            "instructions": [],
            "log": None,
        }
        return data(member.meals.put(row["meal_id"], row), status=201)

    async def meal(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(_meal(request, member))

    async def analysis(self, request: web.Request, member: Member) -> web.StreamResponse:
        meal = _meal(request, member)
        summary = "Invented, as all of this is."
        return data({"meal_id": meal["meal_id"], "status": "ready", "job_id": None, "analysis_summary": summary})

    async def log_meal(self, request: web.Request, member: Member) -> web.StreamResponse:
        meal = _meal(request, member)
        given = await body_of(request, _MealLog)
        log_id = (meal["log"] or {}).get("meal_log_id") or self._thrive.new_id()
        meal["log"] = {
            "meal_log_id": log_id,
            "meal_id": meal["meal_id"],
            "user_id": member.user_id,
            "logged_at": self._now(),
            **given.model_dump(),
            "insight_headline": None,
            "insight_body": None,
        }
        return data(meal["log"])

    async def unlog_meal(self, request: web.Request, member: Member) -> web.StreamResponse:
        meal = _meal(request, member)
        found(meal["log"], "meal log")
        meal["log"] = None
        return no_content()


def _meal(request: web.Request, member: Member) -> dict[str, Any]:
    return found(member.meals.get(request.match_info["meal_id"]), "meal")


def plan_routes(thrive: Thrive) -> list[web.RouteDef]:
    """The routes of jobs, plans and meals."""
    here, member, once = _Plans(thrive), thrive.access.member, thrive.once.of_member
    user = "/v1/users/{user_id}"
    meal = user + "/meals/{meal_id}"
    return [
        web.post(f"{user}/jobs/initial-plan", member(once(here.initial_plan))),
        web.get(user + "/jobs/{job_id}", member(here.job)),
        web.post(f"{user}/workout-plans", member(once(here.new_workout_plan))),
        web.get(f"{user}/workout-plans", member(here.workout_plans)),
        web.get(user + "/workout-plans/{plan_id}", member(here.workout_plan)),
        web.post(f"{user}/workouts", member(once(here.new_workout))),
        web.get(user + "/workouts/{workout_id}", member(here.workout)),
        web.post(f"{user}/nutrition-plans", member(once(here.new_nutrition_plan))),
        web.get(f"{user}/nutrition-plans", member(here.nutrition_plans)),
        web.get(user + "/nutrition-plans/{plan_id}", member(here.nutrition_plan)),
        web.get(user + "/{kind:workout|nutrition}-plans/{plan_id}/weeks/{week_index}", member(here.week)),
        web.post(f"{user}/meals", member(once(here.new_meal))),
        web.get(f"{user}/meals", member(here.meals)),
        web.get(meal, member(here.meal)),
        web.get(f"{meal}/analysis", member(here.analysis)),
        web.put(f"{meal}/log", member(here.log_meal)),
        web.delete(f"{meal}/log", member(here.unlog_meal)),
    ]
