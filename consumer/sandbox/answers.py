"""How the sandbox says no: the platforms' error bodies, faults struck, and nothing of a request in a log."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from pydantic import ValidationError

from consumer.failures import describe
from consumer.sandbox.browsers import foreign
from consumer.sandbox.faults import Strike
from consumer.sandbox.parts import Parts

__all__ = ["Misfit", "Refusal", "answering", "data", "invalid", "no_content"]

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CODES: Final = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "rate_limited",
    500: "internal_error",
    502: "bad_gateway",
    503: "service_unavailable",
}
"""Codes of Thrive's error body. Only some are documented; the others are made after them."""
_LONGEST_ID: Final = 100


class Refusal(Exception):
    """A request is answered with an error of Thrive's own shape (`/docs/errors`)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or _CODES.get(status, "error")
        self.message = message
        self.details = list(details)
        self.headers = dict(headers or {})


def invalid(field: str, message: str, *, code: str = "invalid_value") -> Refusal:
    """The refusal (422) of one field, which its detail says what is wrong with."""
    details = [{"field": field, "code": code, "message": message}]
    return Refusal(422, "The request is not valid", details=details)


class Misfit(Exception):
    """A request is answered with FastAPI's 422, which every reference page of Thrive's declares."""

    def __init__(self, detail: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("the request does not fit")
        self.detail = list(detail)

    @classmethod
    def of(cls, error: ValidationError, place: str) -> Misfit:
        """What pydantic found in `place` (body, query), without what was given."""
        return cls(
            [
                {"loc": [place, *(str(part) for part in one["loc"])], "msg": one["msg"], "type": one["type"]}
                for one in error.errors(include_url=False, include_input=False, include_context=False)
            ]
        )


def data(value: Any, *, status: int = 200, pagination: Mapping[str, int] | None = None) -> web.Response:
    """`{"data": ...}`, with `pagination` on lists."""
    body = {"data": value} if pagination is None else {"data": value, "pagination": dict(pagination)}
    return web.json_response(body, status=status)


def no_content() -> web.Response:
    """204."""
    return web.Response(status=204)


def answering(parts: Parts) -> Any:
    """The middleware around everything: no web pages, faults, the handler, its errors in the shape of its platform."""

    @web.middleware
    async def middleware(request: web.Request, handler: _Handler) -> web.StreamResponse:
        why = foreign(request.headers, expose=parts.options.expose)
        if why is not None:
            return _refused(request, Refusal(403, why, code="forbidden"))
        if not request.path.startswith("/sandbox"):
            strike = parts.faults.strike(request.method, request.path)
            if strike.latency:
                await asyncio.sleep(strike.latency)
            if strike.status is not None:
                return _struck(request, strike)
        return await _answer(parts, request, handler)

    return middleware


async def _answer(parts: Parts, request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        return _refused(request, refusal)
    except Misfit as misfit:
        return web.json_response({"detail": misfit.detail}, status=422)
    except web.HTTPException as error:
        if request.path.startswith("/api/"):
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return _refused(request, Refusal(error.status, HTTPStatus(error.status).phrase, headers=allow))
    except ConnectionError:
        return web.Response(status=400)  # whoever asked has gone before the request was read
    except Exception as error:  # noqa: BLE001 - aiohttp would log the traceback
        what = describe(error)
    parts.log.error("sandbox_failed", error=what)
    return _refused(request, Refusal(500, "Something in the sandbox went wrong; its log says where"))


def _struck(request: web.Request, strike: Strike) -> web.Response:
    status = strike.status or 500
    headers = {} if strike.retry_after is None else {"Retry-After": strike.retry_after}
    if not request.path.startswith("/api/"):
        return _refused(request, Refusal(status, "A fault of the sandbox, on request", headers=headers))
    # The shape that both of Sahha's SDKs read, seen in one real 500.
    body = {
        "title": "An internal exception has occurred." if status == HTTPStatus.INTERNAL_SERVER_ERROR else "Refused.",
        "statusCode": status,
        "location": "domain",
        "errors": [{"origin": "sandbox", "errors": ["A fault of the sandbox, on request"]}],
    }
    return web.json_response(body, status=status, headers=headers)


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    error = {
        "code": refusal.code,
        "message": refusal.message,
        "details": refusal.details,
        "request_id": _request_id(request),
    }
    return web.json_response({"error": error}, status=refusal.status, headers=refusal.headers)


def _request_id(request: web.Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if given.isprintable() and 0 < len(given) <= _LONGEST_ID else str(uuid.uuid4())
