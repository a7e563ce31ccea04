"""`consumer init`: a new partner project."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

import click

from consumer.cli.common import Failed
from consumer.errors import ConsumerError
from consumer.project import write_project

__all__ = ["command"]


@click.command(name="init", epilog="Example: consumer init health-events && cd health-events && pytest")
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
def command(*, folder: Path) -> None:
    """Write out a new partner project: handlers, consumer.toml, a test, a Dockerfile.

    DIR is the current folder unless given. Nothing is overwritten: what exists is listed and kept.
    """
    try:
        result = write_project(folder)
    except ConsumerError as error:
        raise Failed(str(error)) from None
    if result.written:
        click.echo(f"Written to {folder}:")
        _list(result.written)
    if result.kept:
        click.echo("Kept as it was:")
        _list(result.kept)
    click.echo("Next:")
    _list(_next(folder))


def _list(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"  {line}")


def _next(folder: Path) -> list[str]:
    first = [] if folder == Path() else [f"cd {shlex.quote(str(folder))}"]
    return [
        *first,
        "consumer publish events samples/lab-result.json   # sign an event, put it on the local queue",
        "consumer run --until-idle                         # handle it",
        "pip install -r requirements-dev.txt && pytest     # test the handlers",
        "consumer check                                    # once consumer.toml names your own queue",
    ]
