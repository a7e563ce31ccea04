"""`consumer sahha demographics`, `device`, `logs`: what is read and written with a profile's own token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from consumer.cli.api import answer_options, ask_sahha, settings_of
from consumer.cli.api_input import FILE, MEBIBYTE, assigned, json_object, json_objects, merged, set_option
from consumer.cli.api_output import print_done, print_object
from consumer.cli.common import Failed
from consumer.cli.console import progress
from consumer.clients.sahha import SahhaClient

__all__ = ["demographics", "device", "logs"]

_LARGEST_UPLOAD: Final = 64 * MEBIBYTE


@click.group(name="demographics", epilog="Example: consumer sahha demographics patch user-123 --set country=NZ")
def demographics() -> None:
    """Who the person behind a profile is."""


@demographics.command(name="get", epilog="Example: consumer sahha demographics get user-123 --json")
@click.argument("external_id")
@answer_options
def get_demographics(*, external_id: str, as_json: bool, config: Path | None) -> None:
    """Show what is known of the person."""
    print_object(ask_sahha(settings_of(config), lambda client: client.demographics.get(external_id)), as_json=as_json)


@demographics.command(name="put", epilog="Example: consumer sahha demographics put user-123 person.json")
@click.argument("external_id")
@click.argument("file", metavar="[FILE]", required=False, type=FILE)
@set_option
@answer_options
def put_demographics(
    *, external_id: str, file: Path | None, pairs: Sequence[str], as_json: bool, config: Path | None
) -> None:
    """Replace all that is known of the person.

    What is sent is the JSON object in FILE (-: standard input), with the fields of --set.
    """
    wanted = _wanted(file, pairs)
    ask_sahha(settings_of(config), lambda client: client.demographics.put(external_id, wanted))
    _print_updated(external_id, wanted, as_json=as_json)


@demographics.command(name="patch", epilog="Example: consumer sahha demographics patch user-123 --set gender=Female")
@click.argument("external_id")
@click.argument("file", metavar="[FILE]", required=False, type=FILE)
@set_option
@answer_options
def patch_demographics(
    *, external_id: str, file: Path | None, pairs: Sequence[str], as_json: bool, config: Path | None
) -> None:
    """Change something that is known of the person.

    What is sent is the JSON object in FILE (-: standard input), with the fields of --set; the rest stays.
    """
    wanted = _wanted(file, pairs)
    ask_sahha(settings_of(config), lambda client: client.demographics.patch(external_id, wanted))
    _print_updated(external_id, wanted, as_json=as_json)


@click.group(name="device", epilog="Example: consumer sahha device get user-123")
def device() -> None:
    """The device behind a profile."""


@device.command(name="get", epilog="Example: consumer sahha device get user-123 --json")
@click.argument("external_id")
@answer_options
def get_device(*, external_id: str, as_json: bool, config: Path | None) -> None:
    """Show the device."""
    print_object(ask_sahha(settings_of(config), lambda client: client.device.get(external_id)), as_json=as_json)


@device.command(name="put", epilog="Example: consumer sahha device put user-123 --set timeZone=+12:00 --set system=iOS")
@click.argument("external_id")
@click.argument("file", metavar="[FILE]", required=False, type=FILE)
@set_option
@answer_options
def put_device(
    *, external_id: str, file: Path | None, pairs: Sequence[str], as_json: bool, config: Path | None
) -> None:
    """Replace what is known of the device.

    What is sent is the JSON object in FILE (-: standard input), with the fields of --set.
    """
    wanted = _wanted(file, pairs)
    ask_sahha(settings_of(config), lambda client: client.device.put(external_id, wanted))
    _print_updated(external_id, wanted, as_json=as_json)


@click.group(name="logs", epilog="Example: consumer sahha logs upload steps.jsonl --profile user-123")
def logs() -> None:
    """Readings of devices."""


@logs.command(epilog="Example: consumer sahha logs upload steps.jsonl --profile user-123")
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--profile", "external_id", metavar="EXTERNAL_ID", required=True, help="Whose they are.")
@click.option("--repeat", is_flag=True, help="Send a batch again when its answer is lost; Sahha may count it twice.")
@answer_options
def upload(*, file: Path, external_id: str, repeat: bool, as_json: bool, config: Path | None) -> None:
    """Upload the readings in FILE.

    FILE (-: standard input) holds a JSON array, or one JSON object in each line. Each needs id, logType, dataType,
    startDateTime, endDateTime; nothing is sent unless all have them.
    """
    items = json_objects(file, limit=_LARGEST_UPLOAD)
    done = 0

    async def uploaded(client: SahhaClient) -> int:
        nonlocal done
        with progress("uploaded", len(items)) as advance:

            def told(count: int) -> None:
                nonlocal done
                advance(count - done)
                done = count

            return await client.logs.upload(external_id, items, repeat=repeat, progress=told)

    try:
        count = ask_sahha(settings_of(config), uploaded)
    except Failed as error:
        if not done:
            raise
        raise Failed(f"{error.message}\n({done} of {len(items)} were uploaded before)") from None
    facts = {"externalId": external_id, "uploaded": count}
    print_done(f"{count} {'reading' if count == 1 else 'readings'} uploaded for {external_id}", facts, as_json=as_json)


def _wanted(file: Path | None, pairs: Sequence[str]) -> dict[str, Any]:
    given = assigned(pairs)
    wanted = merged({} if file is None else json_object(file), given)
    if not wanted:
        raise click.UsageError("nothing to send: give FILE or --set FIELD=VALUE")
    return wanted


def _print_updated(external_id: str, wanted: dict[str, Any], *, as_json: bool) -> None:
    facts = {"externalId": external_id, "updated": sorted(wanted)}
    print_done(f"updated {external_id}", facts, as_json=as_json)
