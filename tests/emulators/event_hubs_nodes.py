"""The nodes of an Event Hubs emulator: `$cbs`, `$management`, and what sends to and reads from partitions."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

from tests.emulators.amqp_codec import Described, Int
from tests.emulators.amqp_frames import AmqpError, Section, section, sections
from tests.emulators.amqp_links import Link, Outgoing
from tests.emulators.event_hubs_faults import Faults
from tests.emulators.event_hubs_log import Event, Hub, Partition, Reader

__all__ = ["Answer", "HubSink", "PartitionFeed", "ReplyFeed", "RequestSink", "entity_path", "put_token", "selector"]

Answer = tuple[int, str, Any]
"""Status, its description, and the value of the reply."""

_SELECTORS = {"apache.org:selector-filter:string", 0x0000468C_00000004}
_METRICS = "com.microsoft:enable-receiver-runtime-metric"
_FILTER = 7
_MESSAGE_ID, _REPLY_TO = 0, 4


def entity_path(address: str) -> str:
    """The path of an address that may be a whole URL."""
    return (urlsplit(address).path if "://" in address else address).strip("/")


def put_token(properties: Mapping[str, Any], token: Any, keys: Mapping[str, str], now: float) -> tuple[str, float]:
    """Check a token for `$cbs`; return the path it is good for, and until when (seconds since the epoch).

    A JWT is taken unread. Raises AmqpError if a shared access signature is wrong or over.
    """
    if properties.get("operation") != "put-token":
        raise AmqpError("amqp:not-implemented", "Only put-token is known.")
    if properties.get("type") == "jwt":
        return entity_path(str(properties.get("name", ""))), math.inf
    fields = parse_qs(str(token).partition(" ")[2])
    raw = dict(pair.partition("=")[::2] for pair in str(token).partition(" ")[2].split("&"))
    try:
        audience, signature, expiry, name = (fields[key][0] for key in ("sr", "sig", "se", "skn"))
        until = float(expiry)
    except (KeyError, ValueError):
        raise AmqpError("amqp:unauthorized-access", "MalformedToken: The token is malformed.") from None
    key = keys.get(unquote_plus(name), "")
    expected = base64.b64encode(hmac.digest(key.encode(), f"{raw['sr']}\n{raw['se']}".encode(), hashlib.sha256))
    if not key or not hmac.compare_digest(expected, signature.encode()):
        raise AmqpError("amqp:unauthorized-access", "InvalidSignature: The token has an invalid signature.")
    if until <= now:
        raise AmqpError("amqp:unauthorized-access", "ExpiredToken: The token is expired.")
    return entity_path(audience), until


def selector(link: Link) -> str | None:
    """The selector in the source of a link: the filter that is described as one, whatever its name."""
    source = link.request.source
    filters = source.value[_FILTER] if source is not None and len(source.value) > _FILTER else None
    for value in (filters or {}).values():
        if isinstance(value, Described) and value.descriptor in _SELECTORS:
            return str(value.value)
    return None


class ReplyFeed:
    """The replies of a node that answers requests, on one link of the peer."""

    def __init__(self, feeds: list[ReplyFeed], link: Link) -> None:
        self.address = link.peer_address
        self.session = link.session
        self._feeds = feeds
        self._waiting: deque[bytes] = deque()
        self._link: Outgoing | None = None

    def start(self, link: Outgoing) -> None:
        self._link = link
        self._feeds.append(self)

    def close(self) -> None:
        self._feeds.remove(self)

    def take(self, limit: int) -> Sequence[bytes]:
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def reply(self, message: bytes) -> None:
        """Send this."""
        self._waiting.append(message)
        if self._link is not None:
            self._link.wake()


class RequestSink:
    """Takes requests, and sends what `answer` makes of them to the link that the request names, or else the latest."""

    max_message_size = 1 << 20

    def __init__(self, link: Link, feeds: list[ReplyFeed], answer: Callable[[Mapping[str, Any], Any], Answer]) -> None:
        self._session = link.session
        self._feeds = feeds
        self._answer = answer

    def close(self) -> None:
        """Nothing to give back."""

    def put(self, message: bytes, message_format: int) -> None:
        found = {part.code: part.value for part in sections(message)}
        properties = [*(found.get(Section.PROPERTIES) or []), *[None] * 13][:13]
        status, description, value = self._answer(
            found.get(Section.APPLICATION_PROPERTIES) or {}, found.get(Section.VALUE)
        )
        state = {"status-code": Int(status), "status-description": description}
        state |= {"statusCode": Int(status), "statusDescription": description}
        head = [None] * 5 + [properties[_MESSAGE_ID]] + [None] * 7
        reply = section(Section.PROPERTIES, head) + section(Section.APPLICATION_PROPERTIES, state)
        self._feed(properties[_REPLY_TO]).reply(reply + section(Section.VALUE, value))

    def _feed(self, reply_to: Any) -> ReplyFeed:
        named = [feed for feed in self._feeds if reply_to is not None and feed.address == reply_to]
        near = [feed for feed in self._feeds if feed.session is self._session]
        for feeds in (named, near, self._feeds):
            if feeds:
                return feeds[-1]
        raise AmqpError("amqp:not-allowed", "There is no link for the reply.")


class HubSink:
    """Takes events for a hub, or for one partition of it."""

    def __init__(
        self,
        hub: Hub,
        partition: Partition | None,
        *,
        faults: Faults,
        clock: Callable[[], float],
        max_message_size: int,
    ) -> None:
        self.max_message_size = max_message_size
        self._hub = hub
        self._partition = partition
        self._faults = faults
        self._clock = clock

    def put(self, message: bytes, message_format: int) -> None:
        partition = self._partition.id if self._partition else None
        fault = self._faults.draw("reject_sends", self._clock(), hub=self._hub.name, partition=partition)
        if fault is not None:
            raise fault.error()
        self._hub.put(message, message_format, self._clock(), self._partition)

    def close(self) -> None:
        """Nothing to give back."""


class PartitionFeed:
    """Reads a partition for one link."""

    def __init__(
        self, hub: Hub, partition: Partition, link: Link, *, group: str, faults: Faults, clock: Callable[[], float]
    ) -> None:
        properties = link.request.properties or {}
        level = properties.get("com.microsoft:epoch")
        name = str(properties.get("com.microsoft:receiver-name", "nil"))
        self.reader = Reader(partition, group, None if level is None else int(level), name, self._steal)
        self._hub = hub
        self._partition = partition
        self._faults = faults
        self._clock = clock
        wanted = link.request.desired_capabilities or []
        self._metrics = _METRICS in (wanted if isinstance(wanted, list) else [wanted])
        self._link: Outgoing | None = None

    def _steal(self, error: AmqpError) -> None:
        if self._link is not None:
            self._link.detach(error)

    def start(self, link: Outgoing) -> None:
        self._link = link
        self._partition.listeners.add(link.wake)

    def close(self) -> None:
        self.reader.leave()
        if self._link is not None:
            self._partition.listeners.discard(self._link.wake)

    def take(self, limit: int) -> Sequence[bytes]:
        if self._faults.active and self._faults.draw(
            "silent", self._clock(), hub=self._hub.name, partition=self._partition.id
        ):
            return []
        events = self._partition.read(self.reader.next, limit)
        if not events:
            return []
        self.reader.next = events[-1].sequence + 1
        self._partition.delivered += len(events)
        if self._metrics:
            return self._with_metrics(events)
        return [event.encoded for event in events]

    def _with_metrics(self, events: Sequence[Event]) -> list[bytes]:
        metrics = self._partition.metrics(self._clock())
        return [event.encoded[: event.head] + metrics + event.encoded[event.head :] for event in events]
