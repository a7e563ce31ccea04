"""Handlers whose lifespan takes until a file is there, and one that keeps the loop to itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from effects import effects, metadata
from sqlalchemy import insert

from consumer import Context, DispatchTable
from consumer.events import ProgramEvent


@contextlib.asynccontextmanager
async def _lifespan() -> AsyncIterator[None]:
    while not await asyncio.to_thread(Path(os.environ["HANDLER_GATE"]).exists):
        await asyncio.sleep(0.02)
    yield


table = DispatchTable(lifespan=_lifespan, metadata=metadata)


@table.on(ProgramEvent)
async def handle(event: ProgramEvent, context: Context) -> None:
    if event.event_id == "block":
        context.log.info("handler_blocks")
        time.sleep(30)  # noqa: ASYNC251 - what nobody should do
    await context.session.execute(insert(effects).values(event_id=event.event_id, attempt=context.delivery.attempt))
