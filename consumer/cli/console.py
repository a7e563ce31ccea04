"""What commands print: tables for people and for programs, progress, errors as one line."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from consumer.cli.common import Failed, WrongSettings, on_terminal
from consumer.errors import ConsumerError, SettingsError

__all__ = ["clear_errors", "harmless", "print_table", "progress"]

# The later ones turn text around, or break lines where nobody expects it.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_EVERY: Final = 10.0
"""Seconds between two lines of progress where there is no terminal."""


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the errors this package raises on purpose into one line and the right exit code."""
    try:
        yield
    except SettingsError as error:
        raise WrongSettings(str(error)) from None
    except ConsumerError as error:
        raise Failed(str(error)) from None


def harmless(text: str) -> str:
    """Text from outside with its control characters spelt out: a message must not steer the operator's terminal."""
    visible = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return visible.encode("utf-8", "backslashreplace").decode()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output; where that is no terminal, a line for each row, tabs between the cells."""
    if not on_terminal():
        for row in (columns, *rows):
            click.echo("\t".join(harmless(cell).replace("\t", " ").replace("\n", " ") for cell in row))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    Console().print(table)


@contextlib.contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far long work is, on standard error; what is yielded is told how much more was done.

    A bar on a terminal; else a line every ten seconds, so that short work is silent.
    """
    if not sys.stderr.isatty():
        yield _Lines(label, total).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


class _Lines:
    def __init__(self, label: str, total: int | None) -> None:
        self._label = label
        self._of = "" if total is None else f" of {total}"
        self._done = 0
        self._said_at = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said_at >= _EVERY:
            self._said_at = time.monotonic()
            click.echo(f"{self._label}: {self._done}{self._of}", err=True)
