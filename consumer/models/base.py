"""What all the platforms' models share: frozen, tolerant of what is new, strict about what is known, silent in logs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt
from pydantic_core import PydanticCustomError

__all__ = ["CalendarDate", "Flag", "Number", "PlatformModel", "Rows", "Timestamp", "is_header_text"]

T = TypeVar("T")

_DATE_SEPARATOR = slice(4, 5)


class PlatformModel(BaseModel):
    """A frozen model of something a platform sends.

    Fields it does not know are kept in `model_extra`. A known field of a wrong type is a `ValidationError`, whose text
    holds no input. `repr`, `str` and pretty printers show the class name and nothing of the content: what a log line
    or a traceback prints must not be somebody's health.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", hide_input_in_errors=True, allow_inf_nan=False, protected_namespaces=()
    )

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return ()

    def __str__(self) -> str:
        return repr(self)


def is_header_text(value: str) -> bool:
    """Whether a header can carry the text as it is: a line break in it would be another header."""
    return bool(value) and value.isascii() and value.isprintable() and not value.isspace()


def _no_flag(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("timestamp", "Input should be a time")
    return value


def _aware(value: datetime) -> datetime:
    # The platforms' times without an offset are UTC (Thrive's `/docs/base-url-and-format`: always UTC).
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        value.astimezone(UTC)
    except OverflowError:
        # Midnight of the first day there is, east of Greenwich: no database could keep it.
        raise PydanticCustomError("timestamp", "Input should be a time") from None
    return value


def _written_date(value: Any) -> Any:
    # pydantic would also take numbers, and digits in a string, as a date: days since 1970.
    if isinstance(value, date) or (isinstance(value, str) and value[_DATE_SEPARATOR] == "-"):
        return value
    raise PydanticCustomError("calendar_date", "Input should be a date, YYYY-MM-DD")


def _rows(value: Any) -> Any:
    return () if value is None else value


Number = Annotated[Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictFloat, Field(union_mode="left_to_right")]
"""A finite JSON number; a whole one of up to 64 bits stays an `int`. Neither digits in a string nor a boolean."""

Flag = StrictBool
"""A JSON boolean, nothing that merely looks like one."""

Timestamp = Annotated[datetime, BeforeValidator(_no_flag), AfterValidator(_aware)]
"""An aware datetime, from ISO 8601 text or epoch seconds or milliseconds; without an offset it is UTC."""

CalendarDate = Annotated[date, BeforeValidator(_written_date)]
"""A date without a time, from `YYYY-MM-DD`."""

Rows = Annotated[tuple[T, ...], BeforeValidator(_rows)]
"""A list, kept as a tuple; null is an empty one."""
