"""The SDK's consumer, mended in two places that azure-eventhub 5.15 leaves open.

A link that the hub refuses (no such consumer group, no permission to listen) is attached again once a second for ever,
and nobody is told: what fails before the first attach is dropped. And a link remembers the delivery tag of every event
it ever received, over 100 bytes each, which nothing reads between two turns of its loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from azure.eventhub.aio import EventHubConsumerClient

__all__ = ["LinkWatchingClient", "OnLink"]

_MOST_TAGS: Final = 1_000

OnLink = Callable[[str, Exception | None], None]
"""Told the partition, and None when its link is open, else why it could not be opened."""


class LinkWatchingClient(EventHubConsumerClient):
    """An `EventHubConsumerClient` that tells what becomes of its links, and bounds what they remember."""

    on_link: OnLink | None = None

    def _create_consumer(self, consumer_group: str, partition_id: str, *arguments: Any, **options: Any) -> Any:
        consumer: Any = super()._create_consumer(consumer_group, partition_id, *arguments, **options)
        attach = consumer._open  # noqa: SLF001 - the one place that every attach goes through

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
            _forget_tags(consumer)

        consumer._open = watched  # noqa: SLF001 - as above
        return consumer

    def _tell(self, partition_id: str, error: Exception | None) -> None:
        if self.on_link is not None:
            self.on_link(partition_id, error)


def _forget_tags(consumer: Any) -> None:
    link = getattr(getattr(consumer, "_handler", None), "_link", None)
    tags = getattr(link, "_received_delivery_tags", None)
    if tags is not None and len(tags) > _MOST_TAGS:
        tags.clear()
