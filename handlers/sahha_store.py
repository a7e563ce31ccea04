"""What the handlers write of Sahha's events. Each row is that of the newest event about it (`handlers.upserts`).

Sahha computes results again: the same score of the same day comes with a new `createdAtUtc`, and the latest one counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Delete, Insert, bindparam, delete, insert

from consumer import Context, Reject
from consumer.events import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from handlers.sahha_tables import (
    sahha_archetypes,
    sahha_biomarkers,
    sahha_data_logs,
    sahha_score_factors,
    sahha_scores,
)
from handlers.tables import UtcTime
from handlers.upserts import keep_each_newest, keep_newest

__all__ = ["keep_archetype", "keep_biomarker", "keep_data_logs", "keep_score"]

_ADD_FACTORS: Insert = insert(sahha_score_factors)
_DROP_FACTORS: Delete = delete(sahha_score_factors).where(
    sahha_score_factors.c.profile_id == bindparam("of_profile"),
    sahha_score_factors.c.type == bindparam("of_type"),
    sahha_score_factors.c.score_date_time == bindparam("of_time", type_=UtcTime()),
)


async def keep_score(context: Context, event: ScoreEvent) -> None:
    """Keep a score and replace its factors, if the event is the newest about that type and day."""
    key = {**_whose(event), "type": event.type, "score_date_time": event.score_date_time}
    newest = await keep_newest(
        context,
        event,
        sahha_scores,
        {
            **key,
            "day": event.score_date_time.date(),
            "score_id": event.id,
            "score": event.score,
            "state": event.state,
            "version": _text(event.version),
        },
    )
    if not newest:
        return
    await context.session.execute(
        _DROP_FACTORS,
        {"of_profile": key["profile_id"], "of_type": event.type, "of_time": event.score_date_time},
    )
    rows = [
        {
            **key,
            "position": position,
            "name": factor.name or factor.id,
            "value": factor.value,
            "goal": factor.goal,
            "unit": factor.unit,
            "score": factor.score,
            "state": factor.state,
        }
        for position, factor in enumerate(event.factors)
    ]
    if rows:
        await context.session.execute(_ADD_FACTORS, rows)


async def keep_biomarker(context: Context, event: BiomarkerEvent) -> None:
    """Keep a biomarker's value, if the event is the newest about that period."""
    value = event.value
    await keep_newest(
        context,
        event,
        sahha_biomarkers,
        {
            **_whose(event),
            "category": event.category,
            "type": event.type,
            "periodicity": event.periodicity or "",
            "aggregation": event.aggregation or "",
            "start_date_time": _start(event.start_date_time),
            "end_date_time": event.end_date_time,
            "biomarker_id": event.id,
            "value_type": event.value_type,
            "raw_value": _text(event.raw_value),
            "value_number": value if isinstance(value, int | float) else None,
            "value_time": value if isinstance(value, datetime) else None,
            "value_text": value if isinstance(value, str) else None,
            "unit": event.unit,
            "version": _text(event.version),
        },
    )


async def keep_archetype(context: Context, event: ArchetypeEvent) -> None:
    """Keep an archetype, if the event is the newest about that period."""
    await keep_newest(
        context,
        event,
        sahha_archetypes,
        {
            **_whose(event),
            "name": event.name,
            "periodicity": event.periodicity or "",
            "start_date_time": _start(event.start_date_time),
            "end_date_time": event.end_date_time,
            "archetype_id": event.id,
            "value": event.value,
            "data_type": event.data_type,
            "ordinality": event.ordinality,
            "version": _text(event.version),
        },
    )


async def keep_data_logs(context: Context, event: DataLogEvent) -> None:
    """Keep each reading, if the event is the newest about it."""
    whose = _whose(event)
    rows = [
        {
            **whose,
            "log_id": log.id or f"{event.event_id}:{position}",
            "parent_id": log.parent_id or None,
            "log_type": event.log_type,
            "data_type": event.data_type,
            "value": log.value,
            "unit": log.unit,
            "source": log.source,
            "recording_method": log.recording_method,
            "device_type": log.device_type,
            "start_date_time": log.start_date_time,
            "end_date_time": log.end_date_time,
            "modified_date_time": log.modified_date_time,
        }
        for position, log in enumerate(event.data_logs)
    ]
    # In one order everywhere, so that two workers with the same readings do not wait for each other in a circle.
    await keep_each_newest(context, event, sahha_data_logs, sorted(rows, key=lambda row: str(row["log_id"])))


def _whose(event: SahhaEvent) -> dict[str, Any]:
    """Who a row is about: the signed id, and the partner's own where the body says it."""
    if not event.profile_id:
        raise Reject("the event names no profile")
    return {"profile_id": event.profile_id, "external_id": event.external_id}


def _start(when: datetime | None) -> datetime:
    if when is None:
        raise Reject("the event has no startDateTime, so it is not known what period it is about")
    return when


def _text(value: float | str | None) -> str | None:
    return None if value is None else str(value)
