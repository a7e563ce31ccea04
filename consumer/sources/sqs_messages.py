"""Messages as SQS writes them, read and written; and what must be known of a queue for that."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Self

from consumer.errors import SourceRefused
from consumer.sources.base import Message, Outgoing

__all__ = ["REDRIVEN_FROM", "Facts", "batches", "entry", "origin", "to_message"]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_TRACE: Final = "AWSTraceHeader"
REDRIVEN_FROM: Final = "DeadLetterQueueSourceArn"
"""The system attribute in which SQS says from which queue a redrive policy moved a message."""
_ORIGIN: Final = f"sqs:{REDRIVEN_FROM}"
"""As a header: with a colon, which no sender's attribute can have in its name."""
_KEPT: Final = (_TRACE, REDRIVEN_FROM)
_SYSTEM_HEADERS: Final = (_TRACE, _ORIGIN)
_LONGEST_DELAY: Final = 900
_BATCH: Final = 10
_BATCH_BYTES: Final = 1_000_000
"""A little below the 1 MiB that SQS takes in one call."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a queue's attributes say; the defaults are those of SQS."""

    retention: timedelta = timedelta(days=4)
    fifo: bool = False
    content_based: bool = False
    visibility: int = 30
    largest_message: int = 262_144
    """What SQS had as its only limit for long, and what older queues still have; 1 MiB is the most now."""
    redrive_after: int | None = None
    """`maxReceiveCount` of the redrive policy; None without one."""
    redrive_target: str | None = None
    """The ARN of the queue that the redrive policy moves messages to; None without one."""
    redrive_allowed: Mapping[str, Any] = field(default_factory=dict)
    """The redrive allow policy: which queues may have this one for their dead letters. Empty: all may."""
    arn: str | None = None
    denied: bool = False
    """The credentials may not read the attributes: nothing here is known but the order."""

    @classmethod
    def read(cls, attributes: Mapping[str, str]) -> Self:
        """From the attributes that GetQueueAttributes returns."""
        policy = _object(attributes.get("RedrivePolicy"))
        count, target = policy.get("maxReceiveCount"), policy.get("deadLetterTargetArn")
        return cls(
            retention=timedelta(seconds=int(attributes.get("MessageRetentionPeriod", 345_600))),
            fifo=attributes.get("FifoQueue") == "true",
            content_based=attributes.get("ContentBasedDeduplication") == "true",
            visibility=int(attributes.get("VisibilityTimeout", 30)),
            largest_message=int(attributes.get("MaximumMessageSize", 262_144)),
            redrive_after=None if count is None else int(count),
            redrive_target=target if isinstance(target, str) else None,
            redrive_allowed=_object(attributes.get("RedriveAllowPolicy")),
            arn=attributes.get("QueueArn"),
        )


def _object(text: str | None) -> Mapping[str, Any]:
    value = json.loads(text or "{}")
    return value if isinstance(value, dict) else {}


def to_message(raw: Mapping[str, Any], *, lease_until: float, facts: Facts) -> Message:
    """One message of a ReceiveMessage reply, as the worker knows it."""
    system: Mapping[str, str] = raw.get("Attributes") or _NO_HEADERS
    sent = system.get("SentTimestamp")
    accepted = datetime.now(UTC) if sent is None else datetime.fromtimestamp(int(sent) / 1000, UTC)
    custom = raw.get("MessageAttributes")
    return Message(
        # A lone surrogate is no text: it must become a message that cannot be read, not an error here.
        raw["Body"].encode("utf-8", "surrogatepass"),
        raw["MessageId"],
        raw["ReceiptHandle"],
        accepted,
        int(system.get("ApproximateReceiveCount", 1)),
        lease_until,
        accepted + facts.retention,
        # On a standard queue a group id asks for fairness between tenants, not for order.
        system.get("MessageGroupId") if facts.fifo else None,
        _headers(custom or _NO_HEADERS, system) if custom or not system.keys().isdisjoint(_KEPT) else _NO_HEADERS,
    )


def _headers(custom: Mapping[str, Any], system: Mapping[str, str]) -> dict[str, str]:
    headers = {
        name: value["StringValue"] for name, value in custom.items() if isinstance(value.get("StringValue"), str)
    }
    if _TRACE in system:
        headers.setdefault(_TRACE, system[_TRACE])
    if REDRIVEN_FROM in system:
        headers[_ORIGIN] = system[REDRIVEN_FROM]
    return headers


def origin(headers: Mapping[str, str]) -> str | None:
    """The ARN of the queue that a redrive policy took the message from, as SQS says; None if it does not."""
    return headers.get(_ORIGIN)


def entry(message: Outgoing, *, name: str, fifo: bool) -> dict[str, Any]:
    """A SendMessageBatch entry, without its Id.

    Raises SourceRefused for what SQS cannot carry: bytes that are not UTF-8, or a delay it does not know.
    """
    try:
        made: dict[str, Any] = {"MessageBody": message.body.decode()}
    except UnicodeDecodeError:
        raise SourceRefused(f"source {name}: SQS carries text only, and the message is not UTF-8") from None
    headers = {key: value for key, value in message.headers.items() if key not in _SYSTEM_HEADERS}
    if headers:
        made["MessageAttributes"] = {key: _text(value) for key, value in headers.items()}
    if _TRACE in message.headers:
        made["MessageSystemAttributes"] = {_TRACE: _text(message.headers[_TRACE])}
    if fifo:
        # Made here, once for a message, so that a repeated call cannot put it on the queue twice.
        made["MessageDeduplicationId"] = message.deduplication_id or uuid.uuid4().hex
        made["MessageGroupId"] = message.ordering_key or name
    delay = math.ceil(message.delay)
    if delay > _LONGEST_DELAY or (fifo and delay):
        limit = "a FIFO queue has none for single messages" if fifo else "SQS has 15 minutes at most"
        raise SourceRefused(f"source {name}: the delay is too long: {limit}")
    if delay:
        made["DelaySeconds"] = delay
    return made


def _text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def batches(entries: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The entries in their order, in as few calls as SQS allows: by number and by size."""
    batch: list[dict[str, Any]] = []
    size = 0
    for one in entries:
        weight = _weight(one)
        if batch and (len(batch) == _BATCH or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += weight
    if batch:
        yield batch


def _weight(one: Mapping[str, Any]) -> int:
    """An upper bound of what SQS counts: the text as JSON writes it, which is also what the request carries."""
    return len(json.dumps([one["MessageBody"], one.get("MessageAttributes")]))
