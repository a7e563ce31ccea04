"""What happens to each event. This folder is yours: change it, or copy it and start from there.

These handlers keep a small health store in the worker's own database, in the tables of `handlers.tables` and
`handlers.sahha_tables`. They show what every handler has to get right:

- **Write through `context.session`.** What is written there and the fact that the event was handled are committed
  together, so each event takes effect once. Do not commit: the worker does, when the handler has returned.
- **Fetch before you write.** Under the platform's basic contract an event only says what to fetch, and a transaction
  that waits for a network keeps others from writing (`handlers.fetching`).
- **Expect any order.** A queue may deliver an older event after a newer one. Every row keeps the time and id of the
  event it came from, and only a newer event replaces it (`handlers.upserts`).
- **Say no with `Reject`** when an event can never be handled: it becomes a dead letter, to be looked at and replayed.
  Any other exception means "try again later".
- **Log ids, never health data.**
- **Forget when asked to.** `consumer forget` erases a member, and only the handlers know what they keep
  (`handlers.forgetting`).
"""

from __future__ import annotations

from consumer import Context, DispatchTable
from consumer.events import (
    ArchetypeEvent,
    BiomarkerEvent,
    DailyDeviceEvent,
    DataLogEvent,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    ScoreEvent,
)
from handlers import sahha_store, store
from handlers.fetching import choices, fetched, fetched_nudge, fetched_priorities
from handlers.forgetting import forget_member
from handlers.tables import metadata

__all__ = ["table"]

table = DispatchTable(lifespan=choices, metadata=metadata)
table.forget(forget_member)


@table.on(LabResultEvent)
async def store_lab_result(event: LabResultEvent, context: Context) -> None:
    """Keep a lab result and its values."""
    lab = await fetched(context, event)
    if lab is None:
        await store.fetch_later(context, event, "lab_result")
    else:
        await store.keep_lab_result(context, event, lab)
        await store.need_not_fetch(context, event, "lab_result")


@table.on(DailyDeviceEvent)
async def store_daily_summary(event: DailyDeviceEvent, context: Context) -> None:
    """Keep a day of a member's device data."""
    summary = await fetched(context, event)
    if summary is None:
        await store.fetch_later(context, event, "daily_summary")
    else:
        await store.keep_daily_summary(context, event, summary)
        await store.need_not_fetch(context, event, "daily_summary")


@table.on(NudgeEvent)
async def store_nudge(event: NudgeEvent, context: Context) -> None:
    """Keep what the coach wants the member to see: a card, or a reminder of a health action."""
    nudge = await fetched_nudge(context, event)
    kind = "card" if event.is_card else "health_action"
    if nudge is None:
        await store.fetch_later(context, event, kind)
    else:
        await store.keep_nudge(context, event, nudge)
        await store.need_not_fetch(context, event, kind)


@table.on(ProgramEvent)
async def store_priorities(event: ProgramEvent, context: Context) -> None:
    """A member's priorities may have changed; they are in no event, so they are always fetched."""
    priorities = await fetched_priorities(context, event)
    if priorities is None:
        await store.fetch_later(context, event, "program")
        context.log.info("priorities_to_be_fetched")
    else:
        await store.keep_priorities(context, event, priorities)
        await store.need_not_fetch(context, event, "program")


@table.on(ScoreEvent)
async def store_score(event: ScoreEvent, context: Context) -> None:
    """Keep a day's score and what went into it."""
    await sahha_store.keep_score(context, event)


@table.on(BiomarkerEvent)
async def store_biomarker(event: BiomarkerEvent, context: Context) -> None:
    """Keep a biomarker's value over a period."""
    await sahha_store.keep_biomarker(context, event)


@table.on(ArchetypeEvent)
async def store_archetype(event: ArchetypeEvent, context: Context) -> None:
    """Keep what a member was like over a period."""
    await sahha_store.keep_archetype(context, event)


@table.on(DataLogEvent)
async def store_data_logs(event: DataLogEvent, context: Context) -> None:
    """Keep a device's readings."""
    await sahha_store.keep_data_logs(context, event)
