"""Handlers that are hard on the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from effects import effects, metadata
from sqlalchemy import insert

from consumer import Context, DispatchTable
from consumer.events import ProgramEvent

killing = DispatchTable(metadata=metadata)
blocking = DispatchTable(metadata=metadata)
stubborn = DispatchTable(metadata=metadata)


@killing.on(ProgramEvent)
async def kill(event: ProgramEvent, context: Context) -> None:
    await context.session.execute(insert(effects).values(event_id=event.event_id, attempt=context.delivery.attempt))
    if event.event_id == "kill":
        os._exit(9)


@blocking.on(ProgramEvent)
async def block(event: ProgramEvent, context: Context) -> None:
    context.log.info("handler_blocks")
    time.sleep(30)  # noqa: ASYNC251 - what nobody should do


@stubborn.on(ProgramEvent)
async def hold_on(event: ProgramEvent, context: Context) -> None:
    context.log.info("handler_holds_on")
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(120)
