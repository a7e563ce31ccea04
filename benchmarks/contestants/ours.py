"""This package's worker, with more or less of it switched on.

- delivery: receiving, permits, leases and settlement; messages are not opened
- handlers: and opening, dispatch and a handler that does nothing; no inbox
- inbox: and the inbox in SQLite, with a handler that inserts one row: all of it
- waiting: the same, with a handler that first waits for 0.2 s, as for a call to somewhere

Its source, `labs`, is set in the environment as any. If `BENCH_PROGRESS` names a file, what is settled is told there;
with `--handled`, what handlers have begun with.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import sqlalchemy as sa

from benchmarks.material import SECRET, new_route
from benchmarks.progress import Progress
from consumer import Context, DispatchTable, intake
from consumer.app import App, build_source
from consumer.collector import settle_collector
from consumer.context import Platforms
from consumer.dead_letters.file_store import FileStore
from consumer.dead_letters.writing import DeadLetterWriter
from consumer.deliveries import Held, Item
from consumer.events import LabResultEvent
from consumer.inbox import Inbox, InboxRow, Seen
from consumer.intake import Intake
from consumer.ops.logs import configure_logging
from consumer.ops.metrics import Metrics
from consumer.outcomes import Handled
from consumer.pipeline import Pipeline
from consumer.route import Route
from consumer.running import Runner
from consumer.settings_loading import load_settings
from consumer.sources.base import Message, SettleFailure, Source
from consumer.worker import Worker

__all__: list[str] = []

_effects = sa.Table(
    "bench_effects", sa.MetaData(), sa.Column("event_id", sa.Text, primary_key=True), sa.Column("user_id", sa.Text)
)
_insert_effect = sa.insert(_effects)
_CALL_SECONDS = 0.2


class _NoDatabase:
    """A database that is never used."""

    writers = 1

    async def ping(self) -> None:
        """Always there."""

    @staticmethod
    def classify(_: BaseException) -> None:
        """Nothing is its fault."""


class _NoUnit:
    """A unit of work that remembers nothing."""

    touched = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to undo."""

    async def flush_member(self) -> None:
        """Nothing to send."""

    async def commit(self, rows: Sequence[InboxRow]) -> None:
        """Nothing to keep."""


class _NoInbox:
    """An inbox that knows no event and keeps none."""

    async def lookup(self, _: Sequence[bytes]) -> dict[bytes, Seen]:
        """Never seen."""
        return {}

    def transaction(self) -> _NoUnit:
        """Nothing to write to."""
        return _NoUnit()


async def _nothing(event: LabResultEvent, context: Context) -> None:
    """The handler of nothing at all."""


async def _insert(event: LabResultEvent, context: Context) -> None:
    """The handler of one row."""
    await context.session.execute(_insert_effect, {"event_id": event.event_id, "user_id": event.user_id})


async def _wait_and_insert(event: LabResultEvent, context: Context) -> None:
    """The handler that calls somebody and keeps the answer."""
    await asyncio.sleep(_CALL_SECONDS)
    await _insert(event, context)


def _settled_at_once(held: Held, route: Route) -> list[Item]:
    item = Item(held, route, 0, b"")
    item.verdict = Handled()
    return [item]


def _environment(folder: Path) -> Mapping[str, str]:
    return {
        "CONSUMER_DATABASE__URL": f"sqlite:///{folder / 'consumer.db'}",
        **os.environ,
        "CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRET,
        "CONSUMER_DEAD_LETTERS__PATH": str(folder / "dead-letters"),
    }


def _count_settled(source: Source, progress: Progress) -> None:
    """Let a source tell of what it has acknowledged."""
    acknowledge = source.acknowledge

    async def counted(messages: Sequence[Message]) -> list[SettleFailure]:
        failures = await acknowledge(messages)
        progress.add(len(messages) - len(failures))
        return failures

    source.acknowledge = counted  # type: ignore[method-assign]  # adapters have no seam for it, and need none


@contextlib.asynccontextmanager
async def _without_inbox(env: Mapping[str, str], table: DispatchTable, folder: Path) -> AsyncIterator[Worker]:
    settings = load_settings(env=env).settings.source("labs")
    database, inbox = cast("Any", _NoDatabase()), cast("Inbox", _NoInbox())
    metrics = Metrics()
    runner = Runner(platforms=Platforms(), meter=metrics)
    pipeline = Pipeline(database=database, inbox=inbox, runner=runner)
    store = FileStore(folder / "dead-letters")
    source = build_source(settings)
    await source.open()
    taken = Intake(
        source=source,
        route=new_route(table),
        pipeline=pipeline,
        inbox=inbox,
        dead_letters=DeadLetterWriter(store),
        metrics=metrics.source("labs"),
        max_in_flight=settings.max_in_flight,
        max_in_flight_bytes=settings.max_in_flight_bytes,
        visibility_timeout=settings.visibility_timeout,
    )
    yield Worker(
        intakes=[taken], pipeline=pipeline, healthy=database.ping, drain_timeout=25.0, overdue=lambda: runner.overdue
    )
    await source.close()
    await store.close()


@contextlib.asynccontextmanager
async def _with_inbox(env: Mapping[str, str], table: DispatchTable) -> AsyncIterator[Worker]:
    async with App.opened(load_settings(env=env), table=table) as app:
        async with app.database.engine.begin() as connection:
            await connection.execute(sa.text("CREATE TABLE IF NOT EXISTS bench_effects (event_id TEXT, user_id TEXT)"))
        yield app.worker


async def _main(what: str, *, handled: bool) -> None:
    configure_logging(level="warning", form="json")
    named = os.environ.get("BENCH_PROGRESS")
    progress = Progress(Path(named)) if named else None

    async def begun(_: LabResultEvent, __: Context) -> None:
        assert progress is not None  # --handled goes with a file
        progress.add(1)

    table = DispatchTable()
    handlers = {"inbox": _insert, "waiting": _wait_and_insert}
    table.on(LabResultEvent)(begun if handled else handlers.get(what, _nothing))
    if what == "delivery":
        intake.open_message = _settled_at_once  # type: ignore[attr-defined]  # the one seam between the two
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = _environment(folder)
        opened = _with_inbox(env, table) if what in handlers else _without_inbox(env, table, folder)
        async with opened as worker:
            if progress is not None and not handled:
                for taken in worker.intakes:
                    _count_settled(taken.source, progress)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
            settle_collector()
            await worker.run()


def main() -> None:
    """Consume a queue until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=["delivery", "handlers", "inbox", "waiting"], default="handlers")
    parser.add_argument("--handled", action="store_true", help="tell of each event as its handler begins")
    options = parser.parse_args()
    asyncio.run(_main(options.what, handled=options.handled))


if __name__ == "__main__":
    main()
