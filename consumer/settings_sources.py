"""The settings of a queue, and of the providers whose events it carries; see `consumer.settings`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from consumer.settings_azure import azure_problems, expand_development
from consumer.settings_types import (
    AgeLimit,
    Count,
    Duration,
    OptionalDuration,
    OptionalFilePath,
    OptionalPattern,
    OptionalSecret,
    OptionalText,
    PositiveDuration,
    Prefetch,
    Secrets,
    Size,
    SourceKind,
    StartAt,
    Text,
)

__all__ = [
    "DAY",
    "HOUR",
    "MEBIBYTE",
    "MINUTE",
    "SAHHA_MAX_AGE",
    "CheckpointSettings",
    "SahhaSettings",
    "SahhaSignatureSettings",
    "Section",
    "SignatureFieldSettings",
    "SourceSettings",
    "ThriveEventTypeSettings",
    "ThriveFieldSettings",
    "ThriveSettings",
    "ThriveSignatureSettings",
    "fold_source_name",
]

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MEBIBYTE = 1024 * 1024
SAHHA_MAX_AGE = 60 * DAY

_SOURCE_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*", re.ASCII)
_LONGEST_NAME = 64


class Section(BaseModel):
    """A group of settings: fixed once read, no other names, and no value in any error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def fold_source_name(name: str) -> str:
    """Return a source's name as it is used everywhere: lower case, with `_` for `-`.

    The environment cannot spell it otherwise. Raises ValueError, with a text that stands after the setting's name.
    """
    folded = name.lower().replace("-", "_")
    if len(folded) > _LONGEST_NAME or not _SOURCE_NAME.fullmatch(folded):
        raise ValueError("expected a source name of letters, digits and single underscores")
    return folded


class SignatureFieldSettings(Section):
    """Where the parts of a Thrive envelope are."""

    signed_at: Text = Field("signed_at", description="Envelope field that holds the time of signing.")
    body: Text = Field("body", description="Envelope field that holds the event.")
    signature: Text = Field("signature", description="Envelope field that holds the signature; a dotted path works.")
    key_id: OptionalText = Field(None, description="Envelope field that names the key, if there is one.")


class ThriveSignatureSettings(Section):
    """How Thrive signs."""

    secrets: Secrets = Field(
        default_factory=list, description="Signing secrets; during a rotation, the new and the old one."
    )
    template: Text = Field("{signed_at}.{body}", description="The text that is signed.")
    algorithm: Literal["sha256", "sha384", "sha512"] = Field("sha256", description="Hash of the HMAC.")
    encoding: Literal["auto", "hex", "base64", "base64url"] = Field("auto", description="How signatures are written.")
    prefix: str | None = Field(None, description="Text in front of a signature, if it is not a usual one (sha256=).")
    secret_encoding: Literal["utf8", "hex", "base64"] = Field("utf8", description="How a secret becomes a key.")
    max_age: AgeLimit = Field(72 * HOUR, description="How old a message may be when the queue accepts it, or off.")
    max_future_skew: Duration = Field(5 * MINUTE, description="How far ahead of the queue's clock it may be.")
    fields: SignatureFieldSettings = SignatureFieldSettings()

    @field_validator("template")
    @classmethod
    def _template_signs_the_body(cls, template: str) -> str:
        if "{body}" not in template:
            raise ValueError("expected text with {body} in it, such as {signed_at}.{body}")
        return template


class SahhaSignatureSettings(Section):
    """How Sahha signs."""

    secrets: Secrets = Field(default_factory=list, description="Webhook secrets, as the dashboard shows them.")
    encoding: Literal["auto", "hex", "base64"] = Field("auto", description="How signatures are written.")
    max_age: AgeLimit = Field(SAHHA_MAX_AGE, description="How old an event may be when the queue accepts it, or off.")


class ThriveEventTypeSettings(Section):
    """Which type names mean which event; globs such as `lab.*`. None leaves the built-in names."""

    lab_result: OptionalPattern = Field(None, description="Type names of lab results; globs such as lab.* work.")
    daily_device: OptionalPattern = Field(None, description="Type names of daily device data.")
    nudge: OptionalPattern = Field(None, description="Type names of nudges.")
    program: OptionalPattern = Field(None, description="Type names of program events.")


class ThriveFieldSettings(Section):
    """Where in a body the common fields are: dotted paths, the first present wins. None leaves the built-in ones."""

    event_type: OptionalPattern = Field(None, description="Body fields that hold the event's type; dotted paths.")
    user_id: OptionalPattern = Field(None, description="Body fields that hold the user's id.")
    target_id: OptionalPattern = Field(None, description="Body fields that hold the id of what the event is about.")
    occurred_at: OptionalPattern = Field(None, description="Body fields that hold the time of the event.")


class ThriveSettings(Section):
    """Thrive AI Health."""

    signature: ThriveSignatureSettings = ThriveSignatureSettings()
    event_types: ThriveEventTypeSettings = ThriveEventTypeSettings()
    fields: ThriveFieldSettings = ThriveFieldSettings()


class SahhaSettings(Section):
    """Sahha."""

    signature: SahhaSignatureSettings = SahhaSignatureSettings()


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
        for key, text in azure_problems(self):
            raise PydanticCustomError("unfit", "{key}: {text}", {"key": key, "text": text})
        return self
