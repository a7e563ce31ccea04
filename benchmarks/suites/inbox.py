"""What the inbox alone costs, durable on SQLite."""

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

__all__ = ["run"]

_EVENTS = 6_000


def run(plan: Plan) -> list[Result]:
    """Look a group of events up, put them in, commit: in groups of 10 and of 100."""
    count = plan.size(_EVENTS)
    contestants = {f"groups of {size}": partial(_rate, count, size) for size in (10, 100)}
    rates = interleaved(contestants, plan.rounds)
    return [
        Result(what=f"inbox on SQLite, {name}", ours=rate, unit="events/s", note="database alone, commits durable")
        for name, rate in rates.items()
    ]


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
