"""Storage Queue's REST protocol: requests read and checked, replies written as the service writes them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Self
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from tests.emulators.storage_queue_stub_queue import Stored, StubError

__all__ = ["Request", "created", "decoded_path", "error_body", "http_date", "messages_body", "text_of", "verify"]

_SIGNED = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)
_HEAD = '\ufeff<?xml version="1.0" encoding="utf-8"?>'
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names are in lower case, parameters decoded."""

    method: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @classmethod
    def read(cls, head: bytes, body: bytes) -> Self:
        """From what came over the wire. Raises ValueError if it is no request."""
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        return cls(method, path, parameters, headers, body)

    def number(self, name: str, default: int) -> int:
        """A parameter that is a whole number."""
        text = self.parameters.get(name)
        if text is None:
            return default
        if not _WHOLE_NUMBER.fullmatch(text):
            raise StubError("InvalidQueryParameterValue", 400, name)
        return int(text)

    def required(self, name: str) -> str:
        """A parameter that must be there."""
        text = self.parameters.get(name)
        if not text:
            raise StubError("MissingRequiredQueryParameter", 400, name)
        return text


def verify(request: Request, *, account: str, key: bytes) -> None:
    """Check a SharedKey signature. Raises StubError, AuthenticationFailed."""
    headers = request.headers
    length = headers.get("content-length", "")
    signed = [request.method, *(headers.get(name, "") for name in _SIGNED)]
    signed[3] = "" if length == "0" else length
    signed += [f"{name}:{headers[name]}" for name in sorted(headers) if name.startswith("x-ms-")]
    signed.append(f"/{account}{request.path}")
    signed += [f"{name.lower()}:{value}" for name, value in sorted(request.parameters.items())]
    made = base64.b64encode(hmac.digest(key, "\n".join(signed).encode(), hashlib.sha256)).decode()
    if not hmac.compare_digest(headers.get("authorization", ""), f"SharedKey {account}:{made}"):
        raise StubError("AuthenticationFailed", 403)


def text_of(body: bytes) -> str:
    """The text of the message in a Put or Update request."""
    try:
        root = ET.fromstring(body)
    except ET.ParseError:
        raise StubError("InvalidXmlDocument") from None
    found = root.find("MessageText")
    if root.tag != "QueueMessage" or found is None:
        raise StubError("InvalidXmlDocument")
    return found.text or ""


def messages_body(messages: Iterable[Stored], *, peeked: bool = False) -> bytes:
    """The reply to Get and Peek Messages."""
    items = "".join(_item(message, peeked=peeked) for message in messages)
    return f"{_HEAD}<QueueMessagesList>{items}</QueueMessagesList>".encode()


def created(message: Stored) -> bytes:
    """The reply to Put Message."""
    item = f"<QueueMessage>{_facts(message)}{_receipt(message)}</QueueMessage>"
    return f"{_HEAD}<QueueMessagesList>{item}</QueueMessagesList>".encode()


def error_body(code: str, message: str) -> bytes:
    """What the service says of an error."""
    return f"{_HEAD}<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>".encode()


def _item(message: Stored, *, peeked: bool) -> str:
    text = escape(message.text, {"\r": "&#xD;"})
    return (
        f"<QueueMessage>{_facts(message)}{'' if peeked else _receipt(message)}"
        f"<DequeueCount>{message.dequeue_count}</DequeueCount><MessageText>{text}</MessageText></QueueMessage>"
    )


def _facts(message: Stored) -> str:
    return (
        f"<MessageId>{message.id}</MessageId><InsertionTime>{http_date(message.inserted)}</InsertionTime>"
        f"<ExpirationTime>{http_date(message.expires)}</ExpirationTime>"
    )


def _receipt(message: Stored) -> str:
    return (
        f"<PopReceipt>{message.receipt}</PopReceipt><TimeNextVisible>{http_date(message.visible_at)}</TimeNextVisible>"
    )


def http_date(seconds: float) -> str:
    """As HTTP writes it, to the second."""
    return _date(math.floor(seconds))


@lru_cache(maxsize=4096)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def decoded_path(path: str) -> list[str]:
    """The parts of a path."""
    return [unquote(part) for part in path.split("/") if part]
