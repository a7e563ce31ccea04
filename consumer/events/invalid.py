"""What is wrong with an event, said without a byte of it."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core.core_schema import ErrorType

__all__ = ["describe"]

_SHOWN = 3

_NUMBER = "a number"
_OBJECT = "an object"
_LIST = "a list"
_TIME = "a time, as ISO 8601 or since the epoch"
_DATE = "a date, YYYY-MM-DD"
_EXPECTATIONS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "calendar_date": _DATE,
    "date_from_datetime_inexact": _DATE,
    "date_from_datetime_parsing": _DATE,
    "date_parsing": _DATE,
    "date_type": _DATE,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "datetime_parsing": _TIME,
    "datetime_type": _TIME,
    "dict_type": _OBJECT,
    "finite_number": _NUMBER,
    "float_parsing": _NUMBER,
    "float_type": _NUMBER,
    "greater_than_equal": _NUMBER,
    "int_from_float": _NUMBER,
    "int_parsing": _NUMBER,
    "int_type": _NUMBER,
    "less_than": _NUMBER,
    "list_type": _LIST,
    "mapping_type": _OBJECT,
    "missing": "a value",
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "nudge_data": "a card or a health action",
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "string_unicode": "valid Unicode text",
    "timestamp": _TIME,
    "tuple_type": _LIST,
}
_KNOWN_TYPES = frozenset(get_args(ErrorType))


def describe(cls: type[BaseModel], error: ValidationError) -> str:
    """One line for a failed validation against `cls`: the first few fields, and what was expected of each.

    Only names that `cls` and the models below it declare appear, and only expectations written here or pydantic's own
    error codes: the texts of validators, and the keys of free-form objects, could be health data.
    """
    names = _declared_names(cls)
    complaints: dict[str, None] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        complaints[f"{_place(item['loc'], names)}: expected {_expected(item['type'])}"] = None
    shown = list(complaints)[:_SHOWN]
    more = len(complaints) - len(shown)
    return f"{cls.__name__}: {'; '.join(shown)}{f'; and {more} more' if more else ''}"


def _expected(code: str) -> str:
    if code in _EXPECTATIONS:
        return _EXPECTATIONS[code]
    return f"what its model accepts ({code})" if code in _KNOWN_TYPES else "what its model accepts"


def _place(location: tuple[int | str, ...], names: Collection[str]) -> str:
    parts: list[str] = []
    for part in location:
        if isinstance(part, str) and part not in names:
            break
        parts.append(str(part))
    return ".".join(parts) or "body"


@lru_cache(maxsize=128)
def _declared_names(cls: type[BaseModel]) -> frozenset[str]:
    names = set(cls.model_fields)
    try:
        schema = cls.model_json_schema()
    except PydanticUserError:
        # A partner's model may hold types JSON Schema has no word for; the top level's names must do.
        schema = {}
    for definition in [schema, *schema.get("$defs", {}).values()]:
        names.update(definition.get("properties", ()))
    return frozenset(names)
