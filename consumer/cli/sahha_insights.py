"""`consumer sahha scores`, `biomarkers`, `archetypes`, `trends`, `comparisons`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel

from consumer.cli.api import answer_options, ask_sahha, limit_option, settings_of
from consumer.cli.api_input import TIME
from consumer.cli.api_output import print_list
from consumer.clients.sahha import SahhaClient

__all__ = ["archetypes", "biomarkers", "comparisons", "scores", "trends"]

_SCORES: Final = ("type", "state", "score", "scoreDateTime", "createdAtUtc")
_BIOMARKERS: Final = ("category", "type", "value", "unit", "periodicity", "aggregation", "startDateTime", "endDateTime")
_ARCHETYPES: Final = ("name", "value", "ordinality", "periodicity", "startDateTime", "endDateTime")
_TRENDS: Final = ("category", "name", "state", "unit", "periodicity", "trendStartDateTime", "trendEndDateTime")
_COMPARISONS: Final = ("category", "name", "value", "unit", "periodicity", "startDateTime", "endDateTime")


def _times(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--start` and `--end`."""
    function = click.option("--end", type=TIME, help="Until then: 2026-03-16, or 2026-03-16T08:00:00+12:00.")(function)
    return click.option("--start", type=TIME, help="From then: 2026-03-16, or 2026-03-16T08:00:00+12:00.")(function)


def _option(name: str, text: str, *, many: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(f"--{name}", metavar=name.upper(), multiple=many, help=text)


def _list(
    call: Callable[[SahhaClient], Coroutine[Any, Any, Sequence[BaseModel]]],
    columns: Sequence[str],
    *,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    found = ask_sahha(settings_of(config), call)
    print_list(found[:limit], columns, as_json=as_json, more=len(found) > limit)


@click.command(name="scores", epilog="Example: consumer sahha scores user-123 --type sleep --start 2026-03-01")
@click.argument("external_id")
@_option("type", "Only these, such as sleep, activity, readiness; may be repeated.", many=True)
@_times
@limit_option
@answer_options
def scores(
    *,
    external_id: str,
    type: Sequence[str],  # noqa: A002 - the option's name
    start: date | None,
    end: date | None,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List a profile's health scores.

    They go up to 1, which is the best.
    """
    _list(
        lambda client: client.scores(external_id, types=type, start=start, end=end),
        _SCORES,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@click.command(name="biomarkers", epilog="Example: consumer sahha biomarkers user-123 --category sleep --json")
@click.argument("external_id")
@_option("category", "Only these, such as activity or sleep; default all; may be repeated.", many=True)
@_option("type", "Only these, such as steps; may be repeated.", many=True)
@_times
@limit_option
@answer_options
def biomarkers(
    *,
    external_id: str,
    category: Sequence[str],
    type: Sequence[str],  # noqa: A002 - the option's name
    start: date | None,
    end: date | None,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List a profile's biomarkers."""
    _list(
        lambda client: client.biomarkers(external_id, categories=category, types=type, start=start, end=end),
        _BIOMARKERS,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@click.command(name="archetypes", epilog="Example: consumer sahha archetypes user-123 --periodicity monthly")
@click.argument("external_id")
@_option("name", "Only this one, such as sleep_duration.")
@_option("periodicity", "Only these: weekly or monthly.")
@_times
@limit_option
@answer_options
def archetypes(
    *,
    external_id: str,
    name: str | None,
    periodicity: str | None,
    start: date | None,
    end: date | None,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List a profile's archetypes."""
    _list(
        lambda client: client.archetypes(external_id, name=name, periodicity=periodicity, start=start, end=end),
        _ARCHETYPES,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@click.command(name="trends", epilog="Example: consumer sahha trends user-123 --category score --name sleep")
@click.argument("external_id")
@_option("category", "Only these: score or factor.")
@_option("name", "Only this one, such as sleep.")
@_option("periodicity", "Only these, such as weekly.")
@_times
@limit_option
@answer_options
def trends(
    *,
    external_id: str,
    category: str | None,
    name: str | None,
    periodicity: str | None,
    start: date | None,
    end: date | None,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List how scores and factors develop.

    --json shows every period.
    """
    _list(
        lambda client: client.trends(
            external_id, category=category, name=name, periodicity=periodicity, start=start, end=end
        ),
        _TRENDS,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@click.command(name="comparisons", epilog="Example: consumer sahha comparisons user-123 --name steps --json")
@click.argument("external_id")
@_option("category", "Only these: score or biomarker.")
@_option("name", "Only this one, such as steps.")
@_option("periodicity", "Only these: daily.")
@_times
@limit_option
@answer_options
def comparisons(
    *,
    external_id: str,
    category: str | None,
    name: str | None,
    periodicity: str | None,
    start: date | None,
    end: date | None,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    """List how scores and biomarkers compare.

    --json shows with whom: everybody, people like them, themselves before.
    """
    _list(
        lambda client: client.comparisons(
            external_id, category=category, name=name, periodicity=periodicity, start=start, end=end
        ),
        _COMPARISONS,
        limit=limit,
        as_json=as_json,
        config=config,
    )
