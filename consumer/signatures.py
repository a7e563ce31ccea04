"""Proving who sent a message, before anything in it is believed.

Both platforms sign with an HMAC and a shared secret. Thrive signs two values of a JSON envelope; the exact format is
not published, so every part of it is a setting and the defaults are a proposal. Sahha signs the body of a webhook
request, whose headers travel beside it unsigned.

`open` raises `VerificationError` and nothing else, whatever the bytes: `Unsigned` when there is no signature at all,
`BadSignature` when there is one but none of the secrets made it, `Stale` when the time rule fails, `Unreadable` for the
rest. What is compared is the text received; nothing is normalized or written out again.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer.envelope import Members, instant, object_content, read_members
from consumer.errors import BadSignature, SettingsError, Stale, Unreadable, Unsigned
from consumer.layouts import DEFAULT_TEMPLATE, Layout, Template
from consumer.macs import (
    ALGORITHMS,
    ENCODINGS,
    SECRET_ENCODINGS,
    decode_digest,
    encode_digest,
    key_of,
    signer_of,
    without_prefix,
)
from consumer.sahha_shapes import misfit

__all__ = ["Opened", "SahhaSignature", "ThriveSignature"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A message whose signature holds."""

    body: bytes = field(repr=False)
    """Exactly the text that was signed, as UTF-8."""
    signed_at: datetime | None
    """When, by a time that is itself signed; None if there is none, or it is not a time."""
    secret_index: int
    """Which of the configured secrets made the signature, from 0."""
    unsigned: Mapping[str, str] = field(repr=False)
    """What came along unproven: the envelope's other printable texts and numbers, or headers by lower-case name."""
    content: dict[str, Any] = field(repr=False)
    """The body, read; nothing needs to parse it again."""


class ThriveSignature:
    """Opens signed Thrive envelopes, and makes them for tests and tools.

    - `secrets`: any of them may have signed; the first one signs.
    - `secret_encoding`: how a secret stands for its key, `utf8`, `hex` or `base64`.
    - `template`: the signed text. Without `{signed_at}` in it that time is not proven: it is then found in `unsigned`,
      need not be there, and no age can be demanded.
    - `algorithm`: `sha256`, `sha384` or `sha512`.
    - `encoding`: of the signature, `hex`, `base64`, `base64url`, or `auto` for any of them.
    - `prefix`: what must stand before a signature; None tolerates one of `sha256=`, `sha384=`, `sha512=`, `v1=`.
    - `fields`: where `signed_at`, `body`, `signature` and `key_id` stand, if not under these names; a dot in a name
      goes one object deeper. A key id chooses no secret, it is only shown in `unsigned`.
    - `max_age`, `max_future_skew`: in seconds, how old or how far ahead the signed time may be when the queue accepts
      the message; None does not ask.

    Raises `SettingsError` for what cannot work; its text holds no secret.
    """

    def __init__(
        self,
        *,
        secrets: Sequence[str],
        secret_encoding: str = "utf8",  # noqa: S107  the name of an encoding
        template: str = DEFAULT_TEMPLATE,
        algorithm: str = "sha256",
        encoding: str = "auto",
        prefix: str | None = None,
        fields: Mapping[str, str] | None = None,
        max_age: float | timedelta | None = None,
        max_future_skew: float | timedelta | None = None,
    ) -> None:
        _one_of("algorithm", algorithm, ALGORITHMS)
        _one_of("encoding", encoding, ("auto", *ENCODINGS))
        self._keys = _keys(secrets, secret_encoding)
        self._template = Template(template)
        self._algorithm = algorithm
        self._size = ALGORITHMS[algorithm]
        self._encoding = encoding
        self._encodings = ENCODINGS if encoding == "auto" else (encoding,)
        self._prefix = prefix
        self._layout = Layout(fields or {})
        self._max_age = _duration("max_age", max_age)
        self._max_future_skew = _duration("max_future_skew", max_future_skew)
        self._timed = self._max_age is not None or self._max_future_skew is not None
        if self._timed and not self._template.signs_time:
            raise SettingsError(
                "signature template: max_age and max_future_skew need {signed_at} in it, "
                "because the age of a time that is not signed proves nothing"
            )

    def open(self, raw: bytes, *, accepted_at: datetime | None = None) -> Opened:
        """Verify one envelope: its signature, then its age at `accepted_at` (aware: the queue's own time; None is now).

        Raises `Unsigned`, `BadSignature`, `Stale` or `Unreadable`.
        """
        opened = self.open_any_age(raw)
        if self._timed:
            _judge(opened.signed_at, accepted_at, self._max_age, self._max_future_skew)
        return opened

    def open_any_age(self, raw: bytes) -> Opened:
        """Verify one envelope's signature, whatever its age: for a replay that somebody asked for.

        Raises `Unsigned`, `BadSignature` or `Unreadable`.
        """
        paths = self._layout.paths
        members = read_members(raw, self._layout.opening)
        candidates = self._candidates(members)
        signed_at = self._signed_at(members)
        value = members.find(paths["body"])
        if not isinstance(value, (str, Members)):
            raise Unreadable("the body is neither a text nor an object")
        body = _utf8(members.text_of(paths["body"]))
        signed_text = self._template.fill(_utf8(signed_at or ""), body)
        index = signer_of(self._keys, signed_text, candidates, self._algorithm)
        if index is None:
            raise BadSignature("no configured secret made this signature")
        content = _content(value)
        at = instant(signed_at) if signed_at is not None and self._template.signs_time else None
        return Opened(body, at, index, self._unsigned(members, signed_at), content)

    def verify(
        self,
        raw: bytes,
        headers: Mapping[str, str],  # noqa: ARG002 - other schemes read them
        *,
        accepted_at: datetime,
        any_age: bool = False,
    ) -> Opened:
        """`open`, or `open_any_age`, for a source that has headers, which mean nothing here."""
        return self.open_any_age(raw) if any_age else self.open(raw, accepted_at=accepted_at)

    def signs_whole(self, headers: Mapping[str, str]) -> bool:  # noqa: ARG002 - as above
        """Never: each envelope of an array has a signature of its own."""
        return False

    def sign(self, body: bytes | str, *, signed_at: str | datetime | None = None, as_object: bool = False) -> bytes:
        """Make a signed envelope around a body, with the first secret; `signed_at` is now unless given.

        The body becomes a JSON string, or with `as_object` the object itself, white space around it removed. Raises
        `ValueError` for a body that is not UTF-8, `Unreadable` for one that must be an object and is none.
        """
        text = body.decode() if isinstance(body, bytes) else body
        if as_object:
            text = text.strip(" \t\n\r")
            object_content(text)
        at = signed_at if isinstance(signed_at, str) else _time_text(signed_at or datetime.now(UTC))
        digest = hmac.digest(self._keys[0], self._template.fill(at.encode(), text.encode()), self._algorithm)
        signature = (self._prefix or "") + encode_digest(digest, self._encoding)
        envelope = {
            "signed_at": _quoted(at),
            "signature": _quoted(signature),
            "body": text if as_object else _quoted(text),
        }
        return self._layout.write(envelope).encode()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} secrets, {self._algorithm}, {self._encoding})"

    def _candidates(self, members: Members) -> list[bytes]:
        value = members.find(self._layout.paths["signature"])
        if value is None or value in ("", []):
            raise Unsigned("no signature")
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        return _usable(texts, self._prefix, self._encodings, self._size)

    def _signed_at(self, members: Members) -> str | None:
        path = self._layout.paths["signed_at"]
        value = members.find(path)
        if isinstance(value, str):
            return value
        if type(value) is int or type(value) is float:
            return members.text_of(path)
        if value is None and not self._template.signs_time:
            return None
        raise Unreadable("signed_at is neither a text nor a number")

    def _unsigned(self, members: Members, signed_at: str | None) -> dict[str, str]:
        heads = self._layout.heads
        unsigned = {}
        for name, value in members.values.items():
            if name not in heads and isinstance(value, (str, int, float)):
                text = members.text_of((name,))
                # Nobody vouches for these, so nothing among them may break a line or an encoding.
                if name.isprintable() and text.isprintable():
                    unsigned[name] = text
        if signed_at is not None and not self._template.signs_time:
            unsigned["signed_at"] = signed_at
        if "key_id" in self._layout.paths:
            key_id = members.peek(self._layout.paths["key_id"])
            if isinstance(key_id, str) and key_id.isprintable():
                unsigned["key_id"] = key_id
        return unsigned


class SahhaSignature:
    """Opens Sahha webhook requests by their body and headers, and signs them for tests and tools.

    HMAC-SHA256 over the body's bytes; a secret's text is the key as it is, though it looks like base64.

    - `secrets`: any of them may have signed; the first one signs.
    - `encoding`: of the signature, `hex`, `base64`, or `auto` for both. One prefix `sha256=` is tolerated.
    - `max_age`: in seconds, how long before the queue accepts the message the body's own `createdAtUtc` (or
      `receivedAtUtc`) may lie. Sahha signs no time of sending, and sends results weeks old when a profile is new, so
      this bounds replays and nothing else.

    The body must have the fields of the event type the headers claim, and its `externalId`, if any, must be the
    header's: neither header is signed. An unknown event type is authentic all the same.

    Raises `SettingsError` for what cannot work; its text holds no secret.
    """

    def __init__(
        self, *, secrets: Sequence[str], encoding: str = "auto", max_age: float | timedelta | None = None
    ) -> None:
        _one_of("encoding", encoding, ("auto", "hex", "base64"))
        self._keys = _keys(secrets, "utf8")
        self._encoding = encoding
        self._encodings = ("hex", "base64") if encoding == "auto" else (encoding,)
        self._max_age = _duration("max_age", max_age)

    def open(self, raw: bytes, headers: Mapping[str, str], *, accepted_at: datetime | None = None) -> Opened:
        """Verify one request: its signature, that headers and body agree, then its age at `accepted_at` (None is now).

        `unsigned` holds `x-event-type`, and `x-external-id` where the body names no external id of its own.

        Raises `Unsigned`, `BadSignature`, `Stale` or `Unreadable`.
        """
        opened = self.open_any_age(raw, headers)
        if self._max_age is not None:
            _judge(opened.signed_at, accepted_at, self._max_age, None)
        return opened

    def open_any_age(self, raw: bytes, headers: Mapping[str, str]) -> Opened:
        """Verify one request, whatever its age: for a replay that somebody asked for.

        Raises `Unsigned`, `BadSignature` or `Unreadable`.
        """
        signature = _header(headers, "x-signature")
        if not signature:
            raise Unsigned("no X-Signature header")
        external_id, event_type = _header(headers, "x-external-id"), _header(headers, "x-event-type")
        if not external_id or not event_type:
            raise Unreadable("no X-External-Id or no X-Event-Type header")
        candidates = _usable([signature.removeprefix("sha256=")], "", self._encodings, ALGORITHMS["sha256"])
        index = signer_of(self._keys, raw, candidates, "sha256")
        if index is None:
            raise BadSignature("no configured secret made this signature")
        content = _content(raw)
        unsigned = {"x-event-type": event_type}
        if content.get("externalId") is None:
            unsigned["x-external-id"] = external_id
        elif content["externalId"] != external_id:
            raise Unreadable("the X-External-Id header is not the body's externalId")
        problem = misfit(event_type, content)
        if problem is not None:
            raise Unreadable(problem)
        return Opened(raw, _sahha_time(content), index, unsigned, content)

    def verify(self, raw: bytes, headers: Mapping[str, str], *, accepted_at: datetime, any_age: bool = False) -> Opened:
        """`open`, or `open_any_age`, whichever is meant."""
        return self.open_any_age(raw, headers) if any_age else self.open(raw, headers, accepted_at=accepted_at)

    def signs_whole(self, headers: Mapping[str, str]) -> bool:
        """Whether these come with a signature over all of their message: an array in it must not be taken apart."""
        return any(name.lower() == "x-signature" for name in headers)

    def sign(self, body: bytes | str, *, external_id: str, event_type: str) -> dict[str, str]:
        """The headers of a request with this body, signed with the first secret."""
        raw = body.encode() if isinstance(body, str) else body
        digest = hmac.digest(self._keys[0], raw, "sha256")
        return {
            "X-Signature": encode_digest(digest, self._encoding),
            "X-External-Id": external_id,
            "X-Event-Type": event_type,
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._keys)} secrets, {self._encoding})"


def _keys(secrets: Sequence[str], encoding: str) -> tuple[bytes, ...]:
    _one_of("secret_encoding", encoding, SECRET_ENCODINGS)
    if isinstance(secrets, str) or not secrets:
        raise SettingsError("signature secrets: expected a list of at least one secret")
    keys = []
    for secret in secrets:
        try:
            keys.append(key_of(secret, encoding))
        except ValueError:
            keys.append(b"")
    if not all(keys):
        raise SettingsError(f"signature secrets: expected secrets that are not empty and can be read as {encoding}")
    return tuple(keys)


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SettingsError(f"signature {name}: expected one of {', '.join(known)}")


def _duration(name: str, value: float | timedelta | None) -> timedelta | None:
    if value is None:
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not math.isfinite(seconds) or seconds < 0 or (name == "max_age" and seconds == 0):
        raise SettingsError(f"signature {name}: expected a time that is not negative, and more than 0 for max_age")
    return timedelta(seconds=min(seconds, timedelta.max.total_seconds() // 1))


def _usable(texts: Sequence[object], prefix: str | None, encodings: Sequence[str], size: int) -> list[bytes]:
    candidates = []
    for text in texts:
        bare = without_prefix(text, prefix) if isinstance(text, str) else None
        digest = None if bare is None else decode_digest(bare, encodings, size)
        if digest is not None:
            candidates.append(digest)
    if not candidates:
        raise BadSignature("no signature of the configured form")
    return candidates


def _content(value: str | bytes | Members) -> dict[str, Any]:
    """What a body says whose signature holds; it is proven, whether it can be read or not."""
    try:
        return value.content() if isinstance(value, Members) else object_content(value)
    except Unreadable as error:
        raise Unreadable(str(error), proven=True) from None


def _judge(
    signed_at: datetime | None,
    accepted_at: datetime | None,
    max_age: timedelta | None,
    max_future_skew: timedelta | None,
) -> None:
    if signed_at is None:
        raise Unreadable("the signed time cannot be read, and its age matters", proven=True)
    age = (accepted_at or datetime.now(UTC)) - signed_at
    if max_age is not None and age > max_age:
        raise Stale("signed too long before the queue accepted it")
    if max_future_skew is not None and -age > max_future_skew:
        raise Stale("signed too far in the future")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        pass
    raise Unreadable("a signed value cannot be written as UTF-8")


def _header(headers: Mapping[str, str], wanted: str) -> str | None:
    found = [value for name, value in headers.items() if name.lower() == wanted]
    if len(found) > 1:
        raise Unreadable("a header occurs twice")
    return found[0] if found else None


def _sahha_time(content: Mapping[str, Any]) -> datetime | None:
    written = content.get("createdAtUtc")
    if written is None:
        written = content.get("receivedAtUtc")
    return instant(written) if isinstance(written, str) else None


def _time_text(at: datetime) -> str:
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.isoformat().replace("+00:00", "Z")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
