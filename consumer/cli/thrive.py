"""`consumer thrive`: Thrive's REST API."""

from __future__ import annotations

from pathlib import Path

import click

from consumer.cli.api import answer_options, ask_thrive, settings_of
from consumer.cli.api_output import print_object
from consumer.cli.thrive_care import bio_age, cards, devices, health_actions, jobs, labs, priorities, program
from consumer.cli.thrive_members import health_profile, members
from consumer.cli.thrive_queues import queues
from consumer.cli.thrive_rotation import rotate

__all__ = ["command"]


@click.group(name="thrive", epilog="Example: consumer thrive queues register lab-results --source labs")
def command() -> None:
    """Thrive's REST API, with CONSUMER_THRIVE__TENANT_KEY at CONSUMER_THRIVE__BASE_URL.

    Answers, which are health data, go to standard output, all else to standard error. Exit code 1: refused or not
    reached; 2: wrong usage or settings.
    """


@command.command(
    name="token", epilog='Example: curl -H @<(echo "Authorization: Bearer $(consumer thrive token ID)") ...'
)
@click.argument("user_id")
@answer_options
def token(*, user_id: str, as_json: bool, config: Path | None) -> None:
    """Print a new token of a member.

    It is good for an hour, and a secret: keep it out of logs and histories.
    """
    minted = ask_thrive(settings_of(config), lambda client: client.token(user_id))
    if as_json:
        print_object(minted, as_json=True)
    else:
        click.echo(minted.access_token)


for group in (members, health_profile, labs, cards, health_actions, program, priorities, bio_age, devices, jobs):
    command.add_command(group)
command.add_command(queues)
command.add_command(rotate)
