"""The demo: a project of its own, a queue full of signed events, and the real worker with the shipped handlers.

The queue is the project's own, in a file, or one that the user has configured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import Counter
from sqlalchemy import MetaData, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from consumer.app import App, build_signature, build_source, load_table
from consumer.context import Context
from consumer.demo_traffic import Traffic, make_traffic
from consumer.dispatch import DispatchTable
from consumer.errors import ConsumerError
from consumer.events import LabResultEvent
from consumer.outcomes import Retry
from consumer.project import write_project
from consumer.settings import SourceSettings
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.base import Outgoing

__all__ = ["DemoResult", "MemberValue", "run_demo"]

_SOURCE = "events"
_IDLE_AFTER = 0.3
_IDLE_AFTER_ELSEWHERE = 2.0
"""Brokers estimate what they hold."""
_POLL_WAIT = 1.0
_LOOK = 0.05
_ATTEMPTS = 4

Progress = Callable[[int, int], None]
"""Told how many messages are settled, of how many."""


@dataclass(frozen=True, slots=True)
class MemberValue:
    """One value of the member that is shown; invented, as all of the demo is."""

    parameter: str
    value: float
    unit: str
    status: str


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What became of it all."""

    source: str
    kind: str
    messages: int
    seconds: float
    handled: Mapping[str, int]
    """By event class."""
    duplicates: int
    retried: int
    dead_letters: Mapping[str, int]
    """By reason."""
    store: Mapping[str, int]
    """Rows in each of the handlers' tables."""
    member: str | None
    values: list[MemberValue]
    """The member's latest lab values."""


async def run_demo(
    folder: Path, *, events: int, seed: int, progress: Progress, through: SourceSettings | None = None
) -> DemoResult:
    """Write a project into `folder`, fill its queue, run its worker until the queue is empty, and look at the store.

    No port is opened and nothing outside of the folder is written. With `through`, a source's settings with all they
    inherit, the events go through that queue, and only database and dead letters are the folder's.

    Raises `ConsumerError` when that queue is not empty or anything is lost, `SettingsError`, `SourceError`.
    """
    if through is not None:
        build_signature(through)
    write_project(folder)
    loaded = _settings(folder, through)
    (name,) = loaded.settings.sources
    shipped = load_table(loaded.settings.handlers, folder)
    traffic = await _fill(loaded.settings.source(name), events, seed)
    idle_after = _IDLE_AFTER if through is None or through.kind == "local" else _IDLE_AFTER_ELSEWHERE
    async with App.opened(loaded, table=_stumbling(shipped, traffic), poll_wait=_POLL_WAIT) as app:
        total = len(traffic.messages)
        started = time.monotonic()
        watching = asyncio.create_task(_watch(app, total, progress))
        try:
            await app.worker.run(idle_after=idle_after)
        finally:
            watching.cancel()
        seconds = time.monotonic() - started - idle_after
        settled = _settled(app)
        progress(settled, total)
        if settled < total:
            raise ConsumerError(f"of {total} messages {settled} were settled: {_why_fewer(through)}")
        (metadata,) = shipped.metadata
        async with app.database.engine.connect() as connection:
            return await _result(app, connection, metadata, total, seconds)


def _why_fewer(through: SourceSettings | None) -> str:
    if through is None:
        return "this is a bug, please report it"
    return f"somebody else reads source {through.name}, or it keeps some of them back"


def _settings(folder: Path, through: SourceSettings | None) -> Loaded:
    """The project's own settings, wherever the demo was called from; its retries are quick, to be worth watching."""
    folder = folder.resolve()
    loaded = load_settings(
        config=folder / "consumer.toml",
        env={},
        cwd=folder,
        overrides={
            "app_dir": str(folder),
            f"sources.{_SOURCE}.path": str(folder / "queue" / "events.db"),
            "database.url": f"sqlite:///{folder / 'consumer.db'}",
            "dead_letters.path": str(folder / "dead-letters"),
            "max_attempts": _ATTEMPTS,
            "retry.base": 0.05,
            "retry.cap": 0.2,
        },
    )
    if through is None:
        return loaded
    # The queue is empty, so the earliest event is the demo's first.
    changes = {"max_attempts": _ATTEMPTS, "lane_on_dead_letter": "continue", "start_at": "earliest"}
    source = through.model_copy(update=changes)
    settings = loaded.settings.model_copy(update={"sources": {through.name: source}})
    # Nothing of the user's is watched: the secrets are those that were read.
    return replace(loaded, settings=settings, secret_files={})


async def _fill(settings: SourceSettings, events: int, seed: int) -> Traffic:
    traffic = make_traffic(build_signature(settings), events=events, seed=seed, now=datetime.now(UTC))
    source = build_source(settings)
    try:
        await source.open()
        held = (await source.depth()).total
        if held:
            raise ConsumerError(
                f"source {settings.name} is not empty (it holds {held}), and the demo would take what is not its own"
            )
        await source.send([Outgoing(message) for message in traffic.messages])
    finally:
        await source.close()
    return traffic


def _stumbling(shipped: DispatchTable, traffic: Traffic) -> DispatchTable:
    """The shipped table, behind a handler with a bug that only some lab results meet."""
    table = DispatchTable()

    @table.on(LabResultEvent)
    async def stumble(event: LabResultEvent, context: Context) -> None:
        if event.event_id in traffic.failing:
            raise ArithmeticError
        if event.event_id in traffic.flaky and context.delivery.attempt == 1:
            raise Retry(0.1)

    table.include(shipped)
    return table


async def _watch(app: App, total: int, progress: Progress) -> None:
    while True:
        progress(_settled(app), total)
        await asyncio.sleep(_LOOK)


def _settled(app: App) -> int:
    metrics = app.metrics
    return sum(
        sum(_by(counter, "source").values()) for counter in (metrics.handled, metrics.duplicates, metrics.dead_letters)
    )


def _by(counter: Counter, label: str) -> dict[str, int]:
    """A counter's totals by one of its labels, the largest first."""
    totals: dict[str, int] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                totals[sample.labels[label]] = totals.get(sample.labels[label], 0) + int(sample.value)
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


async def _result(app: App, connection: AsyncConnection, metadata: MetaData, total: int, seconds: float) -> DemoResult:
    store = {table.name: await _count(connection, table) for table in metadata.sorted_tables}
    member, values = await _latest_values(connection, metadata)
    (source,) = (intake.source for intake in app.worker.intakes)
    return DemoResult(
        source=source.name,
        kind=source.kind,
        messages=total,
        seconds=seconds,
        handled=_by(app.metrics.handled, "event"),
        duplicates=sum(_by(app.metrics.duplicates, "source").values()),
        retried=sum(_by(app.metrics.retried, "source").values()),
        dead_letters=_by(app.metrics.dead_letters, "reason"),
        store=store,
        member=member,
        values=values,
    )


async def _count(connection: AsyncConnection, table: Table) -> int:
    return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def _latest_values(connection: AsyncConnection, metadata: MetaData) -> tuple[str | None, list[MemberValue]]:
    """The member with the newest lab result, and the latest value of everything ever measured."""
    results, values = metadata.tables["lab_results"], metadata.tables["lab_values"]
    newest = select(results.c.user_id).order_by(results.c.occurred_at.desc()).limit(1)
    member: str | None = await connection.scalar(newest)
    found: Any = await connection.execute(
        select(values.c.parameter, values.c.value, values.c.unit, values.c.status)
        .join(
            results,
            (results.c.user_id == values.c.user_id) & (results.c.lab_result_id == values.c.lab_result_id),
        )
        .where(values.c.user_id == member)
        .order_by(results.c.occurred_at, values.c.position)
    )
    latest = {row.parameter: MemberValue(row.parameter, row.value, row.unit, row.status) for row in found}
    return member, [latest[name] for name in sorted(latest)]
