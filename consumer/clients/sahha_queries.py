"""What calls to Sahha are given, written the way Sahha reads it, and refused before anything is sent if it cannot be.

Pure functions. All of them raise `ValueError`, whose text names the argument or field and never its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from consumer.models.sahha_base import SahhaModel

__all__ = ["ListStyle", "Query", "body_of", "checked", "filters", "listed", "moment", "non_empty"]

ListStyle = Literal["repeat", "comma"]
Query = list[tuple[str, str]]
M = TypeVar("M", bound=SahhaModel)


def moment(name: str, value: date | datetime) -> str:
    """ISO 8601: a time with its offset, or a plain date, which Sahha accepts too.

    Sahha takes a time without an offset for UTC, Python for local time: one is refused, so that nobody has to guess.
    """
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise ValueError(f"{name} has no offset: give it a tzinfo, or use a date")
    return value.isoformat()


def listed(name: str, values: str | Iterable[str], style: ListStyle) -> Query:
    """A list in a query: `types=a&types=b` (what Sahha's client libraries send) or `types=a,b` (what is documented)."""
    names = [values] if isinstance(values, str) else list(values)
    if not all(names):
        raise ValueError(f"{name} holds an empty name")
    if style == "repeat":
        return [(name, value) for value in names]
    if any("," in value for value in names):
        raise ValueError(f"{name} holds a name with a comma, which separates names in this list style")
    return [(name, ",".join(names))] if names else []


def filters(**values: str | float | date | datetime | None) -> Query:
    """The parameters that are given, in order; those that are None are left out."""
    return [(name, _written(name, value)) for name, value in values.items() if value is not None]


def non_empty(name: str, value: str) -> str:
    """The text, which must have at least one character."""
    if not value:
        raise ValueError(f"{name} is empty")
    return value


def checked(model: type[M], value: M | Mapping[str, Any]) -> M:
    """The value as its model; a mapping may use Sahha's names or the model's."""
    if isinstance(value, model):
        return value
    problem: str
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = "; ".join(
            _complaint(model, detail) for detail in error.errors(include_input=False, include_url=False)
        )
    raise ValueError(problem)


def body_of(value: SahhaModel) -> dict[str, Any]:
    """The JSON object to send: Sahha's names, and only what was given; None that was given is null."""
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _written(name: str, value: str | float | date | datetime) -> str:
    return moment(name, value) if isinstance(value, date) else str(value)


def _complaint(model: type[SahhaModel], detail: Any) -> str:
    # Only names of the model's own are shown: others are the caller's data.
    known = {field.alias or name for name, field in model.model_fields.items()} | set(model.model_fields)
    where = ".".join(str(part) for part in detail["loc"][:1] if part in known)
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])
