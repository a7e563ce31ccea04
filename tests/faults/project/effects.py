"""Handlers for the fault tests: each event leaves a row, slowly if told to, and some runs fail."""

from __future__ import annotations

import asyncio
import os
import random

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from consumer import Context, DispatchTable
from consumer.events import LabResultEvent, ProgramEvent

metadata = MetaData()
effects = Table(
    "effects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
)

table = DispatchTable(metadata=metadata)

_seconds = float(os.environ.get("HANDLER_SECONDS", "0"))
_failing = float(os.environ.get("HANDLER_FAILING", "0"))


@table.on(ProgramEvent, LabResultEvent)
async def store(event: ProgramEvent | LabResultEvent, context: Context) -> None:
    await context.session.execute(insert(effects).values(event_id=event.event_id, attempt=context.delivery.attempt))
    if _seconds:
        await asyncio.sleep(_seconds * random.random())
    if random.random() < _failing:
        raise RuntimeError("by chance")


waiting = DispatchTable(metadata=metadata)


@waiting.on(ProgramEvent)
async def wait(event: ProgramEvent, context: Context) -> None:
    """Write nothing before the wait, so that no transaction is open meanwhile."""
    await asyncio.sleep(_seconds)
    await context.session.execute(insert(effects).values(event_id=event.event_id, attempt=context.delivery.attempt))
