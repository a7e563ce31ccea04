"""What the handlers write of Thrive's events. Each row is that of the newest event about it (`handlers.upserts`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Delete, Insert, bindparam, delete, insert, tuple_

from consumer import Context, Reject
from consumer.events import ThriveEvent
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Priority
from handlers.tables import (
    UtcTime,
    daily_summaries,
    lab_results,
    lab_values,
    nudges,
    priorities,
    priority_lists,
    to_fetch,
)
from handlers.upserts import happened_at, keep_newest

__all__ = [
    "fetch_later",
    "keep_daily_summary",
    "keep_lab_result",
    "keep_nudge",
    "keep_priorities",
    "member_of",
    "need_not_fetch",
]

_ADD_VALUES: Insert = insert(lab_values)
_DROP_VALUES: Delete = delete(lab_values).where(
    lab_values.c.user_id == bindparam("of_user"), lab_values.c.lab_result_id == bindparam("of_lab_result")
)
_ADD_PRIORITIES: Insert = insert(priorities)
_DROP_PRIORITIES: Delete = delete(priorities).where(priorities.c.user_id == bindparam("of_user"))
_DROP_NOTE: Delete = delete(to_fetch).where(
    to_fetch.c.user_id == bindparam("of_user"),
    to_fetch.c.kind == bindparam("of_kind"),
    to_fetch.c.resource_id == bindparam("of_resource"),
    tuple_(to_fetch.c.occurred_at, to_fetch.c.event_id)
    <= tuple_(bindparam("at", type_=UtcTime()), bindparam("by", type_=to_fetch.c.event_id.type)),
)


async def keep_lab_result(context: Context, event: ThriveEvent[Any], lab: LabResult) -> None:
    """Keep a lab result and replace its values, if the event is the newest about it."""
    user_id, lab_result_id = member_of(event), _resource(event, lab.lab_result_id)
    analysis = lab.analysis
    newest = await keep_newest(
        context,
        event,
        lab_results,
        {
            "user_id": user_id,
            "lab_result_id": lab_result_id,
            "status": lab.status,
            "title": lab.title,
            "lab_name": lab.lab_name,
            "test_date": lab.test_date,
            "overall_assessment": analysis.overall_assessment if analysis else None,
            "follow_up_needed": analysis.follow_up_needed if analysis else None,
        },
    )
    if not newest:
        return
    await context.session.execute(_DROP_VALUES, {"of_user": user_id, "of_lab_result": lab_result_id})
    values = [(domain.domain_name, value) for domain in lab.domains for value in domain.values]
    rows = [
        {
            "user_id": user_id,
            "lab_result_id": lab_result_id,
            "position": position,
            "domain": domain,
            "parameter": value.parameter,
            "value": value.value,
            "comparator": value.comparator,
            "unit": value.unit,
            "low": value.reference_range.low if value.reference_range else None,
            "high": value.reference_range.high if value.reference_range else None,
            "status": value.status,
        }
        for position, (domain, value) in enumerate(values)
    ]
    if rows:
        await context.session.execute(_ADD_VALUES, rows)


async def keep_daily_summary(context: Context, event: ThriveEvent[Any], summary: DailySummary) -> None:
    """Keep a day of device data, if the event is the newest about that day and device."""
    if summary.date is None:
        raise Reject("the daily summary has no date")
    activity, sleep = summary.activity_summary, summary.sleep_summary
    body = summary.body_summary[-1] if summary.body_summary else None
    heart_rate = activity.heart_rate if activity else None
    await keep_newest(
        context,
        event,
        daily_summaries,
        {
            "user_id": member_of(event),
            "day": summary.date,
            "device": summary.provider_slug or "",
            "steps": activity.steps if activity else None,
            "calories_active": activity.calories_active if activity else None,
            "distance_meters": activity.distance_meters if activity else None,
            "resting_heart_rate": heart_rate.resting if heart_rate else None,
            "sleep_minutes": sleep.duration_minutes if sleep else None,
            "sleep_efficiency": sleep.efficiency if sleep else None,
            "hrv_ms": sleep.hrv_ms if sleep else None,
            "weight": body.weight if body else None,
            "weight_unit": body.weight_unit if body else None,
        },
    )


async def keep_nudge(context: Context, event: ThriveEvent[Any], nudge: NudgeCard | HealthAction) -> None:
    """Keep a card or a health action, if the event is the newest about it."""
    if isinstance(nudge, NudgeCard):
        row: dict[str, Any] = {
            "kind": "card",
            "nudge_id": _resource(event, nudge.card_item_id),
            "title": nudge.item_header,
            "text": nudge.item_body.main if nudge.item_body else None,
            "status": nudge.interaction_status,
            "trigger_name": nudge.trigger_name,
            "scheduled_at": None,
        }
    else:
        row = {
            "kind": "health_action",
            "nudge_id": _resource(event, nudge.health_action_id),
            "title": nudge.title,
            "text": nudge.description,
            "status": nudge.status,
            "trigger_name": None,
            "scheduled_at": nudge.scheduled_at,
        }
    await keep_newest(context, event, nudges, {"user_id": member_of(event), **row})


async def keep_priorities(context: Context, event: ThriveEvent[Any], found: Sequence[Priority]) -> None:
    """Replace all of a member's priorities, if the event is the newest about them."""
    user_id = member_of(event)
    if not await keep_newest(context, event, priority_lists, {"user_id": user_id}):
        return
    await context.session.execute(_DROP_PRIORITIES, {"of_user": user_id})
    rows = [
        {
            "user_id": user_id,
            "position": position,
            "priority_id": priority.user_priority_id,
            "title": priority.title,
            "description": priority.description,
            "status": priority.status,
            "rank": priority.rank,
        }
        for position, priority in enumerate(found)
    ]
    if rows:
        await context.session.execute(_ADD_PRIORITIES, rows)


async def fetch_later(context: Context, event: ThriveEvent[Any], kind: str) -> None:
    """Note a resource whose data could not be had, so that it is not forgotten."""
    await keep_newest(
        context, event, to_fetch, {"user_id": member_of(event), "kind": kind, "resource_id": _target(event) or ""}
    )


async def need_not_fetch(context: Context, event: ThriveEvent[Any], kind: str) -> None:
    """Drop the note of a resource that is kept now, unless a newer event made it."""
    await context.session.execute(
        _DROP_NOTE,
        {
            "of_user": member_of(event),
            "of_kind": kind,
            "of_resource": _target(event) or "",
            "at": happened_at(context, event),
            "by": event.event_id,
        },
    )


def member_of(event: ThriveEvent[Any]) -> str:
    """The member an event is about. Raises `Reject` when it names none."""
    if event.user_id is None:
        raise Reject("the event names no user: is CONSUMER_THRIVE__FIELDS__USER_ID right?")
    return event.user_id


def _target(event: ThriveEvent[Any]) -> str | None:
    return event.target.id if event.target else None


def _resource(event: ThriveEvent[Any], own_id: str | None) -> str:
    found = own_id or _target(event)
    if found is None:
        raise Reject("neither the data nor the target of the event has an id")
    return found
