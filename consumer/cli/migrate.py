"""`consumer migrate`: make or change the worker's own tables, and make those its handlers use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from consumer.app import load_table, make_importable
from consumer.cli.common import config_option, handlers_options, load, run_async
from consumer.database import Database
from consumer.migrations import SchemaState, create_tables, migrate, missing_tables, schema_state

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from consumer.settings_loading import Loaded

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Result:
    applied: Sequence[int]
    created: Sequence[str]
    missing: Sequence[str]
    state: SchemaState

    @property
    def problem(self) -> str | None:
        if self.state.problem is None and self.missing:
            return f"the handlers' table {self.missing[0]} is missing: run `consumer migrate`"
        return self.state.problem


@click.command(name="migrate", epilog="Example: consumer migrate --check || consumer migrate")
@config_option
@handlers_options
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the tables do not fit this release.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    context: click.Context,
    *,
    config: Path | None,
    handlers: str | None,
    app_dir: str | None,
    check: bool,
    as_json: bool,
) -> None:
    """Bring the tables of the configured database up to this release.

    Tables that the handlers declare (`DispatchTable(metadata=...)`) are created if they are missing, and never changed.
    Safe to run while workers of this or the last release are running, and by several processes at once.
    """
    loaded = load(config, {"handlers": handlers, "app_dir": app_dir})
    result = run_async(lambda: _migrate(loaded, check=check))
    click.echo(json.dumps(_as_dict(result)) if as_json else _as_text(result))
    if result.problem:
        context.exit(1)


def _as_dict(result: _Result) -> dict[str, Any]:
    return {
        "current": result.state.current,
        "needed": result.state.needed,
        "applied": list(result.applied),
        "created": list(result.created),
        "problem": result.problem,
    }


def _as_text(result: _Result) -> str:
    if result.problem:
        return result.problem
    text = f"the tables are {'now ' if result.applied else ''}at version {result.state.current}"
    return f"{text}; created for the handlers: {', '.join(result.created)}" if result.created else text


async def _migrate(loaded: Loaded, *, check: bool) -> _Result:
    database = Database(loaded.settings.database.url.get_secret_value())
    metadata = _metadata(loaded)
    try:
        await database.open()
        applied = [] if check else await migrate(database)
        created = [] if check else await create_tables(database, metadata)
        return _Result(applied, created, await missing_tables(database, metadata), await schema_state(database))
    finally:
        await database.close()


def _metadata(loaded: Loaded) -> Sequence[MetaData]:
    """What the handlers declare. Without a setting there need not be handlers where this runs."""
    settings = loaded.settings
    make_importable(settings.app_dir)
    if loaded.origins["handlers"] == "default" and find_spec(settings.handlers.partition(":")[0]) is None:
        return ()
    return load_table(settings.handlers, settings.app_dir).metadata
