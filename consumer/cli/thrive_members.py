"""`consumer thrive members` and `health-profile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from consumer.cli.api import answer_options, ask_thrive, settings_of, yes_option
from consumer.cli.api_input import assigned, set_option
from consumer.cli.api_output import print_done, print_object

__all__ = ["health_profile", "members"]

_FIXED: Final = frozenset({"self", "user_id"})
"""What is no field to change, and means something else to the client."""


@click.group(name="members", epilog="Example: consumer thrive members create --first-name Alex --json")
def members() -> None:
    """The members of your organisation."""


@members.command(epilog="Example: consumer thrive members create 6f1e4b1e-3c55-4f7e-9b52-0b6f7c1f2f30")
@click.argument("user_id", required=False)
@click.option("--first-name", metavar="NAME")
@click.option("--last-name", metavar="NAME")
@click.option("--email", metavar="ADDRESS")
@answer_options
def create(
    *,
    user_id: str | None,
    first_name: str | None,
    last_name: str | None,
    email: str | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Create a member. USER_ID is a UUID of yours; without one, one is made."""
    made = ask_thrive(
        settings_of(config),
        lambda client: client.members.create(user_id, first_name=first_name, last_name=last_name, email=email),
    )
    print_object(made, as_json=as_json)


@members.command(epilog="Example: consumer thrive members get USER_ID --json")
@click.argument("user_id")
@answer_options
def get(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Show a member's profile."""
    print_object(ask_thrive(settings_of(config), lambda client: client.members.get(user_id)), as_json=as_json)


@members.command(
    epilog="Example: consumer thrive members update USER_ID --set timezone=Pacific/Auckland --set weight=70"
)
@click.argument("user_id")
@set_option
@answer_options
def update(*, user_id: str, pairs: Sequence[str], as_json: bool, config: Path | None) -> None:
    """Change fields of a member; those that are not named stay as they are."""
    changes = assigned(pairs)
    if not changes:
        raise click.UsageError("nothing to change: name a field with --set FIELD=VALUE")
    if not _FIXED.isdisjoint(changes):
        raise click.UsageError("a member's id cannot be changed")
    ask_thrive(settings_of(config), lambda client: client.members.update(user_id, **changes))
    print_done(f"updated {user_id}", {"user_id": user_id, "updated": sorted(changes)}, as_json=as_json)


@members.command(epilog="Example: consumer thrive members delete USER_ID --yes")
@click.argument("user_id")
@yes_option("this deletes everything that Thrive has of the member, for good")
@answer_options
def delete(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Delete a member, and everything that Thrive has of them."""
    ask_thrive(settings_of(config), lambda client: client.members.delete(user_id))
    print_done(f"deleted {user_id}", {"user_id": user_id, "deleted": True}, as_json=as_json)


@click.command(name="health-profile", epilog="Example: consumer thrive health-profile USER_ID --json")
@click.argument("user_id")
@answer_options
def health_profile(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Show a member's whole profile.

    The person, their place, privacy settings and connected devices.
    """
    print_object(ask_thrive(settings_of(config), lambda client: client.health_profile(user_id)), as_json=as_json)
