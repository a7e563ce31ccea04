"""One dead letter, in memory and as a line of JSON.

The line is format 1:

    {"version": 1, "id", "provider", "source", "event_id", "event_type", "user_id", "reason", "detail",
     "error": {"type", "handler", "at": [...]} | null, "attempts", "accepted_at", "first_received_at",
     "dead_lettered_at", "message", "message_encoding": "utf-8" | "base64", "attributes", "consumer_version"}

`message` is exactly what was received: as text when it is valid UTF-8, else as base64. `attributes` are the broker's,
see `broker_attributes`, and `lane`, the message's lane, where that is not its ordering key. In a sealed line `message,
attributes, event_id, user_id, detail, error` are replaced by `sealed`, the base64 of an age file that holds them as one
JSON object. Keys a later release adds are ignored.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from consumer import __version__
from consumer.errors import DeadLetterError
from consumer.sources.base import Message

__all__ = [
    "VERSION",
    "DeadLetter",
    "SealedDeadLetter",
    "broker_attributes",
    "decode",
    "encode",
    "open_sealed",
    "record_id",
]

VERSION: Final = 1
"""The format this release writes. It reads this one and every earlier."""

_SEALED_KEYS: Final = ("message", "attributes", "event_id", "user_id", "detail", "error")
_ID_BYTES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was put aside. Its repr leaves out whatever may hold health data."""

    id: str
    provider: str
    source: str
    reason: str
    """One of `consumer.outcomes.REASONS`."""
    attempts: int
    accepted_at: datetime
    """When the queue accepted the message: replay judges its age by this."""
    first_received_at: datetime
    dead_lettered_at: datetime
    message: bytes = field(repr=False)
    """The bytes of the envelope as received: all of the message, or its part of an array."""
    event_id: str | None = field(default=None, repr=False)
    event_type: str | None = None
    """This, `event_id` and `user_id` are None unless the message was verified."""
    user_id: str | None = field(default=None, repr=False)
    detail: str | None = field(default=None, repr=False)
    error: Mapping[str, Any] | None = field(default=None, repr=False)
    attributes: Mapping[str, Any] = field(default_factory=dict, repr=False)
    proven: bool = True
    """Whether it is known who signed the message: what is not has a quota. For the store alone, so not in the line."""
    version: int = VERSION
    consumer_version: str = __version__

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers the message came with, which replay needs to verify it."""
        headers = self.attributes.get("headers")
        return headers if isinstance(headers, Mapping) else {}

    @property
    def index(self) -> int:
        """Which envelope of its message this is, from 0."""
        index = self.attributes.get("index")
        return index if isinstance(index, int) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedDeadLetter:
    """What can be read of a sealed dead letter without the key."""

    id: str
    provider: str
    source: str
    reason: str
    event_type: str | None
    attempts: int
    accepted_at: datetime
    first_received_at: datetime
    dead_lettered_at: datetime
    message_encoding: str
    version: int
    consumer_version: str
    sealed: bytes = field(repr=False)


def record_id(source: str, message_id: str, index: int = 0) -> str:
    """The id of an envelope's dead letter: the same whenever the same broker message is put aside again."""
    digest = hashlib.sha256()
    for part in (source, message_id, str(index)):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[: 2 * _ID_BYTES]


def broker_attributes(message: Message, *, index: int = 0) -> dict[str, Any]:
    """What a dead letter keeps of the broker's facts; `index` is the envelope's place in the message, from 0."""
    return {
        "message_id": message.message_id,
        "index": index,
        "receive_count": message.receive_count,
        "ordering_key": message.ordering_key,
        "headers": dict(message.headers),
    }


def encode(record: DeadLetter, *, seal: Callable[[bytes], bytes] | None = None) -> bytes:
    """Write the record as one line, its newline included; with `seal`, as a sealed one."""
    message, encoding = _text_of(record.message)
    line = {
        "version": VERSION,
        "id": record.id,
        "provider": record.provider,
        "source": record.source,
        "event_id": record.event_id,
        "event_type": record.event_type,
        "user_id": record.user_id,
        "reason": record.reason,
        "detail": record.detail,
        "error": None if record.error is None else dict(record.error),
        "attempts": record.attempts,
        "accepted_at": _write_time(record.accepted_at),
        "first_received_at": _write_time(record.first_received_at),
        "dead_lettered_at": _write_time(record.dead_lettered_at),
        "message": message,
        "message_encoding": encoding,
        "attributes": dict(record.attributes),
        "consumer_version": record.consumer_version,
    }
    if seal is not None:
        secret = {key: line.pop(key) for key in _SEALED_KEYS}
        line["sealed"] = base64.b64encode(seal(_dump(secret))).decode("ascii")
    return _dump(line) + b"\n"


def decode(line: bytes) -> DeadLetter | SealedDeadLetter:
    """Read a line of this or an earlier release. Raises DeadLetterError, saying what is wrong but no value of it."""
    reader = _Reader(_load(line))
    version = reader.number("version")
    if version > VERSION:
        raise DeadLetterError(f"written by a newer release: format {version}, and this one reads up to {VERSION}")
    if "sealed" in reader.line:
        return _read_sealed(reader)
    return _read_open(reader, reader)


def open_sealed(record: SealedDeadLetter, unseal: Callable[[bytes], bytes]) -> DeadLetter:
    """Open a sealed record. Raises DeadLetterError when the key does not fit or the content makes no sense."""
    public = {key: getattr(record, key) for key in _PUBLIC}
    public |= {key: _write_time(public[key]) for key in _TIMES}
    return _read_open(_Reader(public), _Reader(_load(unseal(record.sealed))))


_TIMES: Final = ("accepted_at", "first_received_at", "dead_lettered_at")
_PUBLIC: Final = (
    *("id", "provider", "source", "reason", "event_type", "attempts", *_TIMES),
    *("message_encoding", "version", "consumer_version"),
)


class _Reader:
    """Takes typed fields out of a line; its complaints name fields, never values."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self.line = line

    def _expect(self, key: str, kind: type | tuple[type, ...], words: str) -> Any:
        value = self.line.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DeadLetterError(f"not a dead letter: {key} is not {words}")
        return value

    def text(self, key: str) -> str:
        return cast("str", self._expect(key, str, "text"))

    def text_or_none(self, key: str) -> str | None:
        return cast("str | None", self._expect(key, (str, type(None)), "text or null"))

    def number(self, key: str) -> int:
        return cast("int", self._expect(key, int, "a whole number"))

    def mapping(self, key: str) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._expect(key, dict, "an object"))

    def mapping_or_none(self, key: str) -> Mapping[str, Any] | None:
        return cast("Mapping[str, Any] | None", self._expect(key, (dict, type(None)), "an object or null"))

    def time(self, key: str) -> datetime:
        try:
            value = datetime.fromisoformat(self.text(key))
            if value.tzinfo is not None:
                return value.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise DeadLetterError(f"not a dead letter: {key} is not a time with a zone")

    def data(self, key: str, encoding: str) -> bytes:
        text = self.text(key)
        try:
            if encoding == "utf-8":
                return text.encode()
            if encoding == "base64":
                return base64.b64decode(text, validate=True)
        except ValueError:
            raise DeadLetterError(f"not a dead letter: {key} is not {encoding}") from None
        raise DeadLetterError("not a dead letter: message_encoding is neither utf-8 nor base64")


def _read_open(public: _Reader, private: _Reader) -> DeadLetter:
    return DeadLetter(
        id=public.text("id"),
        provider=public.text("provider"),
        source=public.text("source"),
        reason=public.text("reason"),
        attempts=public.number("attempts"),
        accepted_at=public.time("accepted_at"),
        first_received_at=public.time("first_received_at"),
        dead_lettered_at=public.time("dead_lettered_at"),
        message=private.data("message", public.text("message_encoding")),
        event_id=private.text_or_none("event_id"),
        event_type=public.text_or_none("event_type"),
        user_id=private.text_or_none("user_id"),
        detail=private.text_or_none("detail"),
        error=private.mapping_or_none("error"),
        attributes=private.mapping("attributes"),
        version=public.number("version"),
        consumer_version=public.text("consumer_version"),
    )


def _read_sealed(line: _Reader) -> SealedDeadLetter:
    return SealedDeadLetter(
        id=line.text("id"),
        provider=line.text("provider"),
        source=line.text("source"),
        reason=line.text("reason"),
        event_type=line.text_or_none("event_type"),
        attempts=line.number("attempts"),
        accepted_at=line.time("accepted_at"),
        first_received_at=line.time("first_received_at"),
        dead_lettered_at=line.time("dead_lettered_at"),
        message_encoding=line.text("message_encoding"),
        version=line.number("version"),
        consumer_version=line.text("consumer_version"),
        sealed=line.data("sealed", "base64"),
    )


def _text_of(message: bytes) -> tuple[str, str]:
    try:
        return message.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(message).decode("ascii"), "base64"


def _write_time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _dump(value: Any) -> bytes:
    # default=str: a record with an odd attribute must still be kept.
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    except UnicodeEncodeError:  # half a surrogate pair, in a Reject's detail say; escapes can hold it
        return json.dumps(value, separators=(",", ":"), default=str).encode()


def _load(data: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise DeadLetterError("not a dead letter: not JSON") from None
    if not isinstance(value, dict):
        raise DeadLetterError("not a dead letter: not a JSON object")
    return value
