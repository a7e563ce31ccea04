"""`consumer sahha profiles`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from consumer.cli.api import answer_options, ask_sahha, limit_option, settings_of, yes_option
from consumer.cli.api_input import FILE, read_secret
from consumer.cli.api_output import first, print_done, print_list, print_object
from consumer.clients.sahha import SahhaClient
from consumer.models.sahha import SahhaProfileToken

__all__ = ["profiles"]

_COLUMNS: Final = ("externalId", "profileId", "createdAtUtc", "dataLastReceivedAtUtc", "isSampleProfile")


@click.group(name="profiles", epilog="Example: consumer sahha profiles search --limit 20")
def profiles() -> None:
    """The profiles of your account."""


@profiles.command(epilog="Example: consumer sahha profiles register user-123")
@click.argument("external_id")
@click.option("--by-app", is_flag=True, help="With CONSUMER_SAHHA__APP_ID and __APP_SECRET, as an app does.")
@click.option("--reveal", is_flag=True, help="Print the profile's tokens, which Sahha answers with.")
@answer_options
def register(*, external_id: str, by_app: bool, reveal: bool, as_json: bool, config: Path | None) -> None:
    """Make a profile.

    `consumer sahha profiles token` prints a token of it at any time.
    """

    async def registered(client: SahhaClient) -> SahhaProfileToken:
        if by_app:
            return await client.profiles.register_by_app(external_id)
        return await client.profiles.register(external_id)

    made = ask_sahha(settings_of(config), registered)
    if reveal:
        print_object(made, as_json=as_json)
    else:
        print_done(f"registered {external_id}", {"externalId": external_id, "registered": True}, as_json=as_json)


@profiles.command(epilog="Example: consumer sahha profiles token user-123 --read-only --lifetime 3600 --json")
@click.argument("external_id")
@click.option("--read-only", is_flag=True, default=None, help="A token that may only read.")
@click.option("--lifetime", type=click.IntRange(min=1), metavar="SECONDS", help="How long it is valid; default a day.")
@answer_options
def token(
    *, external_id: str, read_only: bool | None, lifetime: int | None, as_json: bool, config: Path | None
) -> None:
    """Print a new token of a profile.

    It is a secret: keep it out of logs and histories. With --json all of Sahha's answer is printed, a refresh token
    included where there is one.
    """
    found = ask_sahha(
        settings_of(config),
        lambda client: client.profiles.token(external_id, read_only=read_only, lifetime=lifetime),
    )
    _print_token(found, as_json=as_json)


@profiles.command(epilog="Example: consumer sahha profiles refresh refresh-token.txt --json")
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--profile-token-file", metavar="FILE", type=FILE, help="The profile's token, which Sahha may want too.")
@answer_options
def refresh(*, file: Path, profile_token_file: Path | None, as_json: bool, config: Path | None) -> None:
    """Print a new token of a profile, for a refresh token.

    The refresh token is what FILE holds (-: standard input).
    """
    refresh_token = read_secret(file)
    profile_token = None if profile_token_file is None else read_secret(profile_token_file)
    found = ask_sahha(
        settings_of(config),
        lambda client: client.profiles.refresh(refresh_token, profile_token=profile_token),
    )
    _print_token(found, as_json=as_json)


@profiles.command(epilog="Example: consumer sahha profiles get user-123 --json")
@click.argument("external_id")
@answer_options
def get(*, external_id: str, as_json: bool, config: Path | None) -> None:
    """Show a profile."""
    print_object(ask_sahha(settings_of(config), lambda client: client.profiles.get(external_id)), as_json=as_json)


@profiles.command(epilog="Example: consumer sahha profiles search user- --limit 20 --json")
@click.argument("text", required=False)
@limit_option
@answer_options
def search(*, text: str | None, limit: int, as_json: bool, config: Path | None) -> None:
    """List the profiles that fit TEXT, or all."""
    found, more = ask_sahha(settings_of(config), lambda client: first(client.profiles.search(text), limit))
    print_list(found, _COLUMNS, as_json=as_json, more=more)


@profiles.command(epilog="Example: consumer sahha profiles delete user-123 user-456 --yes")
@click.argument("external_ids", metavar="EXTERNAL_ID...", nargs=-1, required=True)
@yes_option("this deletes profiles with everything that Sahha has of them, for good")
@answer_options
def delete(*, external_ids: Sequence[str], as_json: bool, config: Path | None) -> None:
    """Delete profiles, and everything that Sahha has of them."""
    ask_sahha(settings_of(config), lambda client: client.profiles.delete(*external_ids))
    facts = {"externalIds": list(external_ids), "deleted": True}
    print_done(f"deleted {', '.join(external_ids)}", facts, as_json=as_json)


def _print_token(found: SahhaProfileToken, *, as_json: bool) -> None:
    if as_json:
        print_object(found, as_json=True)
    else:
        click.echo(found.profile_token)
