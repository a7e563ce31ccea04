"""The SDK's consumer, mended in five places that azure-eventhub 5.15 leaves open.

- A link that the hub refuses (no such consumer group, no permission to listen) is attached again once a second for
  ever, and nobody is told: what fails before the first attach is dropped.
- A link remembers the delivery tag of every event it ever received, over 100 bytes each, which nothing reads between
  two turns of its loop.
- What it asks the hub for is a number of events, however large they are.
- An event with a part that its decoder does not know (AMQP's char and decimals, which other SDKs send) ends the link,
  again and again at the same place: nothing behind that event would ever be received.
- Of every message it makes two events, the first of an empty body, which is a seventh of what receiving one costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from azure.eventhub import EventData
from azure.eventhub._pyamqp import _decode
from azure.eventhub._pyamqp.aio import _receiver_async
from azure.eventhub.aio import EventHubConsumerClient
from azure.eventhub.amqp import AmqpAnnotatedMessage

__all__ = ["Credit", "LinkWatchingClient", "OnLink", "made"]

_MOST_TAGS: Final = 1_000
_NOT_KNOWN: Final = {0x73: 4, 0x74: 4, 0x84: 8}
"""Constructors of char, decimal32 and decimal64, and the size of their values: AMQP 1.0, part 1, 1.6."""

OnLink = Callable[[str, Exception | None], None]
"""Told the partition, and None when its link is open, else why it could not be opened."""
Credit = Callable[[str], int]
"""How many more events of a partition the hub may send, once it has sent those it may."""


class LinkWatchingClient(EventHubConsumerClient):
    """An `EventHubConsumerClient` that tells what becomes of its links, and bounds what they hold."""

    on_link: OnLink | None = None
    credit: Credit | None = None

    def _create_consumer(self, consumer_group: str, partition_id: str, *arguments: Any, **options: Any) -> Any:
        consumer: Any = super()._create_consumer(consumer_group, partition_id, *arguments, **options)
        attach = consumer._open  # noqa: SLF001 - the one place that every attach goes through
        prepare = consumer._create_handler  # noqa: SLF001 - the one before it

        async def watched() -> None:
            """Attach unless it is attached; the loop asks before each of its turns."""
            was_open = consumer.running
            try:
                await attach()
            except Exception as error:
                self._tell(partition_id, error)
                raise
            if not was_open:
                self._tell(partition_id, None)
            self._bound(consumer._handler, partition_id)  # noqa: SLF001 - it has no other name

        def prepared(auth: Any) -> None:
            """Make what will attach, with no more credit from the start."""
            prepare(auth)
            self._bound(consumer._handler, partition_id)  # noqa: SLF001 - as above

        consumer._open = watched  # noqa: SLF001 - as above
        consumer._create_handler = prepared  # noqa: SLF001 - as above
        consumer._next_message_in_buffer = lambda: _next_event(consumer)  # noqa: SLF001 - as above
        return consumer

    def _tell(self, partition_id: str, error: Exception | None) -> None:
        if self.on_link is not None:
            self.on_link(partition_id, error)

    def _bound(self, handler: Any, partition_id: str) -> None:
        tags = getattr(getattr(handler, "_link", None), "_received_delivery_tags", None)
        if tags is not None and len(tags) > _MOST_TAGS:
            tags.clear()
        if self.credit is not None:
            handler._link_credit = self.credit(partition_id)  # noqa: SLF001 - what it gives when it has none left


def _next_event(consumer: Any) -> EventData:
    """Take the next message out of the SDK's buffer, as the event that `EventData._from_message` makes of it."""
    event = made(consumer._message_buffer.popleft())  # noqa: SLF001 - as above
    consumer._last_received_event = event  # noqa: SLF001 - where a link that breaks begins again
    return event


def made(message: Any) -> EventData:
    """The event of a received AMQP message, made once."""
    event = EventData.__new__(EventData)
    parts = {
        "_last_enqueued_event_properties": {},
        "_sys_properties": None,
        "_uamqp_message": None,
        "_message": message,
        "_raw_amqp_message": AmqpAnnotatedMessage(message=message),
    }
    vars(event).update(parts)
    return event


def _raw(size: int) -> Callable[[Any], tuple[Any, bytes]]:
    def decode(buffer: Any) -> tuple[Any, bytes]:
        return buffer[size:], bytes(buffer[:size])

    return decode


def _decoded(buffer: Any) -> Any:
    """Decode an event; of one that cannot be, what stands before the part in question, and the rest as its body."""
    try:
        return _decode.decode_payload(buffer)
    except Exception:  # noqa: BLE001 - whatever a sender put there
        whole = bytes(buffer)
        known = _known(whole)
        message = _decode.decode_payload(memoryview(whole[:known]))
        return message._replace(data=[whole[known:]], value=None, sequence=None)


def _known(whole: bytes) -> int:
    """The length of the sections, from the first, that can be decoded."""
    rest: Any = memoryview(whole)
    known = 0
    with contextlib.suppress(Exception):
        while rest:
            rest, _ = _decode._DECODE_BY_CONSTRUCTOR[rest[3]](rest[4:])  # noqa: SLF001 - as the decoder itself does
            known = len(whole) - len(rest)
    return known


for _code, _size in _NOT_KNOWN.items():
    if _decode._DECODE_BY_CONSTRUCTOR[_code] is None:  # noqa: SLF001 - as above
        _decode._DECODE_BY_CONSTRUCTOR[_code] = _raw(_size)  # noqa: SLF001 - as above
vars(_receiver_async)["decode_payload"] = _decoded
