"""Every setting, typed, and described once: the tables in the documentation are made from these descriptions.

This module says what settings exist, what they default to and which contradict each other. Where they come from
(flags, environment, TOML, secret files) is `consumer.settings_loading`. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from consumer.durations import format_duration
from consumer.errors import SettingsError
from consumer.settings_dead_letters import DEFAULT_DEAD_LETTER_AGE, DeadLetterSettings, dead_letter_problems
from consumer.settings_platforms import (
    DAY,
    HOUR,
    MINUTE,
    SAHHA_MAX_AGE,
    HttpSettings,
    SahhaSettings,
    SahhaSignatureSettings,
    Section,
    SignatureFieldSettings,
    ThriveEventTypeSettings,
    ThriveFieldSettings,
    ThriveSettings,
    ThriveSignatureSettings,
)
from consumer.settings_sources import MEBIBYTE, CheckpointSettings, SourceSettings, fold_source_name
from consumer.settings_types import (
    Count,
    DatabaseUrl,
    Duration,
    FilePath,
    HandlersName,
    OptionalFilePath,
    OptionalSize,
    OptionalText,
    Port,
    PositiveDuration,
    Retention,
    Size,
    Text,
    lower_case,
)

__all__ = [
    "INHERITED",
    "CheckpointSettings",
    "ControlSettings",
    "DatabaseSettings",
    "DeadLetterSettings",
    "HealthSettings",
    "HttpSettings",
    "InboxSettings",
    "LogSettings",
    "RelaySettings",
    "RetrySettings",
    "SahhaSettings",
    "SahhaSignatureSettings",
    "Settings",
    "SignatureFieldSettings",
    "SourceSettings",
    "ThriveEventTypeSettings",
    "ThriveFieldSettings",
    "ThriveSettings",
    "ThriveSignatureSettings",
    "contradictions",
    "fold_source_name",
]

INHERITED = (
    "max_in_flight",
    "max_in_flight_bytes",
    "max_attempts",
    "handler_timeout",
    "max_message_bytes",
    "visibility_timeout",
)
"""What a source takes from the top level unless it says otherwise itself."""

# The longest a queue may keep a message by itself: SQS allows 14 days, the others are usually left at 7 (a hub's own
# is a setting, which counts where it is given). A kind we do not know is taken for the longest.
_QUEUE_RETENTION = {"local": 0.0, "sqs": 14 * DAY, "event_hubs": 7 * DAY, "storage_queue": 7 * DAY}
_LONGEST_QUEUE_RETENTION = 14 * DAY
_SHORTEST_VISIBILITY = 2.0
_LONGEST_SQS_VISIBILITY = 12 * HOUR
_LONGEST_STORAGE_VISIBILITY = 7 * DAY
_SHORTEST_HUB_RETENTION = HOUR
_LONGEST_HUB_RETENTION = 90 * DAY
_LONGEST_SQS_POLL = 20.0
_LONGEST_RELAY_TIMEOUT = 15.0

_DEFAULT_RETENTION = 90 * DAY
# With a Sahha source 90 days would contradict the other defaults; these are theirs, added up.
_DEFAULT_SAHHA_RETENTION = SAHHA_MAX_AGE + _LONGEST_QUEUE_RETENTION + DEFAULT_DEAD_LETTER_AGE

_Model = TypeVar("_Model", bound=BaseModel)


class DatabaseSettings(Section):
    """The database of the inbox and of `context.session`."""

    url: DatabaseUrl = Field(
        SecretStr("sqlite+aiosqlite:///consumer.db"), description="SQLite, or postgresql://... through asyncpg."
    )
    auto_migrate: bool | None = Field(
        None, description="Whether `run` creates and changes the tables; unset: with SQLite only."
    )


class InboxSettings(Section):
    """The memory of what took effect."""

    retention: Retention = Field(
        _DEFAULT_RETENTION, description="How long events are remembered, or forever; 134d by default with Sahha."
    )


class HealthSettings(Section):
    """The HTTP server with /startupz, /livez, /readyz and /metrics."""

    enabled: bool = Field(True, description="Whether to serve /startupz, /livez, /readyz and /metrics.")
    host: Text = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(8080, description="Port to listen on; 0: any free one. `relay` has 8082 unless this is set.")


class ControlSettings(Section):
    """The socket by which `consumer status`, `pause`, `resume` and `skip` reach a running worker."""

    enabled: bool = Field(True, description="Whether `run` opens its control socket.")
    path: OptionalFilePath = Field(
        None,
        description="Folder of the control socket, ours alone (0700) and made when missing; unset: "
        "health-event-consumer-<uid> among the temporary files.",
    )


class LogSettings(Section):
    """What goes to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(lower_case)] = Field(
        "info", description="Least level that is logged."
    )
    format: Annotated[Literal["auto", "json", "console"], BeforeValidator(lower_case)] = Field(
        "auto", description="auto: console on a terminal, else json."
    )


class RetrySettings(Section):
    """Exponential backoff with full jitter."""

    base: PositiveDuration = Field(1.0, description="Longest delay after the first failed attempt; doubles from there.")
    cap: PositiveDuration = Field(15 * MINUTE, description="Longest delay after any failed attempt.")


class RelaySettings(Section):
    """`consumer relay`: webhooks in, messages out."""

    source: OptionalText = Field(
        None, description="relay: the source whose queue it fills; unset: the only one with provider sahha."
    )
    host: Text = Field("127.0.0.1", description="relay: address to listen on.")
    port: Port = Field(8081, description="relay: port to listen on; 0: any free one.")
    max_body_bytes: OptionalSize = Field(
        None, description="relay: largest webhook body; unset: what the queue can carry, at most 256KiB."
    )
    max_concurrency: Count = Field(500, description="relay: most webhooks in hand; beyond, 503 with Retry-After.")
    timeout: PositiveDuration = Field(10.0, description="relay: longest the queue may take to accept a webhook.")
    verify: bool = Field(False, description="relay: answer 401 to a bad signature; the worker verifies in any case.")

    @field_validator("timeout")
    @classmethod
    def _timeout_leaves_time_to_answer(cls, timeout: float) -> float:
        if timeout > _LONGEST_RELAY_TIMEOUT:
            raise ValueError("expected 15s or less, since Sahha waits 30s for an answer, and a body may take 10s")
        return timeout


def _with_defaults(given: Any, defaults: Mapping[str, Any]) -> Any:
    return {**defaults, **given} if isinstance(given, Mapping) else given


def _default_inbox(data: Mapping[str, Any]) -> InboxSettings:
    sources: Mapping[str, SourceSettings] = data.get("sources", {})
    sahha = any(source.provider == "sahha" for source in sources.values())
    return InboxSettings(retention=_DEFAULT_SAHHA_RETENTION) if sahha else InboxSettings()


class Settings(Section):
    """All settings. Build it with `consumer.settings_loading.load_settings`."""

    handlers: HandlersName = Field("handlers", description="The handlers: module or module:attribute (`table`).")
    app_dir: FilePath = Field(Path(), description="Folder the handlers are imported from.")
    data_dir: FilePath = Field(
        Path(), description="Folder of database and dead letters where their own settings do not say another."
    )
    sources: dict[str, SourceSettings] = Field(default_factory=dict)
    max_in_flight: Count = Field(200, description="Most deliveries a source holds at once.")
    max_in_flight_bytes: Size = Field(64 * MEBIBYTE, description="Most bytes of deliveries a source holds at once.")
    max_attempts: Count = Field(8, description="Failed attempts after which an event is a dead letter.")
    handler_timeout: PositiveDuration = Field(30.0, description="Longest one handler may take.")
    max_message_bytes: Size = Field(MEBIBYTE, description="Largest message that is read.")
    visibility_timeout: PositiveDuration = Field(60.0, description="Lease on a message; renewed at half of it.")
    drain_timeout: Duration = Field(25.0, description="Longest a stopping worker takes to finish what it holds.")
    unknown_events: Literal["dead_letter", "ack"] = Field(
        "dead_letter", description="What becomes of events of a type nobody knows."
    )
    uvloop: bool = Field(False, description="Run on uvloop (extra `uvloop`).")
    thrive: ThriveSettings = ThriveSettings()
    sahha: SahhaSettings = SahhaSettings()
    database: DatabaseSettings = DatabaseSettings()
    inbox: InboxSettings = Field(default_factory=_default_inbox)
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    health: HealthSettings = HealthSettings()
    control: ControlSettings = ControlSettings()
    log: LogSettings = LogSettings()
    relay: RelaySettings = RelaySettings()
    retry: RetrySettings = RetrySettings()

    @model_validator(mode="before")
    @classmethod
    def _kept_in_the_data_dir(cls, values: Any) -> Any:
        """As defaults, so that an image may say where things are kept without outdoing what its user says."""
        if not isinstance(values, Mapping) or not values.get("data_dir"):
            return values
        folder = Path(values["data_dir"])
        kept = {
            "database": {"url": f"sqlite+aiosqlite:///{folder / 'consumer.db'}"},
            "dead_letters": {"path": str(folder / "dead-letters")},
        }
        return {**values, **{name: _with_defaults(values.get(name, {}), default) for name, default in kept.items()}}

    @field_validator("sources", mode="before")
    @classmethod
    def _sources_know_their_names(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            fold_source_name(name): {**source, "name": fold_source_name(name)}
            if isinstance(source, Mapping)
            else source
            for name, source in value.items()
        }

    def source(self, name: str) -> SourceSettings:
        """Return a source's settings with everything it inherits filled in.

        From the top level: `INHERITED`. From its provider: each part of `signature` it does not set itself; so a
        source with secrets of its own is opened by those alone. Letter case and - or _ in the name do not matter.

        Raises SettingsError when there is no such source.
        """
        try:
            own = self.sources.get(fold_source_name(name))
        except ValueError:
            own = None
        if own is None:
            raise SettingsError(_no_such_source(name, self.sources))
        updates: dict[str, Any] = {key: getattr(self, key) for key in INHERITED if key not in own.model_fields_set}
        if "poll_wait" not in own.model_fields_set:
            # A stop waits for the poll under way, and needs time for what it brings.
            updates["poll_wait"] = min(own.poll_wait, self.drain_timeout / 2)
        provider = self.thrive.signature if own.provider == "thrive" else self.sahha.signature
        updates["signature"] = _over(provider, own.signature)
        return own.model_copy(update=updates)

    def validate_timers(self) -> None:
        """Raise SettingsError for the first pair of settings that contradict each other."""
        for key, text in contradictions(self):
            raise SettingsError(f"{key}: {text}")


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, what is expected) for settings that cannot both hold."""
    if settings.retry.base > settings.retry.cap:
        yield "retry.base", "expected no more than retry.cap"
    if settings.dead_letters.kind == "queue" and settings.dead_letters.recipients:
        yield "dead_letters.recipients", "expected none, since a dead-letter queue holds messages as they came"
    for key, text in dead_letter_problems(settings.dead_letters):
        yield f"dead_letters.{key}", text
    for name in settings.sources:
        source = settings.source(name)
        if settings.dead_letters.kind == "queue" and source.kind not in {"sqs", "storage_queue"}:
            yield "dead_letters.kind", f"expected file, s3 or blob, since source {name} is {source.kind}"
        for key, text in _source_contradictions(source, settings):
            yield f"sources.{name}.{key}", text
    yield from _retention_contradictions(settings)


def _source_contradictions(source: SourceSettings, settings: Settings) -> Iterator[tuple[str, str]]:
    yield from _lease_contradictions(source)
    if source.retention is not None and not _SHORTEST_HUB_RETENTION <= source.retention <= _LONGEST_HUB_RETENTION:
        yield "retention", "expected 1h to 90d, what Event Hubs knows"
    if source.kind == "sqs" and source.poll_wait > _LONGEST_SQS_POLL:
        yield "poll_wait", "expected 20s or less, the longest SQS knows"
    if source.poll_wait > settings.drain_timeout:
        yield "poll_wait", "expected no more than drain_timeout, since stopping waits for a poll under way"
    if source.max_message_bytes > source.max_in_flight_bytes:
        yield "max_message_bytes", "expected no more than max_in_flight_bytes"
    signature = source.signature
    if isinstance(signature, ThriveSignatureSettings) and signature.max_age and "{signed_at}" not in signature.template:
        yield (
            "signature.template",
            "expected {signed_at} in it, or max_age off: the age of an unsigned time proves nothing",
        )


def _lease_contradictions(source: SourceSettings) -> Iterator[tuple[str, str]]:
    if source.kind == "event_hubs":
        return  # it has no leases, so the timeout, which may be meant for other sources, does not matter
    if source.visibility_timeout < _SHORTEST_VISIBILITY:
        yield "visibility_timeout", "expected 2s or more, since leases are renewed at half of it"
    if source.kind == "sqs" and source.visibility_timeout > _LONGEST_SQS_VISIBILITY:
        yield "visibility_timeout", "expected 12h or less, the longest SQS knows"
    if source.kind == "storage_queue" and source.visibility_timeout > _LONGEST_STORAGE_VISIBILITY:
        yield "visibility_timeout", "expected 7d or less, the longest Storage Queue knows"


def _retention_contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is remembered has to outlast every way in which the same event can come again."""
    retention = settings.inbox.retention
    if retention is None:
        return
    replay = settings.dead_letters.max_age
    sources = [settings.source(name) for name in settings.sources]
    ages = [(f"sources.{one.name}.signature.max_age", one.signature.max_age, _kept(one)) for one in sources]
    ages.append(("thrive.signature.max_age", settings.thrive.signature.max_age, 0.0))
    for key, age, kept in ages:
        if age is None:
            yield "inbox.retention", f"expected forever, since {key} is off"
        elif replay is None:
            yield "inbox.retention", "expected forever, since dead_letters.max_age is off"
        elif retention < age + kept + replay:
            days = f" + {format_duration(kept)} (the queue's own retention)" if kept else ""
            yield "inbox.retention", f"expected at least {key}{days} + dead_letters.max_age, or forever"


def _kept(source: SourceSettings) -> float:
    if source.kind == "event_hubs" and source.retention is not None:
        return source.retention
    return _QUEUE_RETENTION.get(source.kind, _LONGEST_QUEUE_RETENTION)


def _over(base: _Model, top: BaseModel) -> _Model:
    """A copy of `base` with what `top` sets explicitly, section by section."""
    updates: dict[str, Any] = {}
    for key in top.model_fields_set:
        value = getattr(top, key)
        updates[key] = _over(getattr(base, key), value) if isinstance(value, BaseModel) else value
    return base.model_copy(update=updates)


def _no_such_source(name: str, known: Mapping[str, SourceSettings]) -> str:
    if not known:
        return "no source is configured: set CONSUMER_SOURCES__<NAME>__KIND"
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name!a} is not a source; there is {', '.join(sorted(known))}{hint}"
