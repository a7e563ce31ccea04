"""`consumer thrive queues`: where Thrive sends the events of a stream."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from consumer.cli.api import answer_options, ask_thrive, refusal, settings_of
from consumer.cli.api_input import FILE, assigned, json_object, merged, set_option
from consumer.cli.api_output import note, print_done, print_object
from consumer.cli.common import Failed
from consumer.cli.console import clear_errors, harmless
from consumer.cli.thrive_queue_targets import KINDS, missing, target_of
from consumer.clients.thrive import ThriveClient
from consumer.clients.thrive_queues import queue_body
from consumer.errors import ApiError, NotFound
from consumer.settings import Settings

__all__ = ["queues"]

_REGISTERED: Final = (
    "A test message went onto the queue first: the worker finds it unsigned, puts it aside and goes on.",
    "Events of the stream that waited for a queue come now, perhaps many at once.",
)
_CONFLICT: Final = 409
_INVALID: Final = 400
_NOT_CONFIGURED: Final = "queue_not_configured"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a body was asked for on the command line."""

    source: str | None
    kind: str | None
    body: Path | None
    pairs: Sequence[str]
    files: Sequence[str]


@click.group(name="queues", epilog="Example: consumer thrive queues register lab-results --source labs")
def queues() -> None:
    """Where Thrive sends its events.

    Each STREAM has a queue of its own. There are streams of lab results, daily device data and coaching nudges; how
    Thrive spells their names is not published. Events of a stream without a queue are buffered until it has one.
    """


def _body_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How a queue is described: from a source, or by hand."""
    for option in (
        click.option("--body", metavar="FILE", type=FILE, help="Send the JSON object in FILE (-: standard input)."),
        click.option(
            "--set-file",
            "files",
            metavar="FIELD=FILE",
            multiple=True,
            help="Send what FILE holds as this field: for SAS tokens, which do not belong on a command line.",
        ),
        set_option,
        click.option("--type", "kind", type=click.Choice(KINDS), help="Kind of queue; local: a sandbox's only."),
        click.option("--source", metavar="NAME", help="The queue that this configured source reads."),
    ):
        function = option(function)
    return function


@queues.command(
    epilog="Example: consumer thrive queues register nudges --source nudges "
    "--set-file azure_event_hubs.sas_token=/run/secrets/sas"
)
@click.argument("stream")
@_body_options
@answer_options
def register(*, stream: str, as_json: bool, config: Path | None, **wanted: Any) -> None:
    """Send the events of STREAM to a queue.

    --source works the description out from a configured source; --set and --set-file change it or add to it, such as
    azure_event_hubs.sas_token, azure_storage_queue.sas_token or aws_sqs.role_arn. Thrive needs rights of its own on
    the queue, and publishes a test message before it stores anything.
    """
    settings = settings_of(config)
    body = _body(stream, _Wanted(**wanted), settings)

    async def registered(client: ThriveClient) -> Any:
        try:
            return await client.queues.register(stream, body)
        except ApiError as error:
            if error.status == _CONFLICT:
                raise Failed(f"already configured: use `consumer thrive queues replace {_word(stream)} ...`") from None
            raise _with_hint(error, body) from None

    print_object(ask_thrive(settings, registered), as_json=as_json)
    for line in _REGISTERED:
        note(line)


@queues.command(epilog="Example: consumer thrive queues show lab-results --json")
@click.argument("stream")
@answer_options
def show(*, stream: str, as_json: bool, config: Path | None) -> None:
    """Show the queue of STREAM; Thrive leaves out the secrets."""

    async def shown(client: ThriveClient) -> Any:
        try:
            return await client.queues.show(stream)
        except NotFound as error:
            raise _absent(error) from None

    print_object(ask_thrive(settings_of(config), shown), as_json=as_json)


@queues.command(epilog="Example: consumer thrive queues replace lab-results --source labs-new")
@click.argument("stream")
@_body_options
@answer_options
def replace(*, stream: str, as_json: bool, config: Path | None, **wanted: Any) -> None:
    """Send the events of STREAM to another queue.

    The options are those of `register`. The whole description is replaced: what is not given again is gone, secrets
    included. Whether Thrive publishes a test message this time too, its documents do not say.
    """
    settings = settings_of(config)
    body = _body(stream, _Wanted(**wanted), settings)

    async def replaced(client: ThriveClient) -> Any:
        try:
            return await client.queues.replace(stream, body)
        except NotFound as error:
            raise _absent(error, f"use `consumer thrive queues register {_word(stream)} ...`") from None
        except ApiError as error:
            raise _with_hint(error, body) from None

    print_object(ask_thrive(settings, replaced), as_json=as_json)
    note("The old queue may hold events yet: let a worker empty it.")


@queues.command(epilog="Example: consumer thrive queues remove lab-results")
@click.argument("stream")
@answer_options
def remove(*, stream: str, as_json: bool, config: Path | None) -> None:
    """Stop sending the events of STREAM.

    They are buffered until a queue is registered again.
    """

    async def removed(client: ThriveClient) -> None:
        try:
            await client.queues.remove(stream)
        except NotFound as error:
            raise _absent(error, "there is nothing to remove") from None

    ask_thrive(settings_of(config), removed)
    print_done(
        f"removed: events of {stream} are buffered from now on, unless another queue takes them",
        {"queue_name": stream, "removed": True},
        as_json=as_json,
    )


def _body(stream: str, wanted: _Wanted, settings: Settings) -> dict[str, Any]:
    """The body to send. Raises `click.UsageError` for options that contradict each other, `WrongSettings`, `Failed`."""
    if wanted.body is not None:
        if wanted.source or wanted.kind or wanted.pairs or wanted.files:
            raise click.UsageError("--body is the whole description: it goes with none of the other options")
        return json_object(wanted.body)
    if (wanted.source is None) == (wanted.kind is None):
        raise click.UsageError("give one of --source NAME, --type KIND and --body FILE")
    given = assigned(wanted.pairs, wanted.files)
    kind, fields = wanted.kind or "", dict[str, Any]()
    if wanted.source is not None:
        with clear_errors():
            target = target_of(settings.source(wanted.source), settings.thrive.base_url)
        kind, fields = target.kind, dict(target.fields)
    # Fields of the kind's block take its name in front; whatever else is given stands beside the block.
    body = merged(queue_body(stream, kind, fields), given)
    block = body.get(kind)
    lacking = missing(kind, block if isinstance(block, Mapping) else {})
    if lacking:
        raise click.UsageError(f"not known: {', '.join(lacking)}; give them with --set FIELD=VALUE")
    return body


def _absent(error: NotFound, what: str = "") -> Exception:
    """That there is no queue, and below it the platform's own words: where the events are meanwhile, it knows best."""
    if error.code != _NOT_CONFIGURED:
        return error
    _, line, words = refusal(error).partition("\n")
    return Failed(f"not configured{f': {what}' if what else ''}{line}{words}")


def _with_hint(error: ApiError, body: Mapping[str, Any]) -> Exception:
    """The error, and for an Azure queue without a SAS token the likeliest reason."""
    kind = str(body.get("type"))
    block = body.get(kind)
    secret = {"sas_token", "connection_string"} & set(block if isinstance(block, Mapping) else ())
    if error.status != _INVALID or not kind.startswith("azure_") or secret:
        return error
    hint = f"no SAS token was sent: --set-file {kind}.sas_token=FILE sends one (what Thrive calls it is a guess)"
    return Failed(f"{refusal(error)}\n{hint}")


def _word(text: str) -> str:
    return harmless(shlex.quote(text))
