"""The settings of a queue, and of the providers whose events it carries; see `consumer.settings`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from consumer.settings_azure import QUEUE_NAME, azure_problems, expand_development
from consumer.settings_platforms import SahhaSignatureSettings, Section, ThriveSignatureSettings
from consumer.settings_types import (
    Count,
    Duration,
    OptionalDuration,
    OptionalFilePath,
    OptionalSecret,
    OptionalText,
    PositiveDuration,
    Prefetch,
    Size,
    SourceKind,
    StartAt,
    Text,
)

__all__ = ["MEBIBYTE", "CheckpointSettings", "SourceSettings", "fold_source_name"]

MEBIBYTE = 1024 * 1024

_SOURCE_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*", re.ASCII)
_LONGEST_NAME = 64
_SQS_NAME = re.compile(r"(?=.{1,80}$)[A-Za-z0-9_-]+(\.fifo)?", re.ASCII)
_SQS_URL = re.compile(r"https?://[^/?#\s]+(/[^/?#\s]+)*/([^/?#\s]+)")


def fold_source_name(name: str) -> str:
    """Return a source's name as it is used everywhere: lower case, with `_` for `-`.

    The environment cannot spell it otherwise. Raises ValueError, with a text that stands after the setting's name.
    """
    folded = name.lower().replace("-", "_")
    if len(folded) > _LONGEST_NAME or not _SOURCE_NAME.fullmatch(folded):
        raise ValueError("expected a source name of letters, digits and single underscores")
    return folded


_ConnectionString = Annotated[OptionalSecret, AfterValidator(expand_development)]


class CheckpointSettings(Section):
    """Where an Event Hubs consumer keeps its place."""

    connection_string: _ConnectionString = Field(None, description="event_hubs: storage account of the checkpoints.")
    account_url: OptionalText = Field(None, description="event_hubs: the same, with DefaultAzureCredential.")
    container: OptionalText = Field(None, description="event_hubs: blob container of the checkpoints.")
    interval: PositiveDuration = Field(
        5.0, description="event_hubs: at most this long until a checkpoint follows what is finished."
    )
    ownership_interval: PositiveDuration = Field(
        10.0,
        description="event_hubs: how often ownership of partitions is renewed and shared out; "
        "a dead worker's partitions move after six of these.",
    )


_SIGNATURES: Mapping[str, type[ThriveSignatureSettings | SahhaSignatureSettings]] = {
    "thrive": ThriveSignatureSettings,
    "sahha": SahhaSignatureSettings,
}


def _read_signature(value: Any, info: ValidationInfo) -> ThriveSignatureSettings | SahhaSignatureSettings:
    """Which settings a signature has depends on the provider, which is read before it."""
    return _SIGNATURES[info.data.get("provider", "thrive")].model_validate(value)


def _default_signature(data: Mapping[str, Any]) -> ThriveSignatureSettings | SahhaSignatureSettings:
    return _SIGNATURES[data.get("provider", "thrive")]()


class SourceSettings(Section):
    """One queue.

    As `Settings.source` returns it, every inherited value is filled in. In `Settings.sources` only what the source
    itself says counts (`model_fields_set`); the rest are the defaults of the top level.
    """

    name: str = Field("source", exclude=True)
    kind: SourceKind = Field(description="local, sqs, event_hubs, storage_queue or a class: package.module:Class.")
    provider: Literal["thrive", "sahha"] = Field("thrive", description="Whose events it carries.")
    path: OptionalFilePath = Field(None, description="local: the queue's file.")
    queue_url: OptionalText = Field(None, description="sqs: the queue's URL.")
    region: OptionalText = Field(None, description="sqs: region, if not in the URL or the AWS configuration.")
    endpoint_url: OptionalText = Field(None, description="sqs: another endpoint, such as an emulator.")
    connection_string: _ConnectionString = Field(None, description="event_hubs, storage_queue: connection string.")
    namespace: OptionalText = Field(
        None, description="Part of the inbox key, so that equal ids of two tenants differ; event_hubs: the namespace."
    )
    event_hub: OptionalText = Field(None, description="event_hubs: the hub's name.")
    consumer_group: Text = Field("$Default", description="event_hubs: consumer group.")
    checkpoints: CheckpointSettings = CheckpointSettings()
    start_at: StartAt = Field(
        "earliest",
        description="event_hubs: where a partition without a checkpoint starts: earliest, latest or a time.",
    )
    order_by: Literal["key", "partition", "member"] = Field(
        "key",
        description="event_hubs: what is kept in order: events of one partition key (those without a key in any "
        "order), of a whole partition, or of one member.",
    )
    prefetch: Prefetch = Field(300, description="event_hubs: events fetched ahead for each partition.")
    retention: OptionalDuration = Field(
        None,
        description="event_hubs: how long the hub keeps events, which it does not tell; given, events are "
        "dead-lettered as expiring before the hub deletes them.",
    )
    account_url: OptionalText = Field(None, description="storage_queue: account URL, with DefaultAzureCredential.")
    queue: OptionalText = Field(None, description="storage_queue: the queue's name.")
    dead_letter_queue: OptionalText = Field(
        None,
        description="sqs, storage_queue: where dead letters go with dead_letters.kind = queue, a queue's name (sqs: or "
        "URL); unset: what the queue's redrive policy names, <queue>-poison.",
    )
    poll_wait: Duration = Field(10.0, description="Longest wait of an empty receive; at most the drain timeout.")
    lane_on_dead_letter: Literal["continue", "park"] = Field(
        "continue", description="What the rest of an ordered lane does once its head is a dead letter."
    )
    max_in_flight: Count = Field(200, description="Most deliveries held at once.")
    max_in_flight_bytes: Size = Field(64 * MEBIBYTE, description="Most bytes of deliveries held at once.")
    max_attempts: Count = Field(8, description="Failed attempts after which an event is a dead letter.")
    handler_timeout: PositiveDuration = Field(30.0, description="Longest one handler may take.")
    max_message_bytes: Size = Field(MEBIBYTE, description="Largest message that is read.")
    visibility_timeout: PositiveDuration = Field(60.0, description="Lease on a message; renewed at half of it.")
    signature: Annotated[ThriveSignatureSettings | SahhaSignatureSettings, PlainValidator(_read_signature)] = Field(
        default_factory=_default_signature
    )
    options: dict[str, str] = Field(
        default_factory=dict, repr=False, description="For a class of your own, as it likes."
    )

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> SourceSettings:
        needed = {"local": "path", "sqs": "queue_url"}.get(self.kind)
        if needed is not None and getattr(self, needed) is None:
            raise PydanticCustomError("needed", "{key}: missing", {"key": needed})
        for key, text in chain(azure_problems(self), _dead_letter_queue_problems(self)):
            raise PydanticCustomError("unfit", "{key}: {text}", {"key": key, "text": text})
        return self


def _dead_letter_queue_problems(source: SourceSettings) -> Iterator[tuple[str, str]]:
    """Yield (key below the source, what is expected) for a dead-letter queue that cannot be one."""
    key, given = "dead_letter_queue", source.dead_letter_queue
    if given is None:
        return
    if source.kind == "storage_queue":
        if not QUEUE_NAME.fullmatch(given):
            yield key, "expected a queue's name, of 3 to 63 lower-case letters, digits and single dashes"
        elif given == source.queue:
            yield key, "expected another queue than the source's own"
    elif source.kind == "sqs":
        url = _SQS_URL.fullmatch(given)
        name, own = url[2] if url else given, source.queue_url or ""
        if not _SQS_NAME.fullmatch(name):
            yield key, "expected a queue's name, or its URL, https://..."
        elif given in {own, own.rpartition("/")[2]}:
            yield key, "expected another queue than the source's own"
        elif name.endswith(".fifo") != own.endswith(".fifo"):
            yield key, f"expected a {'FIFO' if own.endswith('.fifo') else 'standard'} queue, as the source's is"
    else:
        yield key, f"expected none, since the source is {source.kind}"
