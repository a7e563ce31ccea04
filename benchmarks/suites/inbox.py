"""What the inbox alone costs: commits that are durable on SQLite, and room in PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measuring import Plan, Result, interleaved
from consumer.database import Database
from consumer.inbox import Inbox, InboxRow
from consumer.migrations import migrate
from tests.servers.postgres import postgres_server

__all__ = ["room", "run"]

_EVENTS = 6_000
_ROWS = 200_000
_ROWS_AT_ONCE = 1_000


def run(plan: Plan) -> list[Result]:
    """Look a group of events up, put them in, commit: in groups of 10 and of 100."""
    count = plan.size(_EVENTS)
    contestants = {f"groups of {size}": partial(_rate, count, size) for size in (10, 100)}
    rates = interleaved(contestants, plan.rounds)
    return [
        Result(what=f"inbox on SQLite, {name}", ours=rate, unit="events/s", note="database alone, commits durable")
        for name, rate in rates.items()
    ]


def room(plan: Plan) -> list[Result]:
    """What one remembered event takes in PostgreSQL, its indexes included."""
    with postgres_server() as postgres:
        size = asyncio.run(_bytes_a_row(postgres.url, plan.size(_ROWS)))
    return [Result(what="inbox in PostgreSQL, one event", ours=size, unit="bytes", note="table and both indexes")]


async def _bytes_a_row(url: str, count: int) -> float:
    database = Database(url)
    try:
        await database.open()
        await migrate(database)
        inbox = Inbox(database)
        for _ in range(count // _ROWS_AT_ONCE):
            async with inbox.transaction() as unit:
                await unit.commit([InboxRow(os.urandom(32), os.urandom(32)) for _ in range(_ROWS_AT_ONCE)])
        ((size,),) = await database.read("SELECT pg_total_relation_size('consumer_inbox')", ())
        return float(size) / (count // _ROWS_AT_ONCE * _ROWS_AT_ONCE)
    finally:
        await database.close()


def _rate(count: int, size: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_commit_groups(Path(folder) / "bench.db", count, size))


async def _commit_groups(path: Path, count: int, size: int) -> float:
    database = Database(f"sqlite:///{path}")
    try:
        await database.open()
        await migrate(database)
        inbox = Inbox(database)
        begun = time.perf_counter()
        for _ in range(count // size):
            rows = [InboxRow(os.urandom(32), b"h" * 32) for _ in range(size)]
            await inbox.lookup([row.key for row in rows])
            async with inbox.transaction() as unit:
                await unit.commit(rows)
        return count / (time.perf_counter() - begun)
    finally:
        await database.close()
