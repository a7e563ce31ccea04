"""`consumer dead-letters`: look at what was put aside, copy it, delete it."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from datetime import UTC
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumer.cli.common import queue_option
from consumer.dead_letters.archive import Entry, Unseal
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.filter_options import filter_options
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.queue_archive import NO_USERS, QueueArchive
from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, encode, open_sealed
from consumer.dead_letters.sealing import unsealer
from consumer.errors import ConsumerError, DeadLetterError, NotConfigured, SettingsError
from consumer.files import private_file
from consumer.settings import DeadLetterSettings, Settings
from consumer.settings_loading import load_settings

__all__ = ["command"]

_COLUMNS: Final = ("id", "reason", "type", "source", "put aside", "attempts", "fate")
_SHORT_COLUMNS: Final = ("id", "reason", "type", "source", "aside (UTC)", "tried", "fate")
"""For a terminal of 80 columns."""
_ROWS_PER_TABLE: Final = 1000
_SHOWN_OF_ID: Final = 10
_SHORTEST_ID: Final = 4
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PRIVATE: Final = ("message", "attributes", "event_id", "user_id", "detail")
"""Shown only with --reveal."""


@click.group(
    name="dead-letters",
    epilog="Example: consumer dead-letters list --reason attempts_exhausted --since 24h",
)
def command() -> None:
    """Look at what was put aside, copy it, delete it. `consumer replay` handles it again."""


def _config_option(function: Callable[..., Any]) -> Callable[..., Any]:
    text = "TOML file; default consumer.toml, if it is there."
    return click.option("--config", type=click.Path(path_type=Path), help=text)(function)


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command.command(name="list", epilog="Example: consumer dead-letters list --type 'lab.*' --since 2h --json")
@filter_options
@queue_option
@_json_option
@_config_option
def list_(*, chosen: Filter, queue: str | None, as_json: bool, config: Path | None) -> None:
    """List dead letters, oldest segment first: never what is in them."""
    with _clear_errors(), contextlib.closing(_entries(_settings(config), chosen, queue)) as entries:
        if as_json:
            _print_array(_summary(entry) for entry in entries)
        elif sys.stdout.isatty():
            _print_tables(entries)
        else:
            for cells in chain([_COLUMNS], map(_cells, entries)):
                click.echo("\t".join(cells))


@command.command(epilog="Example: consumer dead-letters show 3f0a9c --reveal")
@click.argument("identity", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the message, what was wrong with it, its ids and headers too.")
@queue_option
@_json_option
@_config_option
def show(*, identity: str, reveal: bool, queue: str | None, as_json: bool, config: Path | None) -> None:
    """Show one dead letter. The first characters of an ID are enough if they are nobody else's."""
    with _clear_errors():
        settings = _settings(config)
        entry = _find(settings, identity, queue)
        record = entry.record
        if reveal and isinstance(record, SealedDeadLetter):
            record = open_sealed(record, _unsealer(settings.dead_letters))
        details = _details(entry, record, reveal=reveal)
        if as_json:
            click.echo(json.dumps(details, indent=2, ensure_ascii=True))
        else:
            _print_details(details, record if reveal else None)
            if not reveal:
                click.echo("not shown: message, ids, headers, what was wrong with it; --reveal shows them", err=True)


@command.command(epilog="Example: consumer dead-letters export yesterday.jsonl --since 24h --reason stale")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@filter_options
@queue_option
@_config_option
def export(*, file: Path, chosen: Filter, queue: str | None, config: Path | None) -> None:
    """Copy dead letters, unchanged, to a new FILE of mode 0600 (-: standard output), which `replay` reads.

    Sealed lines stay sealed. An existing file is never overwritten.
    """
    with _clear_errors(), contextlib.closing(_entries(_settings(config), chosen, queue)) as entries:
        first = list(islice(entries, 1))  # what is wrong shows before a file is made
        lines = (entry.raw.rstrip(b"\n") + b"\n" for entry in chain(first, entries))
        if str(file) == "-":
            sys.stdout.buffer.writelines(lines)
            return
        count = 0
        try:
            with private_file(file, exclusive=True) as target:
                for count, line in enumerate(lines, 1):  # noqa: B007  (the count is what is wanted)
                    target.write(line)
        except FileExistsError:
            raise DeadLetterError(f"{file} is there already, and nothing is overwritten") from None
        except OSError as error:
            raise DeadLetterError(f"{file}: {error.strerror}") from None
        click.echo(f"{count} dead {'letter' if count == 1 else 'letters'} written to {file}", err=True)


@command.command(
    name="purge",
    epilog="Example: consumer dead-letters purge --handled --until 30d --yes",
)
@filter_options
@click.option("--handled", is_flag=True, help="Only those that a replay has handled; counts as a filter.")
@click.option("--yes", is_flag=True, help="Really delete.")
@queue_option
@_json_option
@_config_option
def purge_(*, chosen: Filter, handled: bool, yes: bool, queue: str | None, as_json: bool, config: Path | None) -> None:
    """Delete dead letters for good; needs a filter and --yes.

    Segments that a running worker still writes to are left alone, and so are lines that cannot be read.
    """
    if chosen.empty and not handled:
        raise click.UsageError("purge needs a filter, such as --until 60d or --handled")
    if not yes:
        raise click.UsageError("purge deletes for good: look with `dead-letters list` first, then add --yes")
    with _clear_errors():
        settings = _settings(config)
        goes = chosen.chooser(_for_users(chosen, settings.dead_letters))
        with contextlib.closing(open_archive(settings, queue=queue)) as archive:
            if chosen.users and isinstance(archive, QueueArchive):
                raise DeadLetterError(NO_USERS)
            done = archive.purge(goes, handled=handled, limit=chosen.limit)
        for problem in done.problems:
            click.echo(f"kept: {problem}", err=True)
        counts = {"removed": done.removed, "kept": done.kept, "segments_in_use": len(done.skipped)}
        if done.skipped:
            click.echo(
                "a segment in use is one that a worker writes to, for dead_letters.roll_after: try later", err=True
            )
        text = ", ".join(f"{name.replace('_', ' ')}: {count}" for name, count in counts.items())
        click.echo(json.dumps(counts) if as_json else text)


class _WrongSettings(click.ClickException):
    exit_code = 2


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise _WrongSettings(str(error)) from None
    except ConsumerError as error:
        raise click.ClickException(str(error)) from None


def _settings(config: Path | None) -> Settings:
    return load_settings(config=config).settings


def _for_users(chosen: Filter, settings: DeadLetterSettings) -> Unseal | None:
    """Sealed ones are opened for choosing only when that needs it."""
    return _unsealer(settings) if chosen.users and settings.identity_file is not None else None


def _unsealer(settings: DeadLetterSettings) -> Unseal:
    if settings.identity_file is None:
        raise NotConfigured("dead_letters.identity_file: needed to open sealed dead letters")
    return unsealer(settings.identity_file)


def _entries(settings: Settings, chosen: Filter, queue: str | None) -> Generator[Entry, None, None]:
    """The chosen dead letters; what cannot be read is told on stderr."""
    unseal = _for_users(chosen, settings.dead_letters)
    with (
        contextlib.closing(open_archive(settings, queue=queue)) as archive,
        contextlib.closing(archive.read(chosen, unseal=unseal)) as found,
    ):
        for one in found:
            if isinstance(one, Entry):
                yield one
            else:
                click.echo(str(one), err=True)


def _find(settings: Settings, identity: str, queue: str | None) -> Entry:
    if len(identity) < _SHORTEST_ID:
        raise click.UsageError(f"an ID needs {_SHORTEST_ID} characters or more")
    found: Entry | None = None
    with contextlib.closing(_entries(settings, Filter(), queue)) as entries:
        for entry in entries:
            if entry.record.id == identity:
                return entry
            if entry.record.id.startswith(identity):
                if found is not None:
                    raise DeadLetterError(f"several dead letters have an id that starts with {identity}")
                found = entry
    if found is None:
        raise DeadLetterError(f"no dead letter has the id {identity}")
    return found


def _summary(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "id": record.id,
        "reason": record.reason,
        "event_type": record.event_type,
        "source": record.source,
        "provider": record.provider,
        "dead_lettered_at": record.dead_lettered_at.isoformat(),
        "attempts": record.attempts,
        "fate": entry.fate,
        "sealed": isinstance(record, SealedDeadLetter),
    }


def _cells(entry: Entry) -> tuple[str, ...]:
    record = entry.record
    time = record.dead_lettered_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    kind, fate = record.event_type or "-", entry.fate or "-"
    cells = (record.id, record.reason, kind, record.source, time, str(record.attempts), fate)
    # A tab or a line end in an event type must not make a cell or a row of its own.
    return tuple(_harmless(cell).replace("\t", "\\t").replace("\n", "\\n") for cell in cells)


def _details(entry: Entry, record: DeadLetter | SealedDeadLetter, *, reveal: bool) -> dict[str, Any]:
    """Everything that may be shown: all of an open record with `reveal`, else what tells nothing of a person."""
    where = {"fate": entry.fate, "segment": entry.segment, "line": entry.place}
    if isinstance(record, SealedDeadLetter):
        public = _summary(entry)
        public |= {key: getattr(record, key).isoformat() for key in ("accepted_at", "first_received_at")}
        return public | {"consumer_version": record.consumer_version} | where
    details: dict[str, Any] = json.loads(encode(record))
    if not reveal:
        details = {key: value for key, value in details.items() if key not in _PRIVATE}
    return details | {"message_bytes": len(record.message)} | where


def _print_array(items: Iterable[dict[str, Any]]) -> None:
    """Print a JSON array an item at a time: there may be millions."""
    separator = "[\n  "
    for item in items:
        click.echo(separator + json.dumps(item), nl=False)
        separator = ",\n  "
    click.echo("[]" if separator.startswith("[") else "\n]")


def _print_tables(entries: Iterator[Entry]) -> None:
    console = Console()
    while rows := list(islice(entries, _ROWS_PER_TABLE)):
        table = Table(box=None, padding=(0, 1, 0, 0))
        for column in _SHORT_COLUMNS:
            table.add_column(column, overflow="fold", no_wrap=column not in {"type", "fate"})
        for entry in rows:
            identity, reason, kind, source, _, attempts, fate = _cells(entry)
            time = entry.record.dead_lettered_at.astimezone(UTC).strftime("%m-%d %H:%M")
            table.add_row(*map(Text, (identity[:_SHOWN_OF_ID], reason, kind, source, time, attempts, fate)))
        console.print(table)


def _print_details(details: dict[str, Any], revealed: DeadLetter | SealedDeadLetter | None) -> None:
    for key, value in details.items():
        if key != "message":
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{key}: {'-' if value is None else _harmless(shown)}")
    if not isinstance(revealed, DeadLetter):
        return
    click.echo()
    if sys.stdout.isatty():
        click.echo(_harmless(revealed.message.decode("utf-8", "backslashreplace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(revealed.message + b"\n")


def _harmless(text: str) -> str:
    """Text from outside with its control characters spelt out: a message must not steer the operator's terminal."""
    visible = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)
    return visible.encode("utf-8", "backslashreplace").decode()
