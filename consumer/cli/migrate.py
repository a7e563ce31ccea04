"""`consumer migrate`: make or change the worker's own tables."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from consumer.database import Database
from consumer.errors import ConsumerError, SettingsError
from consumer.migrations import SchemaState, migrate, schema_state
from consumer.settings_loading import load_settings

__all__ = ["command"]


class _WrongSettings(click.ClickException):
    exit_code = 2


@click.command(name="migrate", epilog="Example: consumer migrate --check || consumer migrate")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file; default consumer.toml, if it is there.")
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when the tables do not fit this release.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, *, config: Path | None, check: bool, as_json: bool) -> None:
    """Bring the tables of the configured database up to this release.

    Safe to run while workers of this or the last release are running, and by several processes at once.
    """
    try:
        url = load_settings(config=config).settings.database.url.get_secret_value()
        applied, state = asyncio.run(_migrate(url, check=check))
    except SettingsError as error:
        raise _WrongSettings(str(error)) from None
    except ConsumerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(_as_dict(applied, state)) if as_json else _as_text(applied, state))
    if state.problem:
        context.exit(1)


def _as_dict(applied: list[int], state: SchemaState) -> dict[str, Any]:
    return {"current": state.current, "needed": state.needed, "applied": applied, "problem": state.problem}


def _as_text(applied: list[int], state: SchemaState) -> str:
    if state.problem:
        return state.problem
    return f"the tables are {'now ' if applied else ''}at version {state.current}"


async def _migrate(url: str, *, check: bool) -> tuple[list[int], SchemaState]:
    database = Database(url)
    try:
        await database.open()
        applied = [] if check else await migrate(database)
        return applied, await schema_state(database)
    finally:
        await database.close()
