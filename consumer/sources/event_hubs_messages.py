"""What an event on an event hub becomes as a message, and a message as an event.

The SDK's objects are read through their public properties only; nothing of it is imported here.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from consumer.sources.base import Message

__all__ = ["Arrival", "Reading", "by_key"]

_GZIP: Final = 31
"""zlib's window bits for data with a gzip header."""
_PLAIN: Final[Mapping[str, str]] = {}
_UNREADABLE: Final = b"an AMQP message whose parts make no sense"


@dataclass(slots=True)
class Arrival:
    """An event as it arrived, with its place in the partition."""

    message: Message
    sequence: int
    offset: str
    lane: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source's events are read. Reading never fails: what makes no sense arrives, and is refused later."""

    order_by: Literal["key", "partition", "member"]
    retention: timedelta | None
    largest: int
    """Bytes that a compressed body may unfold to."""

    def arrival(self, event: Any, partition_id: str) -> Arrival:
        """Read one `azure.eventhub.EventData`: what the hub says of it must be there, the rest may be anything."""
        sequence: int = event.sequence_number
        accepted_at = event.enqueued_time or datetime.now(UTC)
        key = event.partition_key
        if self.order_by == "partition":
            lane: str | None = partition_id
        elif self.order_by == "key" and key is not None:
            lane = _text(key)
        else:
            lane = None
        # AMQP lets a sender put anything anywhere, and one event must not keep out the others.
        try:
            body, headers = self._body(event), _headers(event.properties)
        except Exception:  # noqa: BLE001 - as just said
            body, headers = _UNREADABLE, _PLAIN
        message = Message(
            body=body,
            # A hub made anew counts from 0 again, so the time belongs to the name.
            message_id=f"{partition_id}-{sequence}-{int(accepted_at.timestamp() * 1000)}",
            receipt=None,
            accepted_at=accepted_at,
            receive_count=0,
            expires_at=accepted_at + self.retention if self.retention is not None else None,
            ordering_key=lane if lane is not None or key is None else _text(key),
            headers=headers,
        )
        return Arrival(message, sequence, event.offset or str(sequence), lane)

    def _body(self, event: Any) -> bytes:
        raw = _bytes(event)
        properties = event.raw_amqp_message.properties
        encoding = properties.content_encoding if properties is not None else None
        if encoding and _text(encoding).lower() == "gzip":
            return self._unfolded(raw)
        return raw

    def _unfolded(self, raw: bytes) -> bytes:
        """The content of a gzip; what is none, or too much, stays as it is."""
        unfolding = zlib.decompressobj(_GZIP)
        try:
            content = unfolding.decompress(raw, self.largest + 1)
        except zlib.error:
            return raw
        whole = unfolding.eof and not unfolding.unused_data and len(content) <= self.largest
        return content if whole else raw


def _bytes(event: Any) -> bytes:
    """The body's sections as one; a body that is no data at all arrives as text that no envelope looks like."""
    body = event.body
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    kind: str = event.body_type.value
    return b"".join(body) if kind == "data" else f"an AMQP body of type {kind}".encode()


def _headers(properties: Mapping[Any, Any] | None) -> Mapping[str, str]:
    if not properties:
        return _PLAIN
    return {_text(name): _text(value) for name, value in properties.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def by_key(items: Iterable[tuple[str | None, Any]]) -> dict[str | None, list[Any]]:
    """Group what is to be sent by its partition key, each group in the order given."""
    groups: dict[str | None, list[Any]] = {}
    for key, item in items:
        groups.setdefault(key, []).append(item)
    return groups
