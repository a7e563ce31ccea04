"""Messages as Azure Storage Queue carries them, read and written. Pure.

The service carries text inside XML. Some senders put an event there as it is, others, such as Azure Functions and
Event Grid, as base64, and nothing tells which: it is told here by what is inside.
"""

from __future__ import annotations

import base64
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from consumer.errors import SourceRefused
from consumer.sources.base import Message, Outgoing

__all__ = ["LONGEST_DELAY", "LONGEST_MESSAGE", "Receipt", "body_of", "entry", "fits", "to_message"]

LONGEST_MESSAGE: Final = 64 * 1024
"""Bytes of a message's text, by the service's scalability targets; as base64 that is 48 KiB of content."""
LONGEST_DELAY: Final = 7 * 86_400
"""Seconds that a message may be invisible, by the reference of Put Message and Update Message."""

_NEVER: Final = 9999
"""The year in which the service says that a message without time to live expires."""
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
_PLAIN: Final = re.compile(r"(?!\s)[\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*(?<!\s)")
"""Text that XML carries unchanged, however it is read: no characters it forbids, no carriage return that a parser
would make a line feed, no white space at an end that one might trim."""


@dataclass(slots=True)
class Receipt:
    """What settles one receive; every renewal brings a new pop receipt and makes the old one worthless."""

    message_id: str
    pop_receipt: str


def body_of(text: str) -> bytes:
    """The bytes a sender meant: what base64 holds if that is a JSON object or array, or if only base64 could carry it.

    The latter must be written as `entry` would write it, so that nothing of the text is lost: junk such as `AAAA` is
    taken for it too, and sent on it is `AAAA` again. Anything else is not ours to interpret and stays as it is.
    """
    found = _from_base64(text)
    if found and (_JSON.match(found) or (_needs_base64(found) and _as_base64(found) == text)):
        return found
    # A lone surrogate is no text: it must become a message that cannot be read, not an error here.
    return text.encode("utf-8", "surrogatepass")


def _from_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except ValueError:
        return None


def _as_base64(body: bytes) -> str:
    return base64.b64encode(body).decode()


def _needs_base64(body: bytes) -> bool:
    """Whether these bytes are text that cannot travel as it is: XML would change it, or it looks like base64 itself."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    return _PLAIN.fullmatch(text) is None or body_of(text) != body


def to_message(raw: Any, *, lease_until: float) -> Message:
    """One message that the SDK received, undecoded, as the worker knows it."""
    accepted, expires = raw.inserted_on, raw.expires_on
    return Message(
        body_of(raw.content or ""),
        raw.id,
        Receipt(raw.id, raw.pop_receipt),
        datetime.now(UTC) if accepted is None else accepted,
        raw.dequeue_count or 1,
        lease_until,
        None if expires is None or expires.year >= _NEVER else expires,
    )


def entry(message: Outgoing, *, name: str) -> dict[str, Any]:
    """What `send_message` is given for it: plain text where that arrives as the same bytes, base64 otherwise.

    Raises SourceRefused for what Storage Queue cannot carry. Headers and ordering keys are left out: it has neither.
    """
    text = _text(message.body)
    if body_of(text) != message.body:
        raise SourceRefused(f"source {name}: Storage Queue carries text only, and the message is not UTF-8")
    if len(text.encode()) > LONGEST_MESSAGE:
        raise SourceRefused(f"source {name}: the message is too large: Storage Queue has 64 KiB at most (48 as base64)")
    delay = math.ceil(message.delay)
    if delay > LONGEST_DELAY:
        raise SourceRefused(f"source {name}: the delay is too long: Storage Queue has 7 days at most")
    return {"content": text, "visibility_timeout": delay or None}


def fits(body: bytes) -> bool:
    """Whether Storage Queue can carry these bytes: text, of 64 KiB at most, or 48 if it has to go as base64."""
    try:
        entry(Outgoing(body), name="")
    except SourceRefused:
        return False
    return True


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = ""
    if text and _PLAIN.fullmatch(text) and body_of(text) == body:
        return text
    return _as_base64(body)
