"""`consumer routes`: which handlers get which events."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from consumer.app import load_table
from consumer.cli.common import config_option, handlers_options, load
from consumer.cli.console import clear_errors, print_table
from consumer.dispatch import DispatchTable, Handler
from consumer.durations import format_duration
from consumer.events import Event, SahhaEvent, ThriveEvent, UnknownEvent
from consumer.events.reading import EVENT_CLASSES
from consumer.providers import SHIPPED_CLASSES, build_readers
from consumer.settings import Settings

__all__ = ["Row", "command", "rows"]

_COLUMNS: Final = ("event", "types", "handler", "time limit", "at once")


@dataclass(frozen=True, slots=True)
class Row:
    """One event class and what becomes of its events."""

    event: type[Event]
    event_types: Sequence[str]
    """The names that mean the class; none for `UnknownEvent`, which all others mean."""
    handlers: Sequence[Handler]
    otherwise: str | None
    """Without handlers: `ignored`, `ack` or the reason of the dead letter."""


def rows(table: DispatchTable, settings: Settings) -> list[Row]:
    """Every class of the table, and every shipped class of the providers there are sources of, `UnknownEvent` last."""
    own = sorted(table.event_types - {*SHIPPED_CLASSES, UnknownEvent}, key=lambda cls: cls.__qualname__)
    classes: list[type[Event]] = [*_shipped(table, settings), *own, UnknownEvent]
    return [
        Row(cls, _types(cls, settings), table.handlers_for(cls), _otherwise(cls, table, settings)) for cls in classes
    ]


@click.command(name="routes", epilog="Example: consumer routes --handlers handlers:table --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@handlers_options
def command(*, as_json: bool, config: Path | None, handlers: str | None, app_dir: str | None) -> None:
    """Show which handlers get which events, in which order, and what becomes of the others.

    An exact event type beats a glob, and a longer glob a shorter one.
    """
    settings = load(config, {"handlers": handlers, "app_dir": app_dir}).settings
    with clear_errors():
        table = load_table(settings.handlers, settings.app_dir)
        build_readers(settings, table)  # refuses event types that two classes claim
    found = rows(table, settings)
    if as_json:
        routes = [_as_dict(row, settings) for row in found]
        click.echo(json.dumps({"unknown_events": settings.unknown_events, "routes": routes}, indent=2))
        return
    print_table(_COLUMNS, [cells for row in found for cells in _cells(row, settings)])


def _shipped(table: DispatchTable, settings: Settings) -> list[type[Event]]:
    """Without a source anything may come; a class of a provider without one matters only if the table names it."""
    providers = {source.provider for source in settings.sources.values()} or {"thrive", "sahha"}
    return [cls for cls in SHIPPED_CLASSES if cls in table.event_types or _provider(cls) in providers]


def _provider(cls: type[Event]) -> str:
    return "sahha" if issubclass(cls, SahhaEvent) else "thrive"


def _types(cls: type[Event], settings: Settings) -> Sequence[str]:
    name = next((name for name, shipped in EVENT_CLASSES.items() if shipped is cls), None)
    given: Sequence[str] | None = getattr(settings.thrive.event_types, name) if name else None
    return given or (cls.event_types if issubclass(cls, ThriveEvent | SahhaEvent) else ())


def _otherwise(cls: type[Event], table: DispatchTable, settings: Settings) -> str | None:
    if table.handlers_for(cls):
        return None
    if table.ignores(cls):
        return "ignored"
    if cls is UnknownEvent:
        return "ack" if settings.unknown_events == "ack" else "unknown_event"
    return "unhandled"


_OTHERWISE: Final = {
    "ignored": "(ignored on purpose)",
    "ack": "(acknowledged: unknown_events is ack)",
    "unknown_event": "(dead letter: unknown_event)",
    "unhandled": "(dead letter: unhandled)",
}


def _as_dict(row: Row, settings: Settings) -> dict[str, Any]:
    handlers = [
        {"name": one.name, "timeout": _timeout(one, settings), "max_concurrency": one.max_concurrency}
        for one in row.handlers
    ]
    return {
        "event": row.event.__name__,
        "class": f"{row.event.__module__}.{row.event.__qualname__}",
        "event_types": list(row.event_types),
        "handlers": handlers,
        "otherwise": row.otherwise,
    }


def _cells(row: Row, settings: Settings) -> list[Sequence[str]]:
    types = ", ".join(row.event_types) or ("(all others)" if row.event is UnknownEvent else "-")
    if row.otherwise is not None:
        return [(row.event.__name__, types, _OTHERWISE[row.otherwise], "", "")]
    return [
        (
            row.event.__name__,
            types,
            one.name,
            format_duration(_timeout(one, settings)),
            str(one.max_concurrency or "unlimited"),
        )
        for one in row.handlers
    ]


def _timeout(handler: Handler, settings: Settings) -> float:
    return handler.timeout or settings.handler_timeout
