"""`consumer thrive rotate`: new keys, once Thrive gives them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import click
from pydantic import BaseModel

from consumer.cli.api import answer_options, ask_thrive, settings_of
from consumer.cli.api_input import FILE, read_secret
from consumer.cli.api_output import note, print_object
from consumer.cli.common import Failed
from consumer.clients.thrive import ThriveClient
from consumer.errors import ApiError

__all__ = ["rotate"]

_UNAVAILABLE: Final = 503


@click.group(name="rotate", epilog="Example: consumer thrive rotate signing-secret --secret-file new-secret")
def rotate() -> None:
    """Have Thrive take a new key or secret. Thrive's documents say that this is not available yet."""


@rotate.command(name="tenant-key", epilog="Example: consumer thrive rotate tenant-key > new-key")
@answer_options
def tenant_key(*, as_json: bool, config: Path | None) -> None:
    """Rotate the tenant key and print the new one, which is shown this once; the old one goes on for a day."""
    _rotate(lambda client: client.rotate_tenant_key(), as_json=as_json, config=config)
    note("the old key works until the time shown: set CONSUMER_THRIVE__TENANT_KEY to the new one before")


@rotate.command(name="signing-secret", epilog="Example: consumer thrive rotate signing-secret --secret-file new-secret")
@click.option(
    "--secret-file",
    metavar="FILE",
    type=FILE,
    help="The new secret: 32 random bytes or more, in hex or base64; default one that Thrive makes.",
)
@answer_options
def signing_secret(*, secret_file: Path | None, as_json: bool, config: Path | None) -> None:
    """Rotate the secret that events are signed with; one that Thrive made is printed, this once."""
    secret = None if secret_file is None else read_secret(secret_file)
    _rotate(lambda client: client.rotate_signing_secret(secret), as_json=as_json, config=config)
    note("add the new secret to CONSUMER_THRIVE__SIGNATURE__SECRETS, and keep the old one until the time shown")


def _rotate(call: Callable[[ThriveClient], Awaitable[Any]], *, as_json: bool, config: Path | None) -> None:
    async def rotated(client: ThriveClient) -> BaseModel | dict[str, Any]:
        try:
            answer: BaseModel | dict[str, Any] = await call(client)
        except ApiError as error:
            if error.status == _UNAVAILABLE:
                raise Failed("not available yet (Thrive answers 503, Retry-After 86400)") from None
            raise
        return answer

    print_object(ask_thrive(settings_of(config), rotated), as_json=as_json)
