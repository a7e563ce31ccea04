"""`consumer replay`: handle dead letters again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import structlog

from consumer.app import enter_lifespans, enter_platforms, load_table, opened_database
from consumer.cli.common import Failed, config_option, handlers_options, load, queue_option, run_async
from consumer.cli.console import clear_errors, print_table, progress
from consumer.dead_letters.archive import Archive, Entry, Unseal
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.fates import DONE
from consumer.dead_letters.filter_options import filter_options
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.queue_archive import QueueArchive
from consumer.dead_letters.record import SealedDeadLetter
from consumer.dead_letters.replaying import FATES, READY, Opener, Replay, select
from consumer.dead_letters.sealing import unsealer
from consumer.dispatch import DispatchTable
from consumer.inbox import Inbox
from consumer.ops.logs import configure_logging
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import open_spans
from consumer.ops.tracing_sdk import exported_spans
from consumer.outcomes import REASONS
from consumer.parking import ParkedLanes
from consumer.pipeline import Pipeline
from consumer.providers import build_readers, build_route
from consumer.route import Route
from consumer.running import Runner
from consumer.settings import Settings

__all__ = ["command"]

_log = structlog.get_logger("replay")

_READY_TEXT: Final = "it opens; its handlers would run"


@click.command(name="replay", epilog="Example: consumer replay --reason attempts_exhausted --since 24h --dry-run")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(exists=True, path_type=Path))
@filter_options
@queue_option
@click.option("--dry-run", is_flag=True, help="Change nothing: show which lines are meant, and whether they open now.")
@click.option("--accept-stale", is_flag=True, help="Check signatures but not their age: for lines with reason stale.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@handlers_options
@click.pass_context
def command(
    context: click.Context,
    *,
    paths: tuple[Path, ...],
    chosen: Filter,
    queue: str | None,
    dry_run: bool,
    accept_stale: bool,
    yes: bool,
    as_json: bool,
    config: Path | None,
    handlers: str | None,
    app_dir: str | None,
) -> None:
    """Handle dead letters again, from the configured store or from PATHs (segment files or folders of them).

    A line enters as its message once did: the signature is checked, its age as of the time its queue accepted it, and
    what took effect before is not handled again. What is handled is done, and skipped by the next replay; what fails
    stays. Ctrl-C finishes the lines in hand. Exit code 1 when a line is not done.

    What is read from a dead-letter queue is held while the replay lasts; handled it is deleted, else given back.
    """
    if queue is not None and paths:
        raise click.UsageError("--queue and PATHs exclude each other")
    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask at: look with --dry-run, then add --yes")
    settings = load(config, {"handlers": handlers, "app_dir": app_dir}).settings
    configure_logging(level=settings.log.level, form=settings.log.format)
    with contextlib.ExitStack() as stack:
        with clear_errors():
            archive = open_archive(settings, paths, queue=queue)
            stack.callback(archive.close)
            plan = _plan(settings, archive, chosen, accept_stale=accept_stale)
        if dry_run:
            counts = _rehearse(plan)
            _print_rehearsal(counts, plan, as_json=as_json)
            return
        if plan.lines and not yes and not click.confirm(f"replay {plan.lines} lines?", err=True):
            raise Failed("nothing was replayed")
        done = run_async(lambda: _replay(plan), uvloop=settings.uvloop) if plan.lines else _Done(Counter())
    left = max(0, plan.lines - done.counts.total())
    _print_result(done.counts, plan, left=left, as_json=as_json)
    if done.trouble is not None:
        raise Failed(f"stopped by trouble that is no line's fault ({done.trouble}): {left} lines are left")
    if done.signal is not None:
        context.exit(128 + done.signal)
    context.exit(1 if plan.damaged or set(done.counts) - DONE else 0)


@dataclass(slots=True)
class _Plan:
    """What is to be replayed, and by which rules."""

    settings: Settings
    archive: Archive
    chosen: Filter
    opener: Opener
    table: DispatchTable
    unseal: Unseal | None
    lines: int = 0
    damaged: int = 0
    """Lines that cannot be read, but for those that were never finished."""


@dataclass(slots=True)
class _Done:
    counts: Counter[str]
    trouble: str | None = None
    signal: int | None = None


@dataclass(slots=True)
class _Survey:
    lines: int = 0
    damaged: int = 0
    sealed: int = 0
    sources: set[str] = field(default_factory=set)


def _plan(settings: Settings, archive: Archive, chosen: Filter, *, accept_stale: bool) -> _Plan:
    """Find what is meant. Raises `ConsumerError`."""
    letters = settings.dead_letters
    unseal = unsealer(letters.identity_file) if letters.identity_file is not None else None
    survey = _survey(archive, chosen, unseal)
    table = load_table(settings.handlers, settings.app_dir)
    opener = Opener(
        _routes(settings, table, survey.sources),
        unseal=unseal,
        accept_stale=accept_stale,
        retention=settings.inbox.retention,
        max_age=letters.max_age,
    )
    if survey.sealed and unseal is None:
        click.echo(f"{_lines(survey.sealed)} sealed: set dead_letters.identity_file to replay them", err=True)
    return _Plan(settings, archive, chosen, opener, table, unseal, survey.lines, survey.damaged)


def _survey(archive: Archive, chosen: Filter, unseal: Unseal | None) -> _Survey:
    """Count the lines, and tell on standard error which cannot be read."""
    survey = _Survey()
    for found in select(archive, chosen, unseal=_for_users(chosen, unseal)):
        if isinstance(found, Entry):
            survey.lines += 1
            survey.sealed += isinstance(found.record, SealedDeadLetter)
            survey.sources.add(found.record.source)
        else:
            survey.damaged += not found.half
            click.echo(str(found), err=True)
    return survey


def _for_users(chosen: Filter, unseal: Unseal | None) -> Unseal | None:
    """Sealed lines are opened for choosing only when that needs it."""
    return unseal if chosen.users else None


def _routes(settings: Settings, table: DispatchTable, names: set[str]) -> dict[str, Route]:
    """How the messages of these sources are opened; those that are not configured are left out."""
    readers = build_readers(settings, table)
    known = sorted(names & set(settings.sources))
    return {name: build_route(settings.source(name), settings, table, readers) for name in known}


def _rehearse(plan: _Plan) -> Counter[tuple[str, str, str]]:
    """How many lines of each reason and type would come to what."""
    counts: Counter[tuple[str, str, str]] = Counter()
    now = datetime.now(UTC)
    lines = select(plan.archive, plan.chosen, unseal=_for_users(plan.chosen, plan.unseal))
    with clear_errors(), progress("checked", plan.lines) as advance:
        for found in lines:
            if isinstance(found, Entry):
                record = found.record
                counts[record.reason, record.event_type or "-", plan.opener.open(found, now=now).prospect] += 1
                advance(1)
    return counts


async def _replay(plan: _Plan) -> _Done:
    with progress("replayed", plan.lines) as advance:
        # Once more: a progress bar wants what is logged to pass through it.
        configure_logging(level=plan.settings.log.level, form=plan.settings.log.format)

        def told(entry: Entry, fate: str) -> None:
            advance(1)
            if fate not in DONE:
                record = entry.record
                _log.warning("not_replayed", id=record.id, source=record.source, reason=record.reason, fate=fate)

        async with exported_spans(), _opened(plan, told) as replay:
            with _signals(replay) as received:
                await _run(plan, replay)
    return _Done(replay.counts, replay.trouble, received[0] if received else None)


async def _run(plan: _Plan, replay: Replay) -> None:
    """Replay what the archive gives. A queue that keeps order gives more of a group once the first of it are done."""
    done = -1
    while not replay.stopping and replay.counts.total() > done:
        done = replay.counts.total()
        lines = select(plan.archive, plan.chosen, unseal=_for_users(plan.chosen, plan.unseal), hold=True)
        await replay.run(lines)
        if plan.chosen.limit is not None or not (isinstance(plan.archive, QueueArchive) and plan.archive.more):
            return


@contextlib.asynccontextmanager
async def _opened(plan: _Plan, told: Callable[[Entry, str], None]) -> AsyncIterator[Replay]:
    """Everything a worker has for handling events, but for sources."""
    settings = plan.settings
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened_database(settings))
        inbox = Inbox(database)
        states = await enter_lifespans(stack, plan.table)
        platforms = await enter_platforms(stack, settings)
        spans = open_spans(TracedQueue.of(settings.source(name)) for name in settings.sources)
        runner = Runner(states=states, platforms=platforms, meter=_NoMeter(), spans=spans)
        parking = [name for name in settings.sources if settings.source(name).lane_on_dead_letter == "park"]
        yield Replay(
            archive=plan.archive,
            opener=plan.opener,
            pipeline=Pipeline(database=database, inbox=inbox, runner=runner),
            lanes={name: ParkedLanes(inbox, name) for name in parking},
            told=told,
        )


class _NoMeter:
    def handler_ran(self, name: str, seconds: float) -> None:
        """Nobody measures a replay."""

    def handler_failed(self, name: str, error: BaseException) -> None:
        """Nor counts what fails in one."""


@contextlib.contextmanager
def _signals(replay: Replay) -> Iterator[list[int]]:
    """First SIGINT or SIGTERM: finish the lines in hand. Second: exit at once with 128 + its number."""
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def on(number: int) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        replay.stop()

    chosen = (signal.SIGINT, signal.SIGTERM)
    for number in chosen:
        loop.add_signal_handler(number, on, number)
    try:
        yield received
    finally:
        for number in chosen:
            loop.remove_signal_handler(number)


def _print_rehearsal(counts: Mapping[tuple[str, str, str], int], plan: _Plan, *, as_json: bool) -> None:
    ordered = sorted(counts.items())
    if as_json:
        found = [
            {"reason": reason, "event_type": None if kind == "-" else kind, "prospect": prospect, "lines": count}
            for (reason, kind, prospect), count in ordered
        ]
        click.echo(json.dumps({"dry_run": True, "lines": plan.lines, "damaged": plan.damaged, "found": found}))
        return
    rows = [(reason, kind, str(count), prospect, _meaning(prospect)) for (reason, kind, prospect), count in ordered]
    if rows:
        print_table(("reason", "type", "lines", "now", "meaning"), rows)
    click.echo(f"{_lines(plan.lines)} meant; nothing was changed", err=True)


def _print_result(counts: Mapping[str, int], plan: _Plan, *, left: int, as_json: bool) -> None:
    if as_json:
        found = {"lines": plan.lines, "fates": dict(sorted(counts.items())), "left": left, "damaged": plan.damaged}
        click.echo(json.dumps({"dry_run": False} | found))
    elif not plan.lines:
        click.echo("nothing to replay", err=True)
    elif counts:
        rows = [(fate, str(count), _meaning(fate)) for fate, count in sorted(counts.items())]
        print_table(("fate", "lines", "meaning"), rows)


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{count} lines are"


def _meaning(fate: str) -> str:
    if fate == READY:
        return _READY_TEXT
    return FATES.get(fate) or ("refused again for this reason" if fate in REASONS else "")
