"""`consumer forget`: erase a member from everything the worker and its handlers keep."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import click
import structlog

from consumer.app import load_table, opened_database
from consumer.cli.common import Failed, config_option, handlers_options, load, run_async
from consumer.cli.console import print_table, progress
from consumer.database import Database
from consumer.dead_letters.archive import Archive, Unseal
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.queue_archive import QueueArchive
from consumer.dead_letters.sealing import unsealer
from consumer.dispatch import DispatchTable
from consumer.errors import DatabaseError, SettingsError
from consumer.forgetting import forget_dead_letters, forget_kept, forget_parked, refuse_sealed
from consumer.inbox import Inbox
from consumer.lanes import lane_of_user
from consumer.member import Member
from consumer.ops.logs import configure_logging
from consumer.parked import ParkedEvents, parked_sources
from consumer.parking import ParkedLanes
from consumer.providers import build_readers, build_route
from consumer.route import Route
from consumer.settings import Settings
from consumer.whose import Ownership

__all__ = ["command"]

_log = structlog.get_logger("forget")

_LONGEST_ID: Final = 4096
_MOST_LINES: Final = 20
"""Of what is damaged: a file sealed for another key has as many as it has lines."""
_NO_FUNCTION: Final = (
    "the handlers register no function that forgets, so what they keep would stay: "
    "write one (@table.forget), or say --no-handlers if they keep nothing"
)
_NOTE: Final = (
    "not looked at: messages that wait in queues, backups, logs of others; "
    "what the platform still sends of the member takes effect, so have it stop first"
)


@click.command(
    name="forget",
    epilog="Example: consumer forget --dry-run - < user-id.txt, then consumer forget --yes - < user-id.txt",
)
@click.argument("user_id", metavar="USER_ID")
@click.option(
    "--provider", type=click.Choice(["thrive", "sahha"]), help="Only what came from this platform; default all."
)
@click.option("--profile-id", "profile_ids", multiple=True, help="Sahha's own id of the member; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Erase nothing: show what would be.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--queue", "queues", metavar="SOURCE", multiple=True, help="Search this source's dead-letter queue too; repeatable."
)
@click.option("--no-handlers", is_flag=True, help="Leave alone what the handlers keep.")
@click.option("--no-vacuum", is_flag=True, help="SQLite: do not rewrite the file, so bytes of what was erased stay.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
@handlers_options
@click.pass_context
def command(
    context: click.Context,
    *,
    user_id: str,
    provider: str | None,
    profile_ids: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    queues: tuple[str, ...],
    no_handlers: bool,
    no_vacuum: bool,
    as_json: bool,
    config: Path | None,
    handlers: str | None,
    app_dir: str | None,
) -> None:
    """Erase a member from the health store, the parked events and the dead letters, and say how much went.

    USER_ID is your own id of the member (with Sahha the external id); `-` reads it from standard input, where the
    process list does not show it. Sealed dead letters need dead_letters.identity_file. What stays are hashes in the
    inbox. Run it again whenever you like: it finds nothing then. Exit code 1 when something could not be erased yet.
    """
    if provider == "thrive" and profile_ids:
        raise click.UsageError("--profile-id is of Sahha's profiles, so it does not go with --provider thrive")
    if not all(profile_ids):
        raise click.UsageError("--profile-id: expected a text that is not empty")
    if not (dry_run or yes or (user_id != "-" and sys.stdin.isatty())):
        raise click.UsageError("there is no terminal to ask at: look with --dry-run, then add --yes")
    member = Member(_given(user_id), provider=provider, profile_ids=profile_ids, dry_run=dry_run)
    settings = load(config, {"handlers": handlers, "app_dir": app_dir}).settings
    configure_logging(level=settings.log.level, form=settings.log.format)
    if not (dry_run or yes or click.confirm("erase all that is kept of this member?", err=True)):
        raise Failed("nothing was erased")
    work = _Forget(settings, member, queues, handlers=not no_handlers, vacuum=not no_vacuum)
    report = run_async(work.run, uvloop=settings.uvloop)
    report.print(as_json=as_json)
    context.exit(1 if report.left else 0)


def _given(user_id: str) -> str:
    try:
        if user_id == "-":
            # An editor's mark before the text is no part of the id.
            user_id = sys.stdin.readline(_LONGEST_ID + 3).removeprefix("\ufeff").rstrip("\r\n")
        user_id.encode()  # where the locale is none, other bytes come as halves of characters
    except UnicodeError:
        raise click.UsageError("USER_ID: expected UTF-8") from None
    if not user_id or len(user_id) > _LONGEST_ID:
        raise click.UsageError(f"USER_ID: expected 1 to {_LONGEST_ID} characters")
    return user_id


@dataclass(frozen=True, slots=True)
class _Found:
    where: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class _Left(_Found):
    why: str


@dataclass(slots=True)
class _Report:
    """Counts only: it may be kept where the member's id may not."""

    dry_run: bool
    erased: list[_Found] = field(default_factory=list)
    left: list[_Left] = field(default_factory=list)

    def found(self, where: str, what: str, count: int) -> None:
        self.erased.append(_Found(where, what, count))

    def remains(self, where: str, what: str, count: int, why: str) -> None:
        if count:
            self.left.append(_Left(where, what, count, why))

    def log(self) -> None:
        counts: dict[str, int] = {}
        for one in self.erased:
            counts[one.where] = counts.get(one.where, 0) + one.count
        event = "member_looked_for" if self.dry_run else "member_forgotten"
        _log.info(event, erased=counts, left=sum(one.count for one in self.left))

    def print(self, *, as_json: bool) -> None:
        if as_json:
            found = {"erased": list(map(asdict, self.erased)), "left": list(map(asdict, self.left))}
            click.echo(json.dumps({"dry_run": self.dry_run, "complete": not self.left} | found))
        else:
            became = "would be erased" if self.dry_run else "erased"
            rows = [(one.where, one.what, str(one.count), became) for one in self.erased]
            rows += [(one.where, one.what, str(one.count), f"left: {one.why}") for one in self.left]
            print_table(("where", "what", "count", "became"), rows)
        if not self.left and not any(one.count for one in self.erased):
            click.echo("nothing of this id was found; ids are compared as they are, capitals too", err=True)
        click.echo(_NOTE, err=True)


class _Forget:
    """One run of the command. What may bring events back goes first, what they would have changed last."""

    def __init__(
        self, settings: Settings, member: Member, queues: Sequence[str], *, handlers: bool, vacuum: bool
    ) -> None:
        self._settings = settings
        self._member = member
        self._queues = queues
        self._handlers = handlers
        self._vacuum = vacuum and not member.dry_run
        self._report = _Report(member.dry_run)

    async def run(self) -> _Report:
        """Raises `ConsumerError`; what was erased by then is, and another run does the rest."""
        settings = self._settings
        table = load_table(settings.handlers, settings.app_dir) if self._handlers else DispatchTable()
        if self._handlers and not table.forgetters:
            raise Failed(_NO_FUNCTION)
        routes = _routes(settings, table)
        ownership = Ownership(self._member, user_fields=settings.thrive.fields.user_id, routes=routes)
        identity = settings.dead_letters.identity_file
        unseal = None if identity is None else unsealer(identity)
        async with AsyncExitStack() as stack:
            archives = [await stack.enter_async_context(_closing(one)) for one in _archives(settings, self._queues)]
            database = await stack.enter_async_context(opened_database(settings, table))
            inbox = Inbox(database)
            if unseal is None:
                for archive in archives:
                    await asyncio.to_thread(refuse_sealed, archive, self._member)
            await self._parked(database, inbox, routes, ownership)
            for archive in archives:
                await self._dead_letters(archive, inbox, ownership, unseal)
            for name, count in (await forget_kept(inbox, table.forgetters, self._member)).items():
                self._report.found("handlers", name, count)
            await self._wipe(database)
        self._report.log()
        return self._report

    async def _parked(
        self, database: Database, inbox: Inbox, routes: Mapping[str, Route], ownership: Ownership
    ) -> None:
        report = self._report
        for name in await parked_sources(database):
            parked = ParkedEvents(database, name, owner="forget")
            done = await forget_parked(parked, inbox, routes.get(name), ownership, dry_run=self._member.dry_run)
            report.found("parked", name, done.erased)
            report.remains("parked", name, done.held, "a worker has it in hand: run this again in some minutes")
            why = "in one message with others' events: run this again when it has been handled"
            report.remains("parked", name, done.shared, why)

    async def _dead_letters(self, archive: Archive, inbox: Inbox, ownership: Ownership, unseal: Unseal | None) -> None:
        with progress("dead letters looked at", None) as advance:
            done = await asyncio.to_thread(
                forget_dead_letters, archive, self._member, ownership, unseal=unseal, looked_at=advance
            )
        for problem in done.problems[:_MOST_LINES]:
            click.echo(f"kept: {problem}", err=True)
        if len(done.problems) > _MOST_LINES:
            click.echo(f"kept: {len(done.problems) - _MOST_LINES} more of this kind", err=True)
        await self._open_lanes(inbox, done.lanes)
        report, where = self._report, archive.where
        report.found("dead letters", where, done.erased)
        report.remains(
            "dead letters", where, done.left, "a worker still writes to its segment: run this again in an hour"
        )
        report.remains("dead letters", where, done.unjudged, "cannot be looked into: see the lines above")
        why = "in one message with others' events: replay it, or let it grow too old, then run this again"
        report.remains("dead letters", where, done.shared, why)
        if isinstance(archive, QueueArchive) and archive.more:
            report.remains("dead letters", where, 1, "there is more than can be held at once: run this again")

    async def _open_lanes(self, inbox: Inbox, lanes: Iterable[tuple[str, str | None]]) -> None:
        """Let lanes go on that stood still for a dead letter which nobody can replay any more."""
        for name, key in lanes:
            source = self._settings.source(name) if name in self._settings.sources else None
            if source is not None and source.lane_on_dead_letter == "park":
                # A message with several members' events has the lane of the first of them, which its dead letter tells.
                own = lane_of_user(self._member.user_id) if source.order_by == "member" else None
                for lane in filter(None, {own, key}):
                    await ParkedLanes(inbox, name).open(lane)

    async def _wipe(self, database: Database) -> None:
        if not self._vacuum:
            return
        try:
            await database.wipe()
        except DatabaseError as error:
            why = f"bytes of erased rows are in it ({error}): run this again when it is less busy, and has room"
            self._report.remains("database", "file", 1, why)


def _routes(settings: Settings, table: DispatchTable) -> dict[str, Route]:
    """How the messages of each source are opened; one without a secret here is left out, and its messages searched."""
    readers = build_readers(settings, table)
    routes = {}
    for name in settings.sources:
        with suppress(SettingsError):
            routes[name] = build_route(settings.source(name), settings, table, readers)
    return routes


def _archives(settings: Settings, queues: Sequence[str]) -> Iterator[Archive]:
    """The configured store, what a store of queues puts into files, and the queues that are named."""
    letters = settings.dead_letters
    yield open_archive(settings)
    if letters.kind != "queue":
        for name in queues:
            yield open_archive(settings, queue=name)
    elif letters.path.exists():
        yield open_archive(settings, [letters.path])


@asynccontextmanager
async def _closing(archive: Archive) -> AsyncIterator[Archive]:
    try:
        yield archive
    finally:
        await asyncio.to_thread(archive.close)
