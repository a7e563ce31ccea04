"""Reading Thrive's answers: its two documented error bodies and whatever else comes, and `data` into models."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from consumer.clients.http import UNREADABLE, Reply, api_error, read_json
from consumer.errors import ApiError, ApiErrorDetail

__all__ = ["envelope", "fit", "read_error"]

M = TypeVar("M", bound=BaseModel)

_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,100}")
_LONGEST = 2000
_MOST_DETAILS = 100


def read_error(call: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error a refusal stands for (`/docs/errors`), never another exception.

    That is `{"error": {"code", "message", "details", "request_id"}}`; or, as every page of the API reference declares
    the 422, FastAPI's `{"detail": [{"loc", "msg", "type"}]}`; or any text, which becomes the message.
    """
    try:
        value = read_json(body)
    except ValueError:
        value = None
    asked = _matching(_REQUEST_ID, headers.get("x-request-id"))
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        return api_error(
            call,
            status=status,
            code=_matching(_CODE, error.get("code")),
            message=_text(error.get("message")),
            details=[_detail(one) for one in _rows(error.get("details"))],
            request_id=_matching(_REQUEST_ID, error.get("request_id")) or asked,
        )
    detail = value.get("detail") if isinstance(value, dict) else None
    if isinstance(detail, list):
        details = [_fastapi_detail(one) for one in _rows(detail)]
        return api_error(call, status=status, code="validation_error", details=details, request_id=asked)
    message = _text(detail) or _text(body[: 4 * _LONGEST].decode(errors="replace"))
    return api_error(call, status=status, message=message or None, request_id=asked)


def envelope(call: str, reply: Reply) -> Mapping[str, Any]:
    """The JSON object of a successful answer, which has `data`. Raises `ApiError` for anything else."""
    value = reply.json(call)
    if isinstance(value, dict) and "data" in value:
        return value
    del value  # there are tools that print the variables of a traceback
    raise ApiError(call, status=reply.status, code=UNREADABLE)


def fit(call: str, status: int, model: type[M], value: Any) -> M:
    """The value as a model. Raises `ApiError`, which holds nothing of it, when it does not fit."""
    try:
        return model.model_validate(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass
    # Outside the handler, and without it among the variables: a validation error holds what it was given.
    del value
    raise ApiError(call, status=status, code=UNREADABLE)


def _detail(value: Any) -> ApiErrorDetail:
    if not isinstance(value, dict):
        return ApiErrorDetail(None, None, _text(value))
    return ApiErrorDetail(_text(value.get("field")), _text(value.get("code")), _text(value.get("message")))


def _fastapi_detail(value: Any) -> ApiErrorDetail:
    if not isinstance(value, dict):
        return ApiErrorDetail(None, None, _text(value))
    where = ".".join(str(part)[:_LONGEST] for part in _rows(value.get("loc")) if isinstance(part, str | int))
    return ApiErrorDetail(where or None, _text(value.get("type")), _text(value.get("msg")))


def _rows(value: Any) -> Sequence[Any]:
    return value[:_MOST_DETAILS] if isinstance(value, list) else ()


def _text(value: Any) -> str | None:
    return value.strip()[:_LONGEST] if isinstance(value, str) else None


def _matching(pattern: re.Pattern[str], value: Any) -> str | None:
    """The value where it has the shape of a code or an id: these go into texts, and must not bring others along."""
    return value if isinstance(value, str) and pattern.fullmatch(value) else None
