"""Writing to the health store, so that it ends up the same whatever the order events arrive in, and how often.

An upsert replaces a row only if its event is newer: later in `occurred_at`, or at the same time with the greater
`event_id`. One statement decides and writes, so two workers cannot get between.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Insert, Table, bindparam, delete, insert, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from consumer import Context, Reject
from consumer.events import ThriveEvent
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard
from handlers.tables import daily_summaries, lab_results, lab_values, nudges, to_fetch

__all__ = ["fetch_later", "keep_daily_summary", "keep_lab_result", "keep_nudge"]

_ADD_VALUES: Insert = insert(lab_values)
_DROP_VALUES: Delete = delete(lab_values).where(
    lab_values.c.user_id == bindparam("of_user"), lab_values.c.lab_result_id == bindparam("of_lab_result")
)


async def keep_lab_result(context: Context, event: ThriveEvent[Any], lab: LabResult) -> None:
    """Keep a lab result and replace its values, if the event is the newest about it."""
    user_id, lab_result_id = _member(event), _resource(event, lab.lab_result_id)
    analysis = lab.analysis
    newest = await _keep(
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
    await _keep(
        context,
        event,
        daily_summaries,
        {
            "user_id": _member(event),
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
    await _keep(context, event, nudges, {"user_id": _member(event), **row})


async def fetch_later(context: Context, event: ThriveEvent[Any], kind: str) -> None:
    """Note a resource whose data did not come with its event, so that it is not forgotten."""
    resource_id = event.target.id if event.target else None
    await _keep(context, event, to_fetch, {"user_id": _member(event), "kind": kind, "resource_id": resource_id or ""})


def _member(event: ThriveEvent[Any]) -> str:
    if event.user_id is None:
        raise Reject("the event names no user: is CONSUMER_THRIVE__FIELDS__USER_ID right?")
    return event.user_id


def _resource(event: ThriveEvent[Any], own_id: str | None) -> str:
    found = own_id or (event.target.id if event.target else None)
    if found is None:
        raise Reject("neither the data nor the target of the event has an id")
    return found


async def _keep(context: Context, event: ThriveEvent[Any], table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row, or replace the one with its key if the event is newer; whether it was written.

    An event without a time counts as happening when the queue accepted it.
    """
    session = context.session
    result = await session.execute(
        _upsert(table, session.get_bind().dialect.name),
        {**row, "occurred_at": event.occurred_at or context.delivery.accepted_at, "event_id": event.event_id},
    )
    return cast("CursorResult[Any]", result).rowcount > 0


@cache
def _upsert(table: Table, dialect: str) -> postgresql.Insert | sqlite.Insert:
    new = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    return new.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={column.name: new.excluded[column.name] for column in table.columns if not column.primary_key},
        where=tuple_(new.excluded.occurred_at, new.excluded.event_id) > tuple_(table.c.occurred_at, table.c.event_id),
    )
