"""`consumer thrive labs`, `cards`, `health-actions` and what else there is of a member's care."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

import click
from pydantic import BaseModel

from consumer.cli.api import answer_options, ask_thrive, limit_option, settings_of
from consumer.cli.api_input import read_file
from consumer.cli.api_output import first, note, print_done, print_list, print_object
from consumer.clients.thrive import ThriveClient
from consumer.clients.thrive_labs import MAX_DOCUMENT_BYTES

__all__ = ["bio_age", "cards", "devices", "health_actions", "jobs", "labs", "priorities", "program"]

_CONTENT_TYPES: Final = {
    ".pdf": "application/pdf",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


def _list(
    items: Callable[[ThriveClient], AsyncIterator[BaseModel]],
    columns: Sequence[str],
    *,
    limit: int,
    as_json: bool,
    config: Path | None,
) -> None:
    found, more = ask_thrive(settings_of(config), lambda client: first(items(client), limit))
    print_list(found, columns, as_json=as_json, more=more)


@click.group(name="labs", epilog="Example: consumer thrive labs list USER_ID --status ready")
def labs() -> None:
    """A member's lab results."""


@labs.command(name="list", epilog="Example: consumer thrive labs list USER_ID --limit 10 --json")
@click.argument("user_id")
@click.option("--status", metavar="STATUS", help="Only these: pending, processing, ready, failed.")
@limit_option
@answer_options
def list_labs(*, user_id: str, status: str | None, limit: int, as_json: bool, config: Path | None) -> None:
    """List lab results, newest first."""
    columns = ("lab_result_id", "status", "test_date", "lab_name")
    _list(
        lambda c: c.labs.list(user_id, status=status, limit=limit + 1),
        columns,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@labs.command(name="get", epilog="Example: consumer thrive labs get USER_ID LAB_RESULT_ID --json")
@click.argument("user_id")
@click.argument("lab_result_id")
@answer_options
def get_lab(*, user_id: str, lab_result_id: str, as_json: bool, config: Path | None) -> None:
    """Show a lab result with its values."""
    print_object(ask_thrive(settings_of(config), lambda c: c.labs.get(user_id, lab_result_id)), as_json=as_json)


@labs.command(name="upload", epilog="Example: consumer thrive labs upload USER_ID report.pdf")
@click.argument("user_id")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@answer_options
def upload_lab(*, user_id: str, file: Path, as_json: bool, config: Path | None) -> None:
    """Upload a laboratory's report.

    FILE is a PDF, JPEG, PNG or WebP of at most 20 MiB, as its name says. The result is pending at first; see
    `consumer thrive labs get`.
    """
    content_type = _CONTENT_TYPES.get(file.suffix.lower())
    if content_type is None:
        raise click.UsageError(f"FILE: expected a name that ends in {', '.join(_CONTENT_TYPES)}")
    content = read_file(file, limit=MAX_DOCUMENT_BYTES)
    uploaded = ask_thrive(
        settings_of(config),
        lambda c: c.labs.upload(user_id, content, filename=file.name, content_type=content_type),
    )
    print_object(uploaded, as_json=as_json)
    if uploaded.workflow_id is None:
        note("Thrive did not begin to read it, and will not: upload it again")


@click.group(name="cards", epilog="Example: consumer thrive cards list USER_ID --status pending")
def cards() -> None:
    """A member's nudge cards."""


@cards.command(name="list", epilog="Example: consumer thrive cards list USER_ID --status pending --json")
@click.argument("user_id")
@click.option("--status", metavar="STATUS", help="Only these: pending, opened, completed, dismissed.")
@limit_option
@answer_options
def list_cards(*, user_id: str, status: str | None, limit: int, as_json: bool, config: Path | None) -> None:
    """List nudge cards."""
    columns = ("card_item_id", "interaction_status", "trigger_name", "created_at", "item_header")
    _list(
        lambda c: c.cards.list(user_id, interaction_status=status, limit=limit + 1),
        columns,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@cards.command(name="get", epilog="Example: consumer thrive cards get USER_ID CARD_ITEM_ID --json")
@click.argument("user_id")
@click.argument("card", metavar="CARD_ITEM_ID")
@answer_options
def get_card(*, user_id: str, card: str, as_json: bool, config: Path | None) -> None:
    """Show a nudge card."""
    print_object(ask_thrive(settings_of(config), lambda c: c.cards.get(user_id, card)), as_json=as_json)


@cards.command(name="report", epilog="Example: consumer thrive cards report USER_ID CARD_ITEM_ID opened")
@click.argument("user_id")
@click.argument("card", metavar="CARD_ITEM_ID")
@click.argument("status")
@answer_options
def report_card(*, user_id: str, card: str, status: str, as_json: bool, config: Path | None) -> None:
    """Report what the member did with a card.

    STATUS is one of pending, opened, completed, dismissed. A card goes from pending to opened or dismissed, from
    opened to completed or dismissed; the status it has changes nothing, and Thrive refuses the rest.
    """
    ask_thrive(settings_of(config), lambda c: c.cards.report(user_id, card, status))
    facts = {"card_item_id": card, "interaction_status": status}
    print_done(f"reported {card} as {status}", facts, as_json=as_json)


@click.group(name="health-actions", epilog="Example: consumer thrive health-actions list USER_ID")
def health_actions() -> None:
    """A member's scheduled health actions."""


@health_actions.command(name="list", epilog="Example: consumer thrive health-actions list USER_ID --status pending")
@click.argument("user_id")
@click.option("--status", metavar="STATUS", help="Only these, such as pending.")
@limit_option
@answer_options
def list_actions(*, user_id: str, status: str | None, limit: int, as_json: bool, config: Path | None) -> None:
    """List health actions by the time they are scheduled for."""
    columns = ("health_action_id", "status", "scheduled_at", "title")
    _list(
        lambda c: c.health_actions.list(user_id, status=status, limit=limit + 1),
        columns,
        limit=limit,
        as_json=as_json,
        config=config,
    )


@health_actions.command(name="get", epilog="Example: consumer thrive health-actions get USER_ID HEALTH_ACTION_ID")
@click.argument("user_id")
@click.argument("health_action_id")
@answer_options
def get_action(*, user_id: str, health_action_id: str, as_json: bool, config: Path | None) -> None:
    """Show a health action."""
    found = ask_thrive(settings_of(config), lambda c: c.health_actions.get(user_id, health_action_id))
    print_object(found, as_json=as_json)


@click.command(name="program", epilog="Example: consumer thrive program USER_ID --json")
@click.argument("user_id")
@answer_options
def program(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Show a member's active program."""
    print_object(ask_thrive(settings_of(config), lambda c: c.programs.program(user_id)), as_json=as_json)


@click.command(name="priorities", epilog="Example: consumer thrive priorities USER_ID --status completed")
@click.argument("user_id")
@click.option("--status", metavar="STATUS", help="Only these: active (the default), dismissed, completed, outdated.")
@limit_option
@answer_options
def priorities(*, user_id: str, status: str | None, limit: int, as_json: bool, config: Path | None) -> None:
    """List a member's priorities by rank."""
    columns = ("user_priority_id", "rank", "status", "title", "target")
    _list(lambda c: c.programs.priorities(user_id, status=status), columns, limit=limit, as_json=as_json, config=config)


@click.command(name="bio-age", epilog="Example: consumer thrive bio-age USER_ID --json")
@click.argument("user_id")
@answer_options
def bio_age(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Show a member's biological age, if it has been computed."""
    print_object(ask_thrive(settings_of(config), lambda c: c.scores.bio_age(user_id)), as_json=as_json)


@click.group(name="devices", epilog="Example: consumer thrive devices list USER_ID")
def devices() -> None:
    """A member's connected devices."""


@devices.command(name="list", epilog="Example: consumer thrive devices list USER_ID --json")
@click.argument("user_id")
@limit_option
@answer_options
def list_devices(*, user_id: str, limit: int, as_json: bool, config: Path | None) -> None:
    """List connected devices."""
    columns = ("provider_slug", "device_name", "status", "connected_at", "last_sync_at")
    _list(lambda c: c.devices.list(user_id), columns, limit=limit, as_json=as_json, config=config)


@click.group(name="jobs", epilog="Example: consumer thrive jobs get USER_ID JOB_ID")
def jobs() -> None:
    """What Thrive works on for a member."""


@jobs.command(name="get", epilog="Example: consumer thrive jobs get USER_ID JOB_ID --json")
@click.argument("user_id")
@click.argument("job_id")
@answer_options
def get_job(*, user_id: str, job_id: str, as_json: bool, config: Path | None) -> None:
    """Show how far a job is."""
    print_object(ask_thrive(settings_of(config), lambda c: c.jobs.get(user_id, job_id)), as_json=as_json)
