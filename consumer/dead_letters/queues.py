"""The dead-letter queue of a source: which one it is, and what its messages look like there.

An SQS source has the queue that `dead_letter_queue` names, or else the target of its queue's redrive policy, which SQS
keeps in the same account and region. A Storage Queue has `<queue>-poison`, as Azure Functions does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from consumer.dead_letters.queue_notes import NOTE, Note, read_note, write_note
from consumer.dead_letters.record import DeadLetter
from consumer.errors import SettingsError
from consumer.sources.base import Message, Outgoing, Source
from consumer.sources.sqs_messages import origin
from consumer.sources.storage_queue_messages import fits

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.sqs import SqsSource

__all__ = ["POISON", "DeadLetterQueue", "name_of", "plain_headers"]

POISON: Final = "-poison"
"""What Azure Functions appends to a queue's name: see "Azure Queue storage trigger", poison messages."""

_FIFO: Final = ".fifo"
_MOST_ATTRIBUTES: Final = 10
"""Message attributes of one SQS message, by its developer guide."""
_TYPE_BYTES: Final = len("String")
_SQS_TEXT: Final = re.compile(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""What SendMessage takes, by its reference."""
_TRACE: Final = "AWSTraceHeader"
"""SQS may set it by itself, so it is no part of what a note seals."""


class DeadLetterQueue:
    """Where the dead letters of one source go, and come back from. Raises SettingsError for a kind that has none."""

    def __init__(self, source: SourceSettings) -> None:
        if source.kind not in {"sqs", "storage_queue"}:
            raise SettingsError(f"source {source.name} is {source.kind}, which has no dead-letter queue")
        self.source = source
        self._secrets = _secrets(source)

    @property
    def fifo(self) -> bool:
        """Whether it keeps the order of groups."""
        return (self.source.queue_url or "").endswith(_FIFO)

    def renew(self, source: SourceSettings) -> None:
        """Use the signing secrets of these settings from now on."""
        self._secrets = _secrets(source)

    async def settings(self) -> SourceSettings:
        """The settings of the queue, as if it were a source itself.

        Raises SettingsError when none is named, and SourceError when its source's queue cannot be asked.
        """
        source = self.source
        if source.kind == "storage_queue":
            name = source.dead_letter_queue or f"{source.queue}{POISON}"
            # The service would delete after a week what nobody has looked at.
            changes: dict[str, Any] = {"queue": name, "options": {**source.options, "ttl": "never"}}
        else:
            from consumer.sources.sqs import region_of  # noqa: PLC0415 - only what is used is imported

            url = await self._url()
            name = name_of(url)
            changes = {"queue_url": url, "region": region_of(url) or source.region}
        return source.model_copy(update={"name": f"{source.name}, {name}", **changes})

    async def _url(self) -> str:
        url = self.source.queue_url or ""
        named = self.source.dead_letter_queue or await self._redrive_target()
        found = named if "://" in named else f"{url.rpartition('/')[0]}/{named}"
        if found.endswith(_FIFO) != self.fifo:
            kind = "FIFO" if self.fifo else "standard"
            raise self._wrong(f"expected a {kind} queue, since the source's queue is one")
        return found

    async def _redrive_target(self) -> str:
        source = _sqs(self.source)
        try:
            await source.open()
            facts = source.facts
        finally:
            await source.close()
        if facts.denied:
            raise self._wrong("set it, or allow sqs:GetQueueAttributes: the redrive policy cannot be read")
        if facts.redrive_target is None:
            raise self._wrong("missing, and the queue has no redrive policy that names one")
        return facts.redrive_target.rpartition(":")[2]

    def _wrong(self, text: str) -> SettingsError:
        return SettingsError(f"sources.{self.source.name}.dead_letter_queue: {text}")

    def make(self, settings: SourceSettings) -> Source:
        """The adapter of the queue that `settings` found; not open yet."""
        if settings.kind == "sqs":
            return _sqs(settings, redriven=True)
        from consumer.sources.storage_queue import StorageQueueSource  # noqa: PLC0415 - as above

        return StorageQueueSource(settings)

    def outgoing(self, record: DeadLetter, *, largest: int | None) -> Outgoing | None:
        """The record's message as it came, on SQS with a note where there is room; None if the queue cannot carry it.

        `largest` is how many bytes it takes. Where the broker has no room for a note, its reason is in the log alone.
        """
        if self.source.kind == "storage_queue":
            return Outgoing(record.message) if fits(record.message) else None
        headers = {name: value for name, value in record.headers.items() if name != NOTE and isinstance(value, str)}
        try:
            text = record.message.decode()
            size = len(record.message) + sum(map(_size, headers.items()))
        except UnicodeError:
            return None
        if not _SQS_TEXT.fullmatch(text) or (largest is not None and size > largest):
            return None
        given = record.attributes.get("ordering_key")
        group = given if isinstance(given, str) else None
        if self.fifo and group is None:
            group = self.source.name
        note = self._note(record, headers, group)
        if note is not None and (largest is None or size + _size((NOTE, note)) <= largest):
            headers[NOTE] = note
        # The id makes a message that a crash sends twice within five minutes one, on a FIFO queue.
        return Outgoing(record.message, headers, group, deduplication_id=record.id)

    def _note(self, record: DeadLetter, headers: Mapping[str, str], group: str | None) -> str | None:
        sealed = {name: value for name, value in headers.items() if name != _TRACE}
        if not self._secrets or len(sealed) >= _MOST_ATTRIBUTES:
            return None
        return write_note(record, secret=self._secrets[0], headers=sealed, group=group)

    def note(self, message: Message) -> Note | None:
        """What the worker wrote beside a message of this source, if it was one that knew the source's secrets."""
        text = message.headers.get(NOTE)
        if text is None:
            return None
        sealed = {name: value for name, value in plain_headers(message).items() if name != _TRACE}
        note = read_note(text, secrets=self._secrets, body=message.body, headers=sealed, group=message.ordering_key)
        return note if note is not None and note.source == self.source.name else None

    def sent_from_here(self, message: Message) -> bool | None:
        """Whether a redrive policy moved the message from this source's queue; None if the broker does not say."""
        arn = origin(message.headers)
        return None if arn is None else arn.rpartition(":")[2] == name_of(self.source.queue_url or "")


def plain_headers(message: Message) -> dict[str, str]:
    """A message's headers without what came to be on the dead-letter queue."""
    return {name: value for name, value in message.headers.items() if name != NOTE and ":" not in name}


def name_of(queue_url: str) -> str:
    """An SQS queue's name."""
    return queue_url.rpartition("/")[2]


def _sqs(settings: SourceSettings, *, redriven: bool = False) -> SqsSource:
    from consumer.sources.sqs import SqsSource  # noqa: PLC0415 - as above

    return SqsSource(settings, redriven=redriven)


def _secrets(source: SourceSettings) -> Sequence[str]:
    return [secret.get_secret_value() for secret in source.signature.secrets]


def _size(attribute: tuple[str, str]) -> int:
    """What SQS counts of a message attribute: name, type and value."""
    name, value = attribute
    return len(name) + _TYPE_BYTES + len(value.encode())
