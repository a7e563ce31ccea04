"""`consumer check`: whether the worker could run."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from consumer.app import build_source, load_table, source_names
from consumer.cli.check_platforms import platform_checks
from consumer.cli.check_relay import relay_checks
from consumer.cli.check_replay import archive_findings
from consumer.cli.check_store import store_findings
from consumer.cli.common import Failed, config_option, handlers_options, load, run_async
from consumer.cli.console import clear_errors, print_table
from consumer.cli.routes import rows
from consumer.database import Database
from consumer.dispatch import DispatchTable
from consumer.durations import format_duration
from consumer.errors import ConsumerError, SettingsError
from consumer.events import UnknownEvent
from consumer.migrations import schema_state
from consumer.ops.logs import configure_logging
from consumer.parked import parked_sources
from consumer.providers import build_readers, build_signature
from consumer.settings import Settings, SourceSettings
from consumer.settings_loading import Loaded
from consumer.sources.base import Finding

__all__ = ["command"]

_ANSWER_WITHIN: Final = 30.0
_Parts = list[tuple[str, Coroutine[Any, Any, list[Finding]]]]
_SQLITE: Final = ("sqlite+aiosqlite:///", "sqlite:///")


@dataclass(frozen=True, slots=True)
class _Row:
    part: str
    finding: Finding

    @property
    def result(self) -> str:
        if self.finding.ok:
            return "ok"
        return "warning" if self.finding.warning else "FAILED"


@click.command(name="check", epilog="Example: consumer check --source labs && consumer run --source labs")
@click.option("--source", help="Only this source; default all that are configured.")
@click.option(
    "--for",
    "part",
    type=click.Choice(["run", "relay", "replay"]),
    default="run",
    show_default=True,
    help="The command that is to run, with the credentials it will have.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@handlers_options
def command(
    *, source: str | None, part: str, as_json: bool, config: Path | None, handlers: str | None, app_dir: str | None
) -> None:
    """Say whether the worker could run: handlers, secrets, database, dead letters, queues, permissions, timers.

    Every part is looked at, whatever the others said, and the API of each platform that credentials are set for. No
    message is received and no table changed; a dead-letter folder and an embedded queue are made when they are not
    there. Exit code 1 if the worker, or with --for the relay or a replay, could not run.
    """
    loaded = load(
        config, {"handlers": handlers, "app_dir": app_dir, "relay.source": source if part == "relay" else None}
    )
    settings = loaded.settings
    configure_logging(level="error", form=settings.log.format)
    with clear_errors():
        only = None if source is None else settings.source(source).name
        parts = _parts(loaded, only, part)
    found = run_async(lambda: _check(parts), uvloop=settings.uvloop)
    if as_json:
        lines = [
            {"part": row.part, "name": row.finding.name, "result": row.result.lower(), "detail": row.finding.detail}
            for row in found
        ]
        click.echo(json.dumps(lines, indent=2))
    else:
        print_table(
            ("part", "check", "result", "detail"),
            [(row.part, row.finding.name, row.result, row.finding.detail) for row in found],
        )
    failures = sum(row.result == "FAILED" for row in found)
    if failures:
        who = {"run": "the worker", "relay": "the relay", "replay": "a replay"}[part]
        raise Failed(f"{who} could not run: {failures} of {len(found)} checks failed")


def _parts(loaded: Loaded, only: str | None, part: str) -> _Parts:
    """What is to be looked at, for the command of this name. Raises SettingsError."""
    settings = loaded.settings
    if part == "relay":
        return relay_checks(settings)
    parts: _Parts = [
        ("settings", _settings(loaded, only)),
        ("handlers", _handlers(settings)),
        ("database", _database(settings)),
    ]
    if part == "replay":
        return [*parts, ("dead letters", archive_findings(settings)), *platform_checks(settings)]
    parts += [("dead letters", store_findings(settings)), ("health", _health(settings)), *platform_checks(settings)]
    names = [] if not settings.sources else source_names(settings, only)
    return [*parts, *((f"source {name}", _source(settings.source(name))) for name in names)]


async def _check(parts: _Parts) -> list[_Row]:
    """Every finding, part by part; what takes time is done at once."""
    found = await asyncio.gather(*(_in_time(part) for _, part in parts))
    return [_Row(name, one) for (name, _), findings in zip(parts, found, strict=True) for one in findings]


async def _in_time(part: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            return await part
    except TimeoutError:
        return [Finding("answer", ok=False, detail=f"none within {format_duration(_ANSWER_WITHIN)}")]
    except ConsumerError as error:
        return [Finding("check", ok=False, detail=str(error))]
    except Exception as error:  # noqa: BLE001 - whatever a part raises, the others are still to be told of
        return [Finding("check", ok=False, detail=f"failed on {type(error).__name__}")]


async def _settings(loaded: Loaded, only: str | None) -> list[Finding]:
    settings = loaded.settings
    try:
        names = source_names(settings, only)
    except SettingsError as error:
        return [Finding("sources", ok=False, detail=str(error))]
    drain = format_duration(settings.drain_timeout)
    kept = settings.inbox.retention
    memory = "forever" if kept is None else format_duration(kept)
    return [
        Finding("sources", ok=True, detail=", ".join(names)),
        Finding("timers", ok=True, detail=f"they fit: drain {drain}, inbox retention {memory}"),
    ]


async def _handlers(settings: Settings) -> list[Finding]:
    try:
        table = load_table(settings.handlers, settings.app_dir)
    except SettingsError as error:
        return [Finding("import", ok=False, detail=str(error))]
    found = [Finding("import", ok=True, detail=settings.handlers)]
    try:
        build_readers(settings, table)
    except SettingsError as error:
        return [*found, Finding("event types", ok=False, detail=str(error))]
    return [*found, _routes(table, settings)]


def _routes(table: DispatchTable, settings: Settings) -> Finding:
    found = rows(table, settings)
    if not any(row.handlers for row in found):
        return Finding("routes", ok=False, warning=True, detail="no event has a handler: use @table.on(LabResultEvent)")
    without = [row.event.__name__ for row in found if row.otherwise == "unhandled"]
    if without:
        detail = f"{', '.join(without)}: no handler, so such events become dead letters; add one, or table.ignore them"
        return Finding("routes", ok=False, warning=True, detail=detail)
    count = sum(row.event is not UnknownEvent for row in found)
    return Finding("routes", ok=True, detail=f"{count} event classes, each handled or ignored; see consumer routes")


async def _database(settings: Settings) -> list[Finding]:
    url = settings.database.url.get_secret_value()
    missing = _missing_file(url)
    if missing is not None:
        return [missing]
    database = Database(url)
    try:
        await database.open()
        state = await schema_state(database)
        parked = {} if state.pending or state.problem else await parked_sources(database)
    finally:
        await database.close()
    found = [Finding("connection", ok=True, detail=f"{database.dialect} answers"), *_parked(parked, settings)]
    automatic = settings.database.auto_migrate
    if state.pending and (automatic or (automatic is None and database.dialect == "sqlite")):
        return [*found, Finding("tables", ok=True, detail="`consumer run` will bring them up to this release")]
    return [*found, Finding("tables", ok=state.problem is None, detail=state.problem or f"at version {state.current}")]


def _parked(parked: Mapping[str, int], settings: Settings) -> list[Finding]:
    """A finding for each source that nobody consumes any more, and whose events wait in the database."""
    forgotten = sorted(parked.keys() - settings.sources.keys())
    return [
        Finding("parked events", ok=False, warning=True, detail=_unconsumed(name, parked[name])) for name in forgotten
    ]


def _unconsumed(name: str, count: int) -> str:
    wait = "1 event of source {} waits" if count == 1 else f"{count} events of source {{}} wait"
    return f"{wait.format(name)} in the database, and no source of that name is configured"


def _missing_file(url: str) -> Finding | None:
    """A finding for a SQLite file that is not there yet: looking at it would make it."""
    prefix = next((one for one in _SQLITE if url.startswith(one)), None)
    if prefix is None:
        return None
    path = Path(url.removeprefix(prefix)).absolute()
    if path.exists() or not path.parent.is_dir():
        return None
    return Finding("connection", ok=True, detail=f"`consumer run` will make {path.name}")


async def _health(settings: Settings) -> list[Finding]:
    health = settings.health
    if not health.enabled:
        return [Finding("server", ok=True, detail="off")]
    where = f"{health.host} port {health.port}"
    try:
        await asyncio.to_thread(lambda: socket.create_server((health.host, health.port)).close())
    except OSError as error:
        detail = f"{where}: {error.strerror or 'no such address'}; unless that is a running worker, set health.port"
        return [Finding("server", ok=False, warning=True, detail=detail)]
    return [Finding("server", ok=True, detail=f"{where} is free")]


async def _source(source: SourceSettings) -> list[Finding]:
    found = [_secrets(source), _timers(source)]
    return [*found, *await _in_time(_queue(source))]


def _secrets(source: SourceSettings) -> Finding:
    try:
        build_signature(source)
    except SettingsError as error:
        return Finding("secrets", ok=False, detail=str(error))
    return Finding("secrets", ok=True, detail=f"{len(source.signature.secrets)} set")


def _timers(source: SourceSettings) -> Finding:
    shown = ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in _times(source))
    return Finding("timers", ok=True, detail=shown)


def _times(source: SourceSettings) -> Iterator[tuple[str, float]]:
    if source.kind == "event_hubs":
        # It knows no leases: a place in the hub is kept instead.
        yield "checkpoint", source.checkpoints.interval
        yield "ownership", source.checkpoints.ownership_interval
    else:
        yield "visibility", source.visibility_timeout
        yield "heartbeat", source.visibility_timeout / 2
    yield "poll wait", source.poll_wait
    yield "handler", source.handler_timeout


async def _queue(settings: SourceSettings) -> list[Finding]:
    source = build_source(settings)
    try:
        await source.open()
        return await source.check()
    except ConsumerError as error:
        return [Finding("queue", ok=False, detail=str(error))]
    finally:
        await source.close()
