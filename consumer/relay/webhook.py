"""One webhook of Sahha's, from its request's headers and body to the message that carries both. Pure.

Header names, and what the vendor's own sample answers when one is missing, are from Sahha's documentation
(docs.sahha.ai, guides/webhooks).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from consumer.envelope import wrap_neutral
from consumer.ops.trace_context import TRACEPARENT, is_traceparent
from consumer.relay.limits import HEADERS_SHARE, headers_size
from consumer.sources.base import Outgoing

if TYPE_CHECKING:
    from multidict import MultiMapping  # which aiohttp brings

__all__ = ["HEADERS", "Refused", "content_length", "read_headers", "read_trace", "to_message"]

HEADERS: Final = ("X-Signature", "X-External-Id", "X-Event-Type")
_KEYS: Final = tuple((name, name.lower()) for name in HEADERS)
_LONGEST_LENGTH: Final = 18
_TEXT: Final = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""What every queue carries as text: some refuse what XML does not allow."""
_UNDECODED: Final = re.compile(r"[\udc80-\udcff]")
"""What aiohttp makes of bytes that are not UTF-8."""


class Refused(Exception):
    """A request that is not a webhook to be kept; the answer says why, and repeats nothing of it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def read_headers(headers: MultiMapping[str]) -> dict[str, str]:
    """The three headers that belong to a webhook, by their names in lower case.

    Raises `Refused`: 400 for one that is missing, empty, repeated or no text, 431 if they are too long.
    """
    found = {}
    for name, key in _KEYS:
        values = headers.getall(name, ())
        if len(values) > 1:
            raise Refused(400, f"{name} header occurs twice.")
        if not values or not values[0]:
            raise Refused(400, f"{name} header is missing.")
        found[key] = _text(name, values[0])
    if headers_size(found) > HEADERS_SHARE:
        raise Refused(431, "The headers are too long.")
    return found


def read_trace(headers: MultiMapping[str]) -> str | None:
    """The trace that the request is part of, as an ingress that takes part in tracing says; None if it does not."""
    values = headers.getall(TRACEPARENT, ())
    return values[0] if len(values) == 1 and is_traceparent(values[0]) else None


def content_length(headers: MultiMapping[str], limit: int) -> int | None:
    """How long the body is said to be; None when it comes in chunks.

    Raises `Refused` for a body that must not be read: 411 without a length, 413 with too large a one, 400 for none,
    415 for one that is not sent as it is, since its exact bytes are what is signed.
    """
    if any(value.strip().lower() != "identity" for value in headers.getall("Content-Encoding", ())):
        raise Refused(415, "Content-Encoding must be identity.")
    written = headers.get("Content-Length")
    if written is None:
        transfer = headers.getall("Transfer-Encoding", ())
        if not transfer:
            raise Refused(411, "Content-Length is missing.")
        if [value.strip().lower() for value in transfer] != ["chunked"]:
            raise Refused(415, "Transfer-Encoding must be chunked.")
        return None
    length = (
        int(written) if written.isascii() and written.isdecimal() and len(written) <= _LONGEST_LENGTH else limit + 1
    )
    if length > limit:
        raise Refused(413, "The body is too large.")
    if not length:
        raise Refused(400, "The body is empty.")
    return length


def to_message(
    body: bytes, headers: Mapping[str, str], received_at: datetime, *, ordered: bool, traceparent: str | None = None
) -> Outgoing:
    """The message that carries a webhook: its exact body and its headers, in the neutral envelope.

    `traceparent` goes along, among those headers and as the message's own.

    With `ordered`, a profile's messages share an ordering key: a digest of its external id, since not every queue
    takes any text for one, and since keys show where contents do not. The id by which some queues drop repeats covers
    the signature too, so that a forged copy that came first cannot stand in for the real one.
    """
    external_id = headers["x-external-id"].encode()
    digest = hashlib.sha256(b"\0".join(value.encode() for value in headers.values()))
    digest.update(b"\0")
    digest.update(body)
    trace = {} if traceparent is None else {TRACEPARENT: traceparent}
    return Outgoing(
        wrap_neutral(provider="sahha", body=body, headers={**headers, **trace}, received_at=received_at),
        trace,
        ordering_key=hashlib.sha256(external_id).hexdigest()[:32] if ordered else None,
        deduplication_id=digest.hexdigest(),
    )


def _text(name: str, value: str) -> str:
    if _UNDECODED.search(value):
        # Latin-1 then, as HTTP once had it.
        value = value.encode("utf-8", "surrogateescape").decode("latin-1")
    if _TEXT.fullmatch(value):
        return value
    raise Refused(400, f"{name} header is not text.")
