"""`consumer demo`: everything at once, embedded, in a folder of its own; on request through a configured queue."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from consumer.app import make_importable
from consumer.cli.common import WrongSettings, config_option, load, run_async
from consumer.cli.console import clear_errors
from consumer.demo import DemoResult, ProviderResult, run_demo
from consumer.demo_traffic import FEWEST
from consumer.ops.logs import configure_logging
from consumer.settings import SourceSettings

__all__ = ["command"]

_MEANINGS = {
    "unsigned": "no signature at all; never read as an event",
    "bad_signature": "signed by a stranger, or changed on its way",
    "stale": "authentic, but signed long ago or ahead",
    "unreadable": "no envelope, or not with the headers of its body",
    "invalid_event": "authentic, but a field is missing or wrong",
    "unknown_event": "a type nobody has a handler for yet",
    "unhandled": "a known type without a handler",
    "rejected": "a handler said that it can never be handled",
    "attempts_exhausted": "a handler failed every time (on purpose here)",
    "conflicting_duplicate": "the id of an earlier event, another body",
}
_PLATFORMS = {"thrive": "Thrive", "sahha": "Sahha"}
_NOT_FETCHED = ("priority_lists", "priorities")
"""Tables that only the platform's API fills."""
_SHOWN_VALUES = 8
_PLAIN_STEPS = 4


@click.command(name="demo", epilog="Example: consumer demo --keep try-out && cd try-out && consumer dead-letters list")
@click.option("--events", default=300, show_default=True, type=click.IntRange(FEWEST, 100_000), help="Honest events.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same events.")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep everything in this folder, which must be empty or new; else it goes with the demo.",
)
@click.option(
    "--source",
    metavar="NAME",
    help="Send them through this source of your settings, which must be empty, instead of an embedded queue.",
)
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *, events: int, seed: int, keep: Path | None, source: str | None, config: Path | None, as_json: bool
) -> None:
    """Sign sample events, consume them with the shipped handlers and show what became of them.

    Events of both platforms, Thrive's and Sahha's. Needs no queue, no database server, no network and no settings. All
    data are invented.

    With --source it is the events of that source's provider: they are signed with its first secret, sent to its queue
    and consumed from there; your handlers, database and dead letters are not touched. Use a queue of no importance: a
    worker that reads it gets the invented events too, and what others send to it meanwhile is consumed. The demo
    refuses to begin unless the queue is empty.
    """
    configure_logging(level="critical")
    through = _configured(source, config)
    with _folder(keep) as folder, _progress() as progress:
        result = run_async(lambda: run_demo(folder, events=events, seed=seed, progress=progress, through=through))
    if as_json:
        click.echo(json.dumps(_as_dict(result, keep)))
    else:
        _show(Console(highlight=False), result, keep, elsewhere=through is not None)


def _configured(source: str | None, config: Path | None) -> SourceSettings | None:
    """The settings of the queue to go through, with all they inherit; None for an embedded one."""
    if source is None:
        if config is not None:
            raise WrongSettings("--config: the demo has settings of its own, unless --source names a queue of yours")
        return None
    settings = load(config).settings
    # A source may be a class of the user's.
    make_importable(settings.app_dir)
    with clear_errors():
        return settings.source(source)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="consumer-demo-") as name:
            yield Path(name)
        return
    if keep.exists() and any(keep.iterdir()):
        raise WrongSettings(f"--keep: {keep} is not empty, and the demo overwrites nothing")
    yield keep


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on a terminal; a few plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("consuming", total=None)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield show


def _plain_progress() -> Any:
    said = -1

    def show(done: int, total: int) -> None:
        nonlocal said
        step = done * _PLAIN_STEPS // total
        if step > said:
            said = step
            click.echo(f"{done} of {total} messages settled", err=True)

    return show


def _as_dict(result: DemoResult, keep: Path | None) -> dict[str, Any]:
    return {**asdict(result), "seconds": round(result.seconds, 3), "folder": str(keep) if keep else None}


def _show(console: Console, result: DemoResult, keep: Path | None, *, elsewhere: bool) -> None:
    where = f" through source {result.source} ({escape(result.kind)})" if elsewhere else ""
    console.print(
        f"\n[bold]{result.messages} messages in {result.seconds:.1f} s[/]{where}: each one verified, "
        "and handled once or put aside. None is lost."
    )
    for title, table in _tables(result, tell_platform=not elsewhere):
        console.print(f"\n[bold]{title}[/]")
        console.print(table)
    console.print(f"\nDead letters: {keep / 'dead-letters' if keep else 'gone with the demo; --keep DIR keeps them'}")
    console.print("\n[bold]Next[/]")
    for line in _next_elsewhere(result.source) if elsewhere else _next(keep):
        console.print(f"  {line}", soft_wrap=True)


def _tables(result: DemoResult, *, tell_platform: bool) -> Iterator[tuple[str, Table]]:
    for one in result.providers:
        of = f", of {_PLATFORMS[one.provider]}'s {one.messages} messages" if tell_platform else ""
        yield f"Took effect{of}", _handled(one)
        yield f"Put aside, with the reason{of}", _put_aside(one)
    yield "What the handlers keep, in the worker's database", _store(result)
    if result.member is not None:
        yield f"The latest lab values of {result.member} (invented)", _values(result)
    if result.scored_member is not None:
        yield f"The latest scores of {result.scored_member} (invented)", _scores(result)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 0, 0, 2))
    for name in columns:
        table.add_column(name, justify="right" if name in ("events", "rows", "value", "score") else "left")
    return table


def _handled(result: ProviderResult) -> Table:
    table = _table("events", "type")
    for name, count in result.handled.items():
        table.add_row(str(count), name)
    table.add_row(str(result.duplicates), "[dim]duplicates: had taken effect before, nothing done[/]")
    table.add_row(str(result.retried), "[dim]failed attempts that were tried again[/]")
    return table


def _put_aside(result: ProviderResult) -> Table:
    table = _table("events", "reason", "what it means")
    for reason, count in result.dead_letters.items():
        table.add_row(str(count), reason, f"[dim]{_MEANINGS.get(reason, '')}[/]")
    return table


def _store(result: DemoResult) -> Table:
    table = _table("rows", "table")
    for name, count in result.store.items():
        if count or name not in _NOT_FETCHED:
            table.add_row(str(count), name)
    return table


def _values(result: DemoResult) -> Table:
    table = _table("parameter", "value", "unit", "status")
    for value in result.values[:_SHOWN_VALUES]:
        colour = "green" if value.status == "In Range" else "yellow"
        table.add_row(value.parameter, f"{value.value:g}", value.unit, f"[{colour}]{value.status}[/]")
    if len(result.values) > _SHOWN_VALUES:
        table.add_row(f"[dim]and {len(result.values) - _SHOWN_VALUES} more[/]", "", "", "")
    return table


def _scores(result: DemoResult) -> Table:
    table = _table("type", "day", "score", "state")
    for one in result.scores:
        table.add_row(one.type, one.day, "-" if one.score is None else f"{one.score:.2f}", one.state or "-")
    return table


def _next_elsewhere(source: str) -> list[str]:
    return [
        f"consumer check --source {source}     [dim]whether a worker with your own handlers could run[/]",
        f"consumer run --source {source}       [dim]that worker[/]",
    ]


def _next(keep: Path | None) -> list[str]:
    if keep is None:
        return [
            "consumer demo --keep try-out     [dim]the same, and look around in it afterwards[/]",
            "consumer init my-project         [dim]a project of your own: handlers, settings, a test, a Dockerfile[/]",
            "consumer run --help              [dim]the worker itself[/]",
        ]
    return [
        f"cd {shlex.quote(str(keep))}",
        "consumer dead-letters list                      [dim]what was put aside[/]",
        "consumer replay --reason attempts_exhausted     [dim]this folder has no bug: try again[/]",
        "consumer publish events samples/lab-result.json && consumer run --until-idle",
        "consumer init ../my-project                     [dim]a project of your own[/]",
    ]
