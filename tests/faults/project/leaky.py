"""Handlers that fail with what they were given in their mouths."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, MetaData, Table, Text, insert, text

from consumer import Context, DispatchTable, Reject
from consumer.events import LabResultEvent, ProgramEvent

CANARY = os.environ.get("HANDLER_CANARY", "")

metadata = MetaData()
notes = Table("notes", metadata, Column("note", Text, primary_key=True))
table = DispatchTable(metadata=metadata)
stray: set[asyncio.Task[Any]] = set()


class Odd(Exception):
    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.add_note(value)

    def __repr__(self) -> str:
        return str(self)


class Strict(BaseModel):
    number: int


@table.on(LabResultEvent, ProgramEvent, timeout=0.5)
async def leak(event: LabResultEvent | ProgramEvent, context: Context) -> None:
    """Fail in the way the event's id says."""
    said = f"{CANARY} {event.user_id} {event.model_dump_json()}"
    way = event.event_id.partition("-")[0]
    context.log.info("handling")
    match way:
        case "value":
            raise ValueError(said)
        case "key":
            raise KeyError(said)
        case "odd":
            raise Odd(said)
        case "cause":
            try:
                raise ValueError(said)
            except ValueError as error:
                raise RuntimeError(said) from error
        case "group":
            raise ExceptionGroup(said, [ValueError(said), KeyError(said)])
        case "pydantic":
            Strict.model_validate({"number": said})
        case "integrity":
            for _ in range(2):
                await context.session.execute(insert(notes).values(note=said))
        case "statement":
            await context.session.execute(text("INSERT INTO nothing VALUES (:said)"), {"said": said})
        case "reject":
            raise Reject(said)
        case "timeout":
            await asyncio.sleep(60)
        case "logs":
            try:
                raise ValueError(said)
            except ValueError:
                context.log.exception("that failed")
                logging.getLogger("mine").exception("that failed")
        case "stray":
            task = asyncio.create_task(_fail(said))
            await asyncio.sleep(0.01)
            del task
        case "callback":
            asyncio.get_running_loop().call_soon(_raise, said)
            await asyncio.sleep(0.01)
        case "exit":
            raise SystemExit(said)


async def _fail(said: str) -> None:
    raise ValueError(said)


def _raise(said: str) -> None:
    raise ValueError(said)
