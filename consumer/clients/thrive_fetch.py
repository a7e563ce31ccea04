"""The resource an event is about: from the event where it carries it, else from the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, date
from typing import Any, TypeVar, cast

from consumer.clients.thrive_labs import Labs
from consumer.clients.thrive_metrics import Metrics
from consumer.clients.thrive_nudges import Cards, HealthActions
from consumer.clients.thrive_programs import Programs
from consumer.clients.urls import fill
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent
from consumer.models.thrive import DailySummary, HealthAction, NudgeCard
from consumer.outcomes import Reject

__all__ = ["Fetcher"]

D = TypeVar("D")
T = TypeVar("T")

_DATE_LENGTH = len("2026-03-16")


class Fetcher:
    """Knows which call gets which event's resource."""

    def __init__(
        self, *, labs: Labs, cards: Cards, health_actions: HealthActions, metrics: Metrics, programs: Programs
    ) -> None:
        self._labs = labs
        self._cards = cards
        self._health_actions = health_actions
        self._metrics = metrics
        self._programs = programs

    async def fetch(self, event: ThriveEvent[D], *, fresh: bool) -> D:
        """See `ThriveClient.fetch`."""
        if event.data is not None and not fresh:
            return event.data
        # mypy cannot follow from the event's class to what `D` is.
        return cast("D", await self._fetched(event))

    async def _fetched(self, event: ThriveEvent[Any]) -> Any:
        if isinstance(event, LabResultEvent):
            return await self._labs.get(_user(event), _target(event, "lab_result_id"))
        if isinstance(event, NudgeEvent):
            return await self._nudge(event)
        if isinstance(event, DailyDeviceEvent):
            return await self._day(_user(event), _day(event))
        if isinstance(event, ProgramEvent):
            return await self._programs.program(_user(event))
        raise Reject(f"data is missing, and nothing is known about fetching it for a {type(event).__name__}")

    async def _nudge(self, event: NudgeEvent) -> NudgeCard | HealthAction:
        if event.is_card:
            return await self._cards.get(_user(event), _target(event, "card_item_id"))
        if event.is_health_action:
            return await self._health_actions.get(_user(event), _target(event, "health_action_id"))
        raise Reject("target.type is neither card nor health_action, and data is missing")

    async def _day(self, user_id: str, day: date) -> DailySummary:
        activity, sleep, body = await _together(
            _all(self._metrics.activity(user_id, day, day)),
            _all(self._metrics.sleep(user_id, day, day)),
            _all(self._metrics.body(user_id, day, day)),
        )
        return DailySummary(
            date=day,
            activity_summary=next((one for one in activity if one.date in (None, day)), None),
            sleep_summary=next((one for one in sleep if one.date in (None, day)), None),
            body_summary=tuple(body),
        )


def _user(event: ThriveEvent[Any]) -> str:
    return _segment("user_id", event.user_id)


def _target(event: ThriveEvent[Any], field: str) -> str:
    """The target's id; where the body has none, the one in `data`, which is there when a fresh copy is wanted."""
    of_target = event.target.id if event.target is not None else None
    return _segment("target.id", of_target if of_target is not None else getattr(event.data, field, None))


def _segment(name: str, value: str | None) -> str:
    if value is None:
        raise Reject(f"{name} is missing: without it there is nothing to fetch")
    try:
        fill("{value}", {"value": value})
    except ValueError:
        usable = False
    else:
        usable = True
    if not usable:
        raise Reject(f"{name} cannot be part of an address")
    return value


def _day(event: DailyDeviceEvent) -> date:
    """The day an event is about: `date` in the body or its target, where there is one, else when it happened."""
    target = event.target.model_extra if event.target is not None else None
    inline = event.data.date if event.data is not None else None
    for written in (inline, (event.model_extra or {}).get("date"), (target or {}).get("date")):
        found = _written_day(written)
        if found is not None:
            return found
    if event.occurred_at is None:
        raise Reject("date and occurred_at are missing: without them there is no day to fetch")
    return event.occurred_at.astimezone(UTC).date()


def _written_day(value: Any) -> date | None:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or len(value) != _DATE_LENGTH:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


async def _all(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


async def _together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The answers of all calls; when one fails the others are ended, and what it raised is raised as it is."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
