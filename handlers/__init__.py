"""What happens to each event. This folder is yours: change it, or copy it and start from there.

These handlers keep a small health store in the worker's own database, in the tables of `handlers.tables`. They show
what every handler has to get right:

- **Write through `context.session`.** What is written there and the fact that the event was handled are committed
  together, so each event takes effect once. Do not commit: the worker does, when the handler has returned.
- **Expect any order.** A queue may deliver an older event after a newer one. Every row keeps the time and id of the
  event it came from, and only a newer event replaces it (`handlers.store`).
- **Expect `data` to be missing.** Under the platform's basic contract an event only says what to fetch.
- **Say no with `Reject`** when an event can never be handled: it becomes a dead letter, to be looked at and replayed.
  Any other exception means "try again later".
- **Log ids, never health data.**
"""

from __future__ import annotations

from consumer import Context, DispatchTable
from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent
from handlers import store
from handlers.tables import metadata

__all__ = ["table"]

table = DispatchTable(metadata=metadata)


@table.on(LabResultEvent)
async def store_lab_result(event: LabResultEvent, context: Context) -> None:
    """Keep a lab result and its values."""
    if event.data is None:
        await store.fetch_later(context, event, "lab_result")
    else:
        await store.keep_lab_result(context, event, event.data)


@table.on(DailyDeviceEvent)
async def store_daily_summary(event: DailyDeviceEvent, context: Context) -> None:
    """Keep a day of a member's device data."""
    if event.data is None:
        await store.fetch_later(context, event, "daily_summary")
    else:
        await store.keep_daily_summary(context, event, event.data)


@table.on(NudgeEvent)
async def store_nudge(event: NudgeEvent, context: Context) -> None:
    """Keep what the coach wants the member to see: a card, or a reminder of a health action."""
    if event.data is None:
        kind = "card" if event.is_card else "health_action" if event.is_health_action else "nudge"
        await store.fetch_later(context, event, kind)
    else:
        await store.keep_nudge(context, event, event.data)


@table.on(ProgramEvent)
async def note_program_change(event: ProgramEvent, context: Context) -> None:
    """A member's priorities may have changed; they are in no event, so they must be fetched."""
    await store.fetch_later(context, event, "program")
    context.log.info("priorities_to_be_fetched")
