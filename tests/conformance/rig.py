"""A queue, a database and a dead-letter folder for one test, and workers that run on them in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from consumer import Context, DispatchTable, ThriveSignature
from consumer.app import App, build_source
from consumer.events import Event, LabResultEvent, ProgramEvent
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.base import Depth, Outgoing
from consumer.testing.samples import sample_body

__all__ = ["SECRET", "Rig", "effect", "effects_table", "eventually", "lab_result", "nothing_stray", "program", "signed"]

SECRET = "a secret of the tests"

metadata = MetaData()
effects = Table(
    "effects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
)
"""What handlers did: a row each time, so that an effect that happened twice shows."""


def signed(body: Mapping[str, Any] | str, *, secret: str = SECRET, signed_at: Any = None) -> bytes:
    """A message as the platform would send it."""
    text = body if isinstance(body, str) else json.dumps(body)
    return ThriveSignature(secrets=[secret]).sign(text, signed_at=signed_at)


def program(event_id: str, **changes: Any) -> dict[str, Any]:
    """The body of a small event."""
    return sample_body(ProgramEvent, inline=False, event_id=event_id, **changes)


def lab_result(event_id: str, **changes: Any) -> dict[str, Any]:
    """The body of an event with data."""
    return sample_body(LabResultEvent, event_id=event_id, **changes)


async def effect(event: Event, context: Context) -> None:
    """Do what handlers do: write a row in the event's transaction."""
    await context.session.execute(insert(effects).values(event_id=event.event_id, attempt=context.delivery.attempt))


def effects_table() -> DispatchTable:
    """An empty dispatch table whose handlers may call `effect`."""
    return DispatchTable(metadata=metadata)


async def eventually(condition: Callable[[], object], *, within: float = 15.0, what: str = "") -> None:
    """Wait until a condition holds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.01)
            return
    raise AssertionError(f"not within {within:g} s: {what or condition}")


@contextlib.contextmanager
def nothing_stray() -> Iterator[None]:
    """No task of the loop fails without anybody looking."""
    loop, found = asyncio.get_running_loop(), list[str]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: found.append(f"{context['message']}: {context.get('exception')!r}"))
    try:
        yield
        gc.collect()
        assert found == []
    finally:
        loop.set_exception_handler(before)


@dataclass
class Rig:
    """Where a test's workers stand on. `source` holds the settings of the queue named `labs`, by their last word."""

    folder: Path
    source: Mapping[str, str]
    changes: dict[str, str] = field(default_factory=dict)
    """Settings of every worker of the test, by the names of the environment without `CONSUMER_`."""
    without: set[str] = field(default_factory=set)
    """Settings to leave out, by the same names."""

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "consumer.db"

    @property
    def dead_letter_folder(self) -> Path:
        """Where dead letters go."""
        return self.folder / "dead-letters"

    def environment(self, **changes: str) -> dict[str, str]:
        """The settings as environment variables."""
        values = {f"SOURCES__LABS__{name}": value for name, value in self.source.items()} | {
            "THRIVE__SIGNATURE__SECRETS": SECRET,
            "DATABASE__URL": f"sqlite:///{self.database}",
            "DEAD_LETTERS__PATH": str(self.dead_letter_folder),
            "HEALTH__ENABLED": "false",
            "CONTROL__ENABLED": "false",
            "RETRY__BASE": "0.02",
            "RETRY__CAP": "0.1",
            "DRAIN_TIMEOUT": "5s",
            **self.changes,
            **changes,
        }
        return {f"CONSUMER_{name}": value for name, value in values.items() if name not in self.without}

    def load(self, **changes: str) -> Loaded:
        """The settings."""
        return load_settings(env=self.environment(**changes), cwd=self.folder)

    async def publish(self, messages: Iterable[bytes | Outgoing]) -> None:
        """Put messages on the queue."""
        source = build_source(self.load().settings.source("labs"))
        try:
            await source.open()
            await source.send([one if isinstance(one, Outgoing) else Outgoing(one) for one in messages])
        finally:
            await source.close()

    async def depth(self) -> Depth:
        """What the queue holds."""
        source = build_source(self.load().settings.source("labs"))
        try:
            await source.open()
            return await source.depth()
        finally:
            await source.close()

    @contextlib.asynccontextmanager
    async def worker(self, table: DispatchTable, *, leaves: int = 0, **changes: str) -> AsyncIterator[App]:
        """A worker that runs while the context lasts; it must end cleanly, and leave no failure unseen.

        It must leave no more than `leaves` deliveries to their leases.
        """
        with nothing_stray():
            async with App.opened(self.load(**changes), table=table) as app:
                running = asyncio.create_task(app.worker.run())
                try:
                    yield app
                finally:
                    app.worker.stop()
                    async with asyncio.timeout(60):
                        await running
                    assert sum(len(intake.held) for intake in app.worker.intakes) == leaves
                    assert leaves or all(intake.permits.idle for intake in app.worker.intakes)

    async def consume(self, table: DispatchTable, **changes: str) -> App:
        """Run a worker until the queue is empty."""
        with nothing_stray():
            async with App.opened(self.load(**changes), table=table, poll_wait=1.0) as app, asyncio.timeout(60):
                await app.worker.run(idle_after=0.1)
            return app

    def dead_letters(self) -> list[dict[str, Any]]:
        """Every dead letter, as it stands in the files."""
        files = sorted(self.dead_letter_folder.glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def reasons(self) -> Counter[str]:
        """How many dead letters there are for each reason."""
        return Counter(record["reason"] for record in self.dead_letters())

    def effects(self) -> Counter[str]:
        """How often each event took effect."""
        return Counter(row[0] for row in self.rows("SELECT event_id FROM effects"))

    def rows(self, sql: str) -> list[Any]:
        """What the database says, to somebody else than the worker: only what is committed."""
        if not self.database.exists():
            return []
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as connection:
            try:
                return connection.execute(sql).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):  # the worker has not made it yet
                    return []
                raise
