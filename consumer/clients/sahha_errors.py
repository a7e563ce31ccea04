"""Sahha's refusals, read into one error; whatever the answer is, that is all that comes of it.

Three kinds are known: `{title, statusCode, location, errors: [{origin, errors: [text]}]}` (Sahha's client libraries and
recorded answers), `{"message": text}`, and plain text such as `Bad Request`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from consumer.clients.http import api_error, read_json
from consumer.errors import ApiError, ApiErrorDetail

__all__ = ["read_error"]

_LONGEST_TEXT = 2000
_MOST_DETAILS = 50
_MESSAGE_FIELDS = ("title", "message", "error_description", "detail", "error")


def read_error(call: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:  # noqa: ARG001 - one kind
    """The error for a refused request. `NotFound` for 404 and 410; Sahha has no codes of its own and no request id."""
    try:
        answer = read_json(body)
    except ValueError:
        return api_error(call, status=status, message=_text(body[: 4 * _LONGEST_TEXT].decode(errors="replace")))
    if isinstance(answer, str):
        return api_error(call, status=status, message=_text(answer))
    if not isinstance(answer, Mapping):
        return api_error(call, status=status)
    message = next((text for name in _MESSAGE_FIELDS if (text := _text(answer.get(name)))), None)
    return api_error(call, status=status, message=message, details=tuple(islice(_details(answer), _MOST_DETAILS)))


def _details(answer: Mapping[str, Any]) -> Iterator[ApiErrorDetail]:
    complaints = answer.get("errors")
    if isinstance(complaints, Mapping):  # ASP.NET's own form, which Sahha's server is built with: {field: [text]}
        for where, texts in complaints.items():
            yield from _of_one(where, texts)
    elif isinstance(complaints, list):
        for complaint in complaints:
            if isinstance(complaint, Mapping):
                yield from _of_one(complaint.get("origin"), complaint.get("errors"))
            else:
                yield from _of_one(None, complaint)


def _of_one(where: Any, texts: Any) -> Iterator[ApiErrorDetail]:
    for text in texts if isinstance(texts, list) else [texts]:
        message = _text(text)
        if message is not None:
            yield ApiErrorDetail(where=_text(where), code=None, message=message)


def _text(value: Any) -> str | None:
    return (value.strip()[:_LONGEST_TEXT] or None) if isinstance(value, str) else None
