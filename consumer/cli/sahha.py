"""`consumer sahha`: Sahha's REST API."""

from __future__ import annotations

from pathlib import Path

import click

from consumer.cli.api import answer_options, ask_sahha, settings_of
from consumer.cli.api_output import print_object
from consumer.cli.sahha_insights import archetypes, biomarkers, comparisons, scores, trends
from consumer.cli.sahha_profiles import profiles
from consumer.cli.sahha_uploads import demographics, device, logs

__all__ = ["command"]


@click.group(name="sahha", epilog="Example: consumer sahha scores EXTERNAL_ID --type sleep --start 2026-03-01")
def command() -> None:
    """Sahha's REST API, with CONSUMER_SAHHA__CLIENT_ID and __CLIENT_SECRET at CONSUMER_SAHHA__BASE_URL.

    Answers, which are health data, go to standard output, all else to standard error. Exit code 1: refused or not
    reached; 2: wrong usage or settings.
    """


@command.command(name="token", epilog="Example: consumer sahha token --json")
@answer_options
def token(*, as_json: bool, config: Path | None) -> None:
    """Print a new token of the account.

    It is good for a day, and a secret: keep it out of logs and histories.
    """
    found = ask_sahha(settings_of(config), lambda client: client.account_token())
    if as_json:
        print_object(found, as_json=True)
    else:
        click.echo(found.account_token)


for group in (profiles, scores, biomarkers, archetypes, trends, comparisons, demographics, device, logs):
    command.add_command(group)
