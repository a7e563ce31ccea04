"""`consumer publish`: sign bodies and send them to a configured source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import IO, Final

import click

from consumer.app import build_source, make_importable
from consumer.cli.common import Failed, config_option, load, run_async
from consumer.cli.console import clear_errors, progress
from consumer.durations import parse_duration
from consumer.envelope import object_content, wrap_neutral
from consumer.errors import ConsumerError, Unreadable
from consumer.events.reading import is_text
from consumer.ops.logs import configure_logging
from consumer.ops.trace_queues import TracedQueue
from consumer.ops.tracing import Spans, open_spans
from consumer.ops.tracing_sdk import exported_spans
from consumer.providers import build_sahha_signature, build_thrive_signature
from consumer.sahha_shapes import type_by_shape
from consumer.settings import SourceSettings
from consumer.sources.base import Outgoing

__all__ = ["command"]

_BATCH: Final = 100
_BATCH_BYTES: Final = 8 * 1024 * 1024
_STDIN: Final = Path("-")
_WHITE: Final = b" \t\r\n"


def _delay(_: click.Context, __: click.Parameter, value: str) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(name="publish", epilog="Example: echo '{\"event_id\": ...}' | consumer publish labs -")
@click.argument("source")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@click.option("--as-object", is_flag=True, help="Put the body into the envelope as an object, not as a text.")
@click.option(
    "--raw", is_flag=True, help="Send what the files hold as it is, such as captured envelopes; sign nothing."
)
@click.option(
    "--ordering-key",
    metavar="KEY",
    help="Send all of them in this lane: the group of an SQS FIFO queue, the partition key of an event hub.",
)
@click.option("--delay", default="0", callback=_delay, metavar="DURATION", help="How long nobody may receive them.")
@click.option("--event-type", metavar="NAME", help="Sahha: what the headers say it is; else the body's shape tells.")
@click.option("--external-id", metavar="ID", help="Sahha: whom the headers name where a body has no externalId.")
@config_option
def command(
    *,
    source: str,
    files: Sequence[Path],
    as_object: bool,
    raw: bool,
    ordering_key: str | None,
    delay: float,
    event_type: str | None,
    external_id: str | None,
    config: Path | None,
) -> None:
    """Sign event bodies with the first secret of SOURCE and send them to its queue: for development and tests.

    A FILE holds one JSON object, a .jsonl file one in each line; `-` is standard input, either way. With --raw a file
    (a line) is a whole message, which the worker refuses unless its signature is good. The bodies of a Sahha source go
    with the headers of a webhook into a neutral envelope, as from `consumer relay`.
    """
    settings = load(config).settings
    configure_logging(level=settings.log.level, form=settings.log.format)
    make_importable(settings.app_dir)
    with clear_errors():
        chosen = settings.source(source)
        if raw:
            sign = None
        elif chosen.provider == "sahha":
            sign = _sahha(chosen, event_type, external_id)
        else:
            sign = _thrive(chosen, as_object=as_object)
    if as_object and chosen.provider != "thrive":
        raise click.UsageError("--as-object is for Thrive's envelopes")
    if (event_type or external_id) and (raw or chosen.provider != "sahha"):
        raise click.UsageError("--event-type and --external-id are for bodies of Sahha's")
    total = None
    if _STDIN not in files:
        # What is wrong in a file shows before anything is sent.
        total = sum(1 for _ in _messages(files, sign))

    def outgoing() -> Iterator[Outgoing]:
        for message in _messages(files, sign):
            yield Outgoing(message, ordering_key=ordering_key, delay=delay)

    sent = run_async(lambda: _send(chosen, outgoing(), total))
    click.echo(f"{sent} {'message' if sent == 1 else 'messages'} sent to {chosen.name}")


async def _send(settings: SourceSettings, messages: Iterable[Outgoing], total: int | None) -> int:
    async with exported_spans():
        return await _sent(settings, messages, total, open_spans([TracedQueue.of(settings)]))


async def _sent(settings: SourceSettings, messages: Iterable[Outgoing], total: int | None, spans: Spans) -> int:
    source = build_source(settings, for_sending=True)
    sent = 0
    try:
        await source.open()
        with progress("sent", total) as advance:
            for batch in _batches(messages):
                with spans.sending(source.name, batch, largest=source.capabilities.largest_message) as carried:
                    await source.send(carried)
                sent += len(batch)
                advance(len(batch))
    except (ConsumerError, click.ClickException) as error:
        if not sent:
            raise
        text = error.message if isinstance(error, click.ClickException) else str(error)
        raise Failed(f"{text} ({sent} messages were sent before)") from None
    finally:
        await source.close()
    return sent


def _batches(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message.body)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


_Sign = Callable[[bytes], bytes]
"""Makes the message of a body. Raises `Unreadable` for what is no body."""


def _thrive(settings: SourceSettings, *, as_object: bool) -> _Sign:
    signature = build_thrive_signature(settings)

    def sign(body: bytes) -> bytes:
        object_content(body)
        return signature.sign(body, as_object=as_object)

    return sign


def _sahha(settings: SourceSettings, event_type: str | None, external_id: str | None) -> _Sign:
    signature = build_sahha_signature(settings)

    def sign(body: bytes) -> bytes:
        content = object_content(body)
        kind = event_type or type_by_shape(content)
        if kind is None:
            raise Unreadable("its fields are those of no type, or of several: use --event-type")
        whom = content.get("externalId") or external_id
        if not isinstance(whom, str) or not is_text(whom):
            raise Unreadable("it has no externalId: use --external-id")
        headers = signature.sign(body, external_id=whom, event_type=kind)
        return wrap_neutral(provider="sahha", body=body, headers=headers, received_at=datetime.now(UTC))

    return sign


def _messages(files: Sequence[Path], sign: _Sign | None) -> Iterator[bytes]:
    """The message of every body, or with nothing to sign them every file's own bytes.

    Raises `click.ClickException`, naming the place.
    """
    for path in files:
        name = "standard input" if path == _STDIN else str(path)
        try:
            with click.open_file(str(path), "rb") as file:
                for line_no, body in _of_file(path, file, whole=sign is None):
                    yield body if sign is None else _signed(sign, body, f"{name}:{line_no}" if line_no else name)
        except OSError as error:
            raise Failed(f"{name}: {error.strerror}") from None


def _of_file(path: Path, file: IO[bytes], *, whole: bool) -> Iterator[tuple[int, bytes]]:
    """The bodies of a file with their lines, or all of it as line 0: with `whole`, white space around it included."""
    first = list(islice(file, 1)) if path == _STDIN else []
    by_line = path.suffix == ".jsonl" or any(map(_is_object, first))
    if not by_line:
        data = b"".join([*first, *file])
        yield 0, data if whole else data.strip(_WHITE)
        return
    for number, line in enumerate(chain(first, file), 1):
        body = line.strip(_WHITE)
        if body:
            yield number, body


def _is_object(line: bytes) -> bool:
    try:
        object_content(line)
    except Unreadable:
        return False
    return True


def _signed(sign: _Sign, body: bytes, where: str) -> bytes:
    try:
        return sign(body)
    except Unreadable as error:
        raise Failed(f"{where}: not the body of an event: {error}") from None
