"""The settings of the platforms: how they sign, what their events are called, how their REST APIs are reached."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from consumer.settings_types import (
    AgeLimit,
    Count,
    Duration,
    Expected,
    OptionalPattern,
    OptionalRate,
    OptionalSecret,
    OptionalText,
    PositiveDuration,
    Secrets,
    Text,
)

__all__ = [
    "DAY",
    "HOUR",
    "MINUTE",
    "SAHHA_MAX_AGE",
    "HttpSettings",
    "SahhaSettings",
    "SahhaSignatureSettings",
    "Section",
    "SignatureFieldSettings",
    "ThriveEventTypeSettings",
    "ThriveFieldSettings",
    "ThriveSettings",
    "ThriveSignatureSettings",
]

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SAHHA_MAX_AGE = 60 * DAY

# https://docs.thriveaihealth.com and https://docs.sahha.ai name one host for each environment.
_THRIVE_HOSTS = {
    "production": "https://api.thriveaihealth.com",
    "sandbox": "https://api.sandbox.thriveaihealth.com",
}
_SAHHA_HOSTS = {"production": "https://api.sahha.ai", "sandbox": "https://sandbox-api.sahha.ai"}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_BASE_URL = "production, sandbox or an https:// URL (http:// on loopback only)"


class Section(BaseModel):
    """A group of settings: fixed once read, no other names, and no value in any error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HttpSettings(Section):
    """How a platform's REST API is called."""

    timeout: PositiveDuration = Field(20.0, description="Longest one request may take.")
    connect_timeout: PositiveDuration = Field(5.0, description="Longest making a connection may take.")
    total: PositiveDuration = Field(
        25.0, description="Longest a whole call may take, with its token and repeats; less than the handler's time."
    )
    attempts: Count = Field(3, description="How often a request that may safely be repeated is made before giving up.")
    max_concurrency: Count = Field(10, description="Most requests under way at once.")
    max_rps: OptionalRate = Field(None, description="Most requests a second; unset: as many as there are.")


def _base_url(hosts: dict[str, str]) -> BeforeValidator:
    """Read an environment's name or a URL; credentials must not travel unencrypted, so http is for loopback only."""

    def validate(value: object) -> object:
        if not isinstance(value, str):
            return value
        known = hosts.get(value.strip().lower())
        if known is not None:
            return known
        try:
            parts = urlsplit(value.strip())
            fits = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
            fits = fits and bool(parts.hostname) and not (parts.username or parts.password or parts.query)
            fits = fits and (parts.port is None or parts.port > 0)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"expected {_BASE_URL}")
        return value.strip().rstrip("/")

    return BeforeValidator(validate)


_URL = Expected("URL", _BASE_URL)


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

    base_url: Annotated[str, _base_url(_THRIVE_HOSTS), _URL] = Field(
        _THRIVE_HOSTS["production"], description="Address of the REST API: production, sandbox or a URL."
    )
    tenant_key: OptionalSecret = Field(None, description="Tenant key, for context.thrive and consumer thrive.")
    http: HttpSettings = HttpSettings()
    signature: ThriveSignatureSettings = ThriveSignatureSettings()
    event_types: ThriveEventTypeSettings = ThriveEventTypeSettings()
    fields: ThriveFieldSettings = ThriveFieldSettings()


class SahhaSettings(Section):
    """Sahha."""

    base_url: Annotated[str, _base_url(_SAHHA_HOSTS), _URL] = Field(
        _SAHHA_HOSTS["production"], description="Address of the REST API: production, sandbox or a URL."
    )
    client_id: OptionalText = Field(None, description="Client id, for context.sahha and consumer sahha.")
    client_secret: OptionalSecret = Field(None, description="Client secret of that client id.")
    app_id: OptionalText = Field(None, description="App id, for registering profiles as an app does.")
    app_secret: OptionalSecret = Field(None, description="App secret of that app id.")
    list_style: Literal["repeat", "comma"] = Field(
        "repeat", description="How lists are written in queries: types=a&types=b, or types=a,b."
    )
    http: HttpSettings = HttpSettings()
    signature: SahhaSignatureSettings = SahhaSignatureSettings()
