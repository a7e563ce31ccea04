"""The demo: a project of its own, queues full of signed events, and the real worker with the shipped handlers.

The queues are the project's own, in files, one for each platform, or one that the user has configured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Counter

from consumer.app import App, build_source, load_table
from consumer.context import Context
from consumer.demo_store import MemberScore, MemberValue, latest_scores, latest_values, row_counts
from consumer.demo_traffic import Traffic, make_traffic
from consumer.demo_traffic_sahha import make_sahha_traffic
from consumer.dispatch import DispatchTable
from consumer.errors import ConsumerError
from consumer.events import LabResultEvent, ScoreEvent
from consumer.outcomes import Retry
from consumer.project import write_project
from consumer.providers import build_sahha_signature, build_signature, build_thrive_signature
from consumer.settings import SourceSettings
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.base import Outgoing

__all__ = ["DemoResult", "ProviderResult", "run_demo"]

_QUEUES = {"events": "events.db", "webhooks": "webhooks.db"}
"""The project's sources, Thrive's first, and the files their queues are in."""
_SAHHA_SHARE = 4
"""One honest event in so many is Sahha's."""
_IDLE_AFTER = 0.3
_IDLE_AFTER_ELSEWHERE = 2.0
"""Brokers estimate what they hold."""
_POLL_WAIT = 1.0
_LOOK = 0.05
_ATTEMPTS = 4

Progress = Callable[[int, int], None]
"""Told how many messages are settled, of how many."""


@dataclass(frozen=True, slots=True)
class ProviderResult:
    """What became of one platform's messages; every one of them is counted in one of these."""

    provider: str
    source: str
    kind: str
    messages: int
    handled: Mapping[str, int]
    """By event class."""
    duplicates: int
    retried: int
    dead_letters: Mapping[str, int]
    """By reason."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What became of it all. `source` and `kind` are those of the first platform."""

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
    scored_member: str | None
    scores: list[MemberScore]
    """That member's latest scores."""
    providers: list[ProviderResult] = field(default_factory=list)


async def run_demo(
    folder: Path, *, events: int, seed: int, progress: Progress, through: SourceSettings | None = None
) -> DemoResult:
    """Write a project into `folder`, fill its queues, run its worker until they are empty, and look at the store.

    No port is opened, nothing is fetched, and nothing outside of the folder is written. With `through`, a source's
    settings with all they inherit, that platform's events go through that queue, and only database and dead letters
    are the folder's.

    Raises `ConsumerError` when that queue is not empty or anything is lost, `SettingsError`, `SourceError`.
    """
    if through is not None:
        build_signature(through)
    write_project(folder, sahha=True)
    loaded = _settings(folder, through)
    shipped = load_table(loaded.settings.handlers, folder)
    traffic = await _fill_all(loaded, events, seed)
    idle_after = _IDLE_AFTER if through is None or through.kind == "local" else _IDLE_AFTER_ELSEWHERE
    async with App.opened(loaded, table=_stumbling(shipped, traffic.values()), poll_wait=_POLL_WAIT) as app:
        total = sum(len(one.messages) for one in traffic.values())
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
        providers = [_of_provider(app, name, len(one.messages)) for name, one in traffic.items()]
        async with app.database.engine.connect() as connection:
            store = await row_counts(connection, metadata)
            member, values = await latest_values(connection, metadata)
            scored_member, scores = await latest_scores(connection, metadata)
        return DemoResult(
            source=providers[0].source,
            kind=providers[0].kind,
            messages=total,
            seconds=seconds,
            handled=_by(app.metrics.handled, "event"),
            duplicates=sum(_by(app.metrics.duplicates, "source").values()),
            retried=sum(_by(app.metrics.retried, "source").values()),
            dead_letters=_by(app.metrics.dead_letters, "reason"),
            store=store,
            member=member,
            values=values,
            scored_member=scored_member,
            scores=scores,
            providers=providers,
        )


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
            **{f"sources.{name}.path": str(folder / "queue" / file) for name, file in _QUEUES.items()},
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


async def _fill_all(loaded: Loaded, events: int, seed: int) -> dict[str, Traffic]:
    """Fill every source; its traffic by its name. Of several platforms each has its share of the honest events."""
    names = loaded.settings.sources
    shares = {"thrive": events, "sahha": events}
    if len(names) > 1:
        shares = {"thrive": events - events // _SAHHA_SHARE, "sahha": events // _SAHHA_SHARE}
    sources = [loaded.settings.source(name) for name in names]
    sources.sort(key=lambda source: source.provider != "thrive")
    return {source.name: await _fill(source, shares[source.provider], seed) for source in sources}


async def _fill(settings: SourceSettings, events: int, seed: int) -> Traffic:
    now = datetime.now(UTC)
    if settings.provider == "sahha":
        traffic = make_sahha_traffic(build_sahha_signature(settings), events=events, seed=seed, now=now)
    else:
        traffic = make_traffic(build_thrive_signature(settings), events=events, seed=seed, now=now)
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


def _stumbling(shipped: DispatchTable, traffic: Iterable[Traffic]) -> DispatchTable:
    """The shipped table, behind a handler with a bug that only some lab results and scores meet."""
    table = DispatchTable()
    failing = frozenset[str]().union(*(one.failing for one in traffic))
    flaky = frozenset[str]().union(*(one.flaky for one in traffic))

    @table.on(LabResultEvent, ScoreEvent)
    async def stumble(event: LabResultEvent | ScoreEvent, context: Context) -> None:
        if event.event_id in failing:
            raise ArithmeticError
        if event.event_id in flaky and context.delivery.attempt == 1:
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


def _by(counter: Counter, label: str, source: str | None = None) -> dict[str, int]:
    """A counter's totals by one of its labels, the largest first; of one source or of all."""
    totals: dict[str, int] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            if sample.value and sample.name.endswith("_total") and source in (None, sample.labels["source"]):
                totals[sample.labels[label]] = totals.get(sample.labels[label], 0) + int(sample.value)
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def _of_provider(app: App, name: str, messages: int) -> ProviderResult:
    metrics, settings = app.metrics, app.settings.source(name)
    return ProviderResult(
        provider=settings.provider,
        source=name,
        kind=settings.kind,
        messages=messages,
        handled=_by(metrics.handled, "event", name),
        duplicates=sum(_by(metrics.duplicates, "source", name).values()),
        retried=sum(_by(metrics.retried, "source", name).values()),
        dead_letters=_by(metrics.dead_letters, "reason", name),
    )
