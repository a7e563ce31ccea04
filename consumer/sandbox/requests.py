"""Reading requests the way the platform does: with FastAPI's 422 for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, TypeVar

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from consumer.sandbox.answers import Misfit, Refusal, data

__all__ = [
    "Days",
    "Moment",
    "Page",
    "Shape",
    "between",
    "body_of",
    "found",
    "is_json",
    "json_of",
    "listed",
    "query_of",
    "shaped",
]

T = TypeVar("T", bound=BaseModel)

_YEARS: Final = range(1900, 2200)


def _moment(value: datetime) -> datetime:
    if value.year not in _YEARS:
        raise ValueError(f"the year should be {_YEARS[0]} to {_YEARS[-1]}")
    return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)


Moment = Annotated[datetime, AfterValidator(_moment)]
"""A time; without an offset it is UTC."""


class Shape(BaseModel):
    """What a body or query has to be. Other fields are ignored, as FastAPI does."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)


class Page(Shape):
    """`limit` and `offset` of most lists (`/docs/base-url-and-format`)."""

    limit: int = Field(25, ge=1, le=100)
    offset: int = Field(0, ge=0)


class Days(Page):
    """A list of days, `start_date` and `end_date` inclusive."""

    start_date: date | None = None
    end_date: date | None = None


async def body_of(request: web.Request, shape: type[T]) -> T:
    """The JSON body. Raises `Misfit` (422) for one that does not fit, `Refusal` (415) for another content type."""
    if not is_json(request):
        raise Refusal(415, "Expected application/json")
    try:
        value = _parsed(await request.read())
    except ValueError:
        raise Misfit([{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]) from None
    return shaped(value, shape, "body")


def is_json(request: web.Request) -> bool:
    """Whether the body is said to be JSON."""
    return request.content_type == "application/json"


async def json_of(request: web.Request) -> Any:
    """The JSON body, whatever it is said to be. Raises `Refusal` (422) for one that is none."""
    try:
        return _parsed(await request.read())
    except ValueError:
        raise Refusal(422, "the body: expected JSON") from None


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities are no JSON


def query_of(request: web.Request, shape: type[T]) -> T:
    """The query. Raises `Misfit` (422)."""
    return shaped(dict(request.query), shape, "query")


def shaped(value: Any, shape: type[T], place: str) -> T:
    """A value that fits. Raises `Misfit` (422), which says where in `place` it does not."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        raise Misfit.of(error, place) from None


def listed(rows: Sequence[Any], page: Page) -> web.Response:
    """One page of a list, with the documented `pagination`."""
    shown = list(rows[page.offset : page.offset + page.limit])
    return data(shown, pagination={"limit": page.limit, "offset": page.offset, "total": len(rows)})


def found(row: dict[str, Any] | None, what: str) -> dict[str, Any]:
    """A row that is there. Raises `Refusal` (404)."""
    if row is None:
        raise Refusal(404, f"There is no such {what}")
    return row


def between(rows: Sequence[dict[str, Any]], days: Days) -> list[dict[str, Any]]:
    """The rows whose `date` is within the days, the oldest first."""
    first = days.start_date.isoformat() if days.start_date else ""
    last = days.end_date.isoformat() if days.end_date else "9999-12-31"
    return sorted((row for row in rows if first <= row["date"] <= last), key=lambda row: str(row["date"]))
