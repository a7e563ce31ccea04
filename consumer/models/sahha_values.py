"""What Sahha writes as text, read into values."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["RawValue", "Value", "decode_value", "plain_recording_method"]

Value = int | float | datetime | str | None
"""A decoded value: what its type promises, or the raw value where it cannot be read as that."""

RawValue = int | float | str | None
"""A value as Sahha writes it: text in what was observed, a number in some documents."""

_INTEGER_TYPES = frozenset({"integer", "int", "long"})
_DOUBLE_TYPES = frozenset({"double", "float", "decimal", "number"})
_DATETIME_TYPE = "datetime"
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")
_LEAST, _MOST = -(2**63), 2**63 - 1
_RECORDING_METHOD = "recording_method_"


def decode_value(value_type: str | None, raw: RawValue) -> Value:
    """Read a biomarker's raw value as its `valueType` says; pure, and never raises.

    `integer` gives an int of up to 64 bits, `double` a finite float, `datetime` an aware datetime (UTC where the text
    has no offset; the seconds may be missing, as in `2025-07-10T22:00+12:00`). Any other type, and a value that is not
    what its type promises, is given back as it came.
    """
    kind = value_type.strip().lower() if isinstance(value_type, str) else None
    decoded: Value = None
    if kind in _INTEGER_TYPES:
        decoded = _integer(raw)
    elif kind in _DOUBLE_TYPES:
        decoded = _double(raw)
    elif kind == _DATETIME_TYPE:
        decoded = _datetime(raw)
    return raw if decoded is None else decoded


def plain_recording_method(raw: str | None) -> str | None:
    """A recording method in one spelling: `RECORDING_METHOD_MANUAL_ENTRY` and `manual_entry` are the same."""
    return None if raw is None else raw.strip().lower().removeprefix(_RECORDING_METHOD)


def _integer(raw: Any) -> int | None:
    if isinstance(raw, str):
        text = raw.strip()
        raw = int(text) if _INTEGER.fullmatch(text) else _double(text)
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    if isinstance(raw, float) and not raw.is_integer():
        return None
    return int(raw) if _LEAST <= raw <= _MOST else None


def _double(raw: Any) -> float | None:
    if isinstance(raw, str):
        text = raw.strip()
        raw = float(text) if _DECIMAL.fullmatch(text) else None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _datetime(raw: Any) -> datetime | None:
    if not isinstance(raw, str) or _DATE.fullmatch(raw.strip()) is None:
        return None
    try:
        moment = datetime.fromisoformat(raw.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
