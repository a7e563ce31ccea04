"""Putting the parts together from the settings."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import MetaData

from consumer.context import Platforms
from consumer.database import Database
from consumer.dead_letters.aging import Aging
from consumer.dead_letters.archive import Archive
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.file_store import FileStore
from consumer.dead_letters.object_store import ObjectStore
from consumer.dead_letters.objects import open_objects
from consumer.dead_letters.queue_store import QueueStore
from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.sealing import sealer
from consumer.dead_letters.store import DeadLetterStore
from consumer.dead_letters.writing import DeadLetterWriter
from consumer.dispatch import DispatchTable, Lifespan
from consumer.errors import ConsumerError, DatabaseError, DatabaseUnavailable, SettingsError
from consumer.failures import describe
from consumer.inbox import Inbox
from consumer.intake import Intake
from consumer.migrations import create_tables, migrate, missing_tables, schema_state
from consumer.ops.backlog import Backlog
from consumer.ops.measured_store import MeasuredStore
from consumer.ops.metrics import Metrics
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import open_spans
from consumer.pipeline import Pipeline
from consumer.providers import build_readers, build_route, build_signature
from consumer.running import Runner
from consumer.secret_reloading import watch_secrets
from consumer.settings import Settings, SourceSettings
from consumer.settings_loading import Loaded, load_settings
from consumer.sources.base import Source
from consumer.worker import Worker

__all__ = [
    "App",
    "build_signature",
    "build_source",
    "build_store",
    "enter_lifespans",
    "enter_platforms",
    "load_table",
    "make_importable",
    "opened_database",
    "source_names",
]

_log = structlog.get_logger("worker")

_PRUNE_EVERY = 3600.0
_SOURCE_METHODS = [name for name, part in vars(Source).items() if inspect.isfunction(part) and name[0] != "_"]


def make_importable(app_dir: Path) -> None:
    """Let the handlers, and classes that settings name, be imported from a folder."""
    folder = str(app_dir.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def load_table(handlers: str, app_dir: Path) -> DispatchTable:
    """Import the dispatch table named `module[:attribute]`, with `app_dir` importable.

    Raises `SettingsError`, in one line, when there is none.
    """
    module_name, _, attribute = handlers.partition(":")
    attribute = attribute or "table"
    make_importable(app_dir)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise SettingsError(
                f"CONSUMER_HANDLERS: there is no module {module_name} in {app_dir} or among the installed packages"
            ) from None
        raise SettingsError(f"CONSUMER_HANDLERS: {module_name} needs the module {error.name}") from None
    except TypeError as error:
        # What `table.on` says of a handler that does not fit.
        raise SettingsError(f"CONSUMER_HANDLERS: {module_name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - it is the user's code, and any failure of it is one clear line
        raise SettingsError(f"CONSUMER_HANDLERS: {module_name} fails on import: {_one_line(error)}") from None
    table = getattr(module, attribute, None)
    if not isinstance(table, DispatchTable):
        raise SettingsError(f"CONSUMER_HANDLERS: {module_name} has no DispatchTable named {attribute}")
    return table


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _place(error: BaseException) -> str:
    """What was raised and where, without its text."""
    what = describe(error)
    return f"{what['type']} at {what['at'][-1]}" if what["at"] else str(what["type"])


def source_names(settings: Settings, only: str | None = None) -> list[str]:
    """The sources to run: all that are configured, or the one asked for. Raises `SettingsError` for none."""
    if only is not None:
        return [settings.source(only).name]
    if not settings.sources:
        raise SettingsError("no source is configured: set CONSUMER_SOURCES__<NAME>__KIND, or run `consumer init`")
    return list(settings.sources)


def build_source(settings: SourceSettings, *, database: Database | None = None, for_sending: bool = False) -> Source:
    """The adapter of a source's kind; imports its cloud's SDK only now. Raises `SettingsError`.

    `database` is where a queue that takes nothing back parks events; only a worker needs it. With `for_sending` nothing
    is asked for that only a reader needs.
    """
    if settings.kind == "local":
        from consumer.sources.local import LocalSource  # noqa: PLC0415 - only what is used is imported

        return LocalSource(settings)
    if settings.kind == "sqs":
        from consumer.sources.sqs import SqsSource  # noqa: PLC0415 - as above

        return SqsSource(settings)
    if settings.kind == "storage_queue":
        from consumer.sources.storage_queue import StorageQueueSource  # noqa: PLC0415 - as above

        return StorageQueueSource(settings)
    if settings.kind == "event_hubs":
        from consumer.sources.event_hubs import EventHubsSource  # noqa: PLC0415 - as above

        return EventHubsSource(settings, database=database, for_sending=for_sending)
    if ":" in settings.kind:
        return _custom_source(settings)
    raise SettingsError(f"CONSUMER_SOURCES__{settings.name.upper()}__KIND: {settings.kind} is not in this release")


def _custom_source(settings: SourceSettings) -> Source:
    module_name, _, name = settings.kind.partition(":")
    where = f"CONSUMER_SOURCES__{settings.name.upper()}__KIND"
    try:
        made = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError):
        raise SettingsError(f"{where}: there is no {settings.kind}") from None
    try:
        source: Source = made(settings)
    except ConsumerError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code: any failure of it is one clear line
        raise SettingsError(f"{where}: {settings.kind} raised {_place(error)}") from None
    missing = [method for method in _SOURCE_METHODS if not callable(getattr(source, method, None))]
    if missing:
        raise SettingsError(f"{where}: {settings.kind} is not a source: it has no {', '.join(missing)}")
    return source


def build_store(settings: Settings, metrics: Metrics | None = None) -> DeadLetterStore:
    """The dead-letter store. Raises `SettingsError` for a wrong recipient, or when the store's SDK is missing."""
    chosen = settings.dead_letters
    seal = sealer(chosen.recipients) if chosen.recipients else None
    on_dropped = metrics.unproven_dropped.inc if metrics is not None else None
    limit = chosen.unproven_limit
    if chosen.kind in {"s3", "blob"}:
        return ObjectStore(open_objects(chosen), seal=seal, unproven_limit=limit, on_dropped=on_dropped)
    files = FileStore(chosen.path, seal=seal, unproven_limit=limit, roll_after=chosen.roll_after, on_dropped=on_dropped)
    if chosen.kind == "file":
        return files
    return QueueStore({name: DeadLetterQueue(settings.source(name)) for name in settings.sources}, files=files)


@asynccontextmanager
async def opened_database(settings: Settings, table: DispatchTable | None = None) -> AsyncIterator[Database]:
    """The database, answering and with its tables up to date, those of the dispatch table's handlers included.

    Raises `SettingsError` when the tables are not there and must not be made, `DatabaseUnavailable`.
    """
    database = Database(settings.database.url.get_secret_value())
    try:
        try:
            await _prepare(database, settings.database.auto_migrate, table.metadata if table is not None else ())
        except DatabaseError as error:
            raise DatabaseUnavailable(f"the database ({database.dialect}) cannot be used: {error}") from None
        yield database
    finally:
        await database.close()


async def _prepare(database: Database, automatic: bool | None, metadata: Sequence[MetaData]) -> None:
    await database.open()
    if automatic or (automatic is None and database.dialect == "sqlite"):
        await migrate(database)
        await create_tables(database, metadata)
    state = await schema_state(database)
    if state.problem is not None or state.pending:
        raise SettingsError(state.problem or "the database's tables are not up to date: run `consumer migrate`")
    missing = await missing_tables(database, metadata)
    if missing:
        raise SettingsError(f"the database has no table {missing[0]}, which the handlers use: run `consumer migrate`")


async def enter_lifespans(stack: AsyncExitStack, table: DispatchTable) -> dict[Lifespan, Any]:
    """Enter the table's lifespans, to be left with the stack; what each yielded. Raises `SettingsError`."""
    states: dict[Lifespan, Any] = {}
    for lifespan in table.lifespans():
        try:
            states[lifespan] = await stack.enter_async_context(lifespan())
        except ConsumerError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code: any failure of it is one clear line
            raise SettingsError(f"CONSUMER_HANDLERS: the lifespan raised {_place(error)}") from None
    return states


async def enter_platforms(stack: AsyncExitStack, settings: Settings, metrics: Metrics | None = None) -> Platforms:
    """The platforms' REST clients, to be closed with the stack."""
    from consumer.platforms import opened_platforms  # noqa: PLC0415 - commands that handle no event do without

    observed = metrics.platform if metrics is not None else None
    return await stack.enter_async_context(opened_platforms(settings.thrive, settings.sahha, observed))


@dataclass(slots=True)
class App:
    """A worker with everything it stands on, open."""

    worker: Worker
    metrics: Metrics
    settings: Settings
    database: Database
    platforms: Platforms
    backlog: Backlog

    @staticmethod
    @asynccontextmanager
    async def opened(
        loaded: Loaded,
        *,
        only: str | None = None,
        table: DispatchTable | None = None,
        reload: Callable[[], Loaded] = load_settings,
        poll_wait: float | None = None,
        metrics: Metrics | None = None,
        doing: Callable[[str], None] = lambda _: None,
    ) -> AsyncIterator[App]:
        """Open database, sources and the table's lifespans; close them in turn.

        `reload` reads the settings again, when a file of secrets has changed. `poll_wait` shortens the sources' own.
        `metrics` are those to count in; `doing` is told what is opened now, for whoever waits.

        Raises `SettingsError`, `DatabaseUnavailable`, `SourceError` or `DeadLetterError`, each one clear line.
        """
        settings = loaded.settings
        names = source_names(settings, only)
        table = table or load_table(settings.handlers, settings.app_dir)
        readers = build_readers(settings, table)
        routes = {name: build_route(settings.source(name), settings, table, readers) for name in names}
        metrics = metrics or Metrics()
        async with AsyncExitStack() as stack:
            doing("looking at the dead-letter store")
            store = build_store(settings, metrics)
            stack.push_async_callback(store.close)
            await store.probe()
            doing("connecting to the database")
            database = await stack.enter_async_context(opened_database(settings, table))
            inbox = Inbox(database)
            doing("entering the handlers' lifespans")
            states = await enter_lifespans(stack, table)
            platforms = await enter_platforms(stack, settings, metrics)
            spans = open_spans(TracedQueue.of(settings.source(name)) for name in names)
            runner = Runner(states=states, platforms=platforms, meter=metrics, spans=spans)
            pipeline = Pipeline(
                database=database,
                inbox=inbox,
                runner=runner,
                retry_base=settings.retry.base,
                retry_cap=settings.retry.cap,
            )
            kept = MeasuredStore(store, metrics)
            together = DeadLetterWriter(kept)
            intakes = []
            measured = {name: metrics.source(name) for name in names}
            for name in names:
                chosen = settings.source(name)
                if poll_wait is not None:
                    chosen = chosen.model_copy(update={"poll_wait": min(poll_wait, chosen.poll_wait)})
                source = build_source(chosen, database=database)
                stack.push_async_callback(source.close)
                doing(f"connecting to source {name}")
                await source.open()
                intakes.append(
                    Intake(
                        source=source,
                        route=routes[name],
                        pipeline=pipeline,
                        inbox=inbox,
                        # A batch fails as a whole: where each source has a queue, one must not fail for another's.
                        dead_letters=DeadLetterWriter(kept) if isinstance(store, QueueStore) else together,
                        metrics=measured[name],
                        max_in_flight=chosen.max_in_flight,
                        max_in_flight_bytes=chosen.max_in_flight_bytes,
                        visibility_timeout=chosen.visibility_timeout,
                        park_lanes=chosen.lane_on_dead_letter == "park",
                    )
                )

            async def healthy() -> None:
                await database.ping()
                await store.probe()

            async def prune() -> None:
                await _prune(inbox, settings.inbox.retention, metrics)

            async def watch() -> None:
                by_source = {intake.source.name: intake for intake in intakes}
                renewed = store.renew if isinstance(store, QueueStore) else None
                await watch_secrets(loaded, reload, by_source, platforms, on_read=metrics.secrets.read, renewed=renewed)

            sources = {name: intake.source for name, intake in zip(names, intakes, strict=True)}
            backlog = Backlog(sources, measured, database)
            # Without the health server nobody asks for metrics, and a queue's answer is not free.
            looks = [backlog.run] if settings.health.enabled else []
            worker = Worker(
                intakes=intakes,
                pipeline=pipeline,
                healthy=healthy,
                drain_timeout=settings.drain_timeout,
                overdue=lambda: runner.overdue,
                extra=[prune, watch, *looks, *_aging(settings, metrics)],
            )
            yield App(worker, metrics, settings, database, platforms, backlog)


def _aging(settings: Settings, metrics: Metrics) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
    """The loop that deletes dead letters older than `dead_letters.max_age`, if there is to be one."""
    chosen = settings.dead_letters
    if chosen.max_age is None or not chosen.purge:
        return ()

    def opened() -> Archive:
        # Queues delete by themselves, if at all; what they cannot carry is in files.
        return FileArchive([chosen.path], missing_ok=True) if chosen.kind == "queue" else open_archive(settings)

    return (Aging(opened, chosen.max_age, expired=metrics.dead_letters_purged.inc).run,)


async def _prune(inbox: Inbox, retention: float | None, metrics: Metrics) -> None:
    while True:
        try:
            removed = await inbox.prune(retention)
            metrics.inbox_pruned.inc(removed)
            if removed:
                _log.info("inbox_pruned", rows=removed)
        except DatabaseError as error:
            metrics.inbox_prune_failures.inc()
            _log.warning("inbox_not_pruned", detail=str(error))
        await asyncio.sleep(_PRUNE_EVERY)
