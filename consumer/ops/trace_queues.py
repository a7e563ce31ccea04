"""What spans say of a source's queue, by OpenTelemetry's names for it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from consumer.settings_azure import event_hub_of, namespace_host

if TYPE_CHECKING:
    from collections.abc import Mapping

    from consumer.settings_sources import SourceSettings

__all__ = ["TracedQueue"]

_SYSTEMS: Final[Mapping[str, str]] = {
    "sqs": "aws_sqs",
    "event_hubs": "eventhubs",
    # No value is registered for these two.
    "storage_queue": "azure_storage_queue",
    "local": "local",
}


@dataclass(frozen=True, slots=True)
class TracedQueue:
    """One source's queue, as its spans name it."""

    source: str
    """The source's name in the settings."""
    system: str
    """`messaging.system`."""
    name: str
    """`messaging.destination.name`: what the queue is called where it is; the source's name if it has none."""
    group: str | None = None
    """`messaging.consumer.group.name`."""
    host: str | None = None
    """`server.address`."""
    port: int | None = None
    partitioned: bool = False
    """Whether a message's id begins with its partition's, and a dash."""

    @classmethod
    def of(cls, settings: SourceSettings) -> Self:
        """The queue of a source with these settings; nothing of its credentials is looked at."""
        name, kind = settings.name, settings.kind
        system = _SYSTEMS.get(kind, kind)
        if kind == "sqs" and settings.queue_url is not None:
            host, port, _ = _address(settings.endpoint_url or settings.queue_url)
            path = _address(settings.queue_url)[2]
            return cls(name, system, path.rstrip("/").rpartition("/")[2] or name, host=host, port=port)
        if kind == "event_hubs":
            host = namespace_host(settings.namespace) if settings.namespace is not None else None
            hub = event_hub_of(settings) or name
            return cls(name, system, hub, group=settings.consumer_group, host=host, partitioned=True)
        if kind == "storage_queue":
            host, port, _ = _address(settings.account_url or "")
            return cls(name, system, settings.queue or name, host=host, port=port)
        return cls(name, system, name)

    def attributes(self) -> dict[str, str | int]:
        """The attributes that all of the queue's spans have."""
        found: dict[str, str | int] = {
            "messaging.system": self.system,
            "messaging.destination.name": self.name,
            "health_consumer.source": self.source,
        }
        if self.group is not None:
            found["messaging.consumer.group.name"] = self.group
        if self.host is not None:
            found["server.address"] = self.host
        if self.port is not None:
            found["server.port"] = self.port
        return found


def _address(url: str) -> tuple[str | None, int | None, str]:
    """Host, port and path of a URL; of what is none, nothing."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port, parts.path
    except ValueError:
        return None, None, ""
