"""How the sandbox's Sahha reads requests and writes answers: its error body, its two ways to say nothing, its lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final

from aiohttp import web

__all__ = [
    "Problem",
    "body_object",
    "done",
    "external_id_of",
    "flag",
    "json_body",
    "listed",
    "moment_of",
    "problem",
    "span",
    "text_of",
    "within",
]

_MOST_IDS: Final = 200  # characters of an external id; Sahha's own bound is unknown


class Problem(Exception):
    """An answer of 400 or above: `problem` makes it from its parts."""

    def __init__(self, status: int, title: str, *errors: tuple[str, str], location: str = "request") -> None:
        super().__init__(f"{status} {title}")
        self.status = status
        self.body = {
            "title": title,
            "statusCode": status,
            "location": location,
            "errors": [{"origin": origin, "errors": [text]} for origin, text in errors],
        }


def problem(error: Problem) -> web.Response:
    """The answer that a `Problem` stands for: `{title, statusCode, location, errors: [{origin, errors}]}`."""
    return web.json_response(error.body, status=error.status)


def done(status: int = 200) -> web.Response:
    """Success with nothing to say."""
    return web.Response(status=status)


async def json_body(request: web.Request) -> Any:
    """The body, read as JSON; raises `Problem` 400 for what is none, NaN and Infinity included."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(await request.read(), parse_constant=refuse)
    except (ValueError, RecursionError):
        raise Problem(400, "The request body is not JSON.", ("body", "Expected JSON.")) from None


async def body_object(request: web.Request) -> dict[str, Any]:
    """The body, a JSON object; raises `Problem` 400."""
    content = await json_body(request)
    if not isinstance(content, dict):
        raise Problem(400, "One or more validation errors occurred.", ("body", "Expected an object."))
    return content


def text_of(content: Mapping[str, Any], name: str) -> str:
    """A text that must be there; raises `Problem` 400."""
    value = content.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Problem(400, "One or more validation errors occurred.", (name, "Expected a text."))
    return value


def external_id_of(content: Mapping[str, Any]) -> str:
    """The external id that a body names; raises `Problem` 400 for one that cannot be one."""
    external_id = text_of(content, "externalId")
    if len(external_id) > _MOST_IDS or not external_id.isprintable():
        raise Problem(400, "One or more validation errors occurred.", ("externalId", "Not a valid external id."))
    return external_id


def flag(value: object, name: str) -> bool:
    """A truth value: JSON's own, or written out, as both are seen; raises `Problem` 400."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Problem(400, "One or more validation errors occurred.", (name, "Expected true or false."))


def listed(request: web.Request, name: str) -> list[str]:
    """A list in the query, in each of the three ways of writing one: `a=1&a=2`, `a=1,2` and `a[0]=1&a[1]=2`."""
    found = [
        value
        for key, value in request.query.items()
        if key == name or (key.startswith(f"{name}[") and key.endswith("]"))
    ]
    return [part for value in found for part in map(str.strip, value.split(",")) if part]


def moment_of(text: str, name: str, *, end: bool = False) -> datetime:
    """A time in ISO 8601; without an offset it is UTC, and a plain date is its midnight (or, for `end`, its last).

    Raises `Problem` 400. An offset's `+` that was not encoded has become a space, and is refused.
    """
    try:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            when = datetime.fromisoformat(text)
        else:
            when = datetime.combine(day, datetime.max.time() if end else datetime.min.time())
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem(400, "One or more validation errors occurred.", (name, "Expected an ISO 8601 time.")) from None


def span(request: web.Request) -> tuple[datetime | None, datetime | None]:
    """The times between which results are asked for; raises `Problem` 400."""
    start, end = request.query.get("startDateTime"), request.query.get("endDateTime")
    first = moment_of(start, "startDateTime") if start else None
    last = moment_of(end, "endDateTime", end=True) if end else None
    if first and last and first > last:
        raise Problem(400, "One or more validation errors occurred.", ("endDateTime", "The end lies before the start."))
    return first, last


def within(items: Iterable[dict[str, Any]], field: str, start: datetime | None, end: datetime | None) -> list[Any]:
    """Those of `items` whose time `field` lies in the span, its ends included."""
    return [
        item
        for item in items
        if (start is None or datetime.fromisoformat(item[field]) >= start)
        and (end is None or datetime.fromisoformat(item[field]) <= end)
    ]
