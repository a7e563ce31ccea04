"""Sending to an event hub."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from consumer.errors import SourceRefused
from consumer.sources.base import Outgoing
from consumer.sources.event_hubs_errors import hub_trouble
from consumer.sources.event_hubs_messages import by_key

__all__ = ["LARGEST_MESSAGE", "largest_message", "send_all"]

LARGEST_MESSAGE: Final = 255 * 1024
"""What every hub takes: 256 KiB in the basic tier, 1 MiB in others, less what an event has beside its body."""

_SEND_LIMIT: Final = 15.0
_FRAME: Final = 1024


async def largest_message(producer: Any, *, name: str) -> int:
    """The bytes of the largest body that this hub takes, as its link tells. Raises SourceRefused, SourceUnavailable."""
    batch = await _new_batch(producer, None, name)
    return int(batch.max_size_in_bytes) - _FRAME


async def send_all(producer: Any, messages: Sequence[Outgoing], *, name: str) -> None:
    """Send messages by an `EventHubProducerClient`, in as few batches as fit; those of one key in order.

    Raises SourceRefused for one that is too large or should be delayed, SourceUnavailable.
    """
    if any(message.delay > 0 for message in messages):
        raise SourceRefused(f"source {name}: an event hub cannot delay events")
    for key, group in by_key((message.ordering_key, message) for message in messages).items():
        await _send_group(producer, key, group, name)


async def _send_group(producer: Any, key: str | None, group: Sequence[Outgoing], name: str) -> None:
    batch = await _new_batch(producer, key, name)
    for message in group:
        event = _event(message)
        if _added(batch, event):
            continue
        if len(batch):
            await _send(producer, batch, name)
            batch = await _new_batch(producer, key, name)
        if not _added(batch, event):
            limit = batch.max_size_in_bytes
            raise SourceRefused(f"source {name}: a message is larger than the {limit} bytes that the hub takes")
    if len(batch):
        await _send(producer, batch, name)


def _event(message: Outgoing) -> Any:
    event = import_module("azure.eventhub").EventData(message.body)
    if message.headers:
        event.properties = dict(message.headers)
    return event


def _added(batch: Any, event: Any) -> bool:
    try:
        batch.add(event)
    except ValueError:  # how the SDK says that it does not fit
        return False
    return True


async def _new_batch(producer: Any, key: str | None, name: str) -> Any:
    try:
        return await producer.create_batch(partition_key=key)
    except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the protocol knows two errors
        raise hub_trouble(name, "sending", error) from None


async def _send(producer: Any, batch: Any, name: str) -> None:
    try:
        await producer.send_batch(batch, timeout=_SEND_LIMIT)
    except Exception as error:  # noqa: BLE001 - as above
        raise hub_trouble(name, "sending", error) from None
