"""Durations and sizes as people write them: read into seconds and bytes, and written back.

Pure functions. No error here repeats the text it was given: it may be a secret in the wrong place.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

__all__ = ["DURATION", "SIZE", "format_duration", "format_size", "parse_duration", "parse_size"]

DURATION = "a duration such as 30s, 15m, 1h30m, 72h, 90d, 250ms, PT15M or a number of seconds"
"""What `parse_duration` takes, to stand after "expected"."""
SIZE = "a size such as 64MiB, 1MB, 1 GiB or a number of bytes"
"""What `parse_size` takes, to stand after "expected"."""

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_ISO_NUMBER = r"[0-9]+(?:[.,][0-9]+)?"
# Units fall in size and none comes twice, so that 1m1m or 30s1h are caught as slips.
_SHORT = re.compile(
    rf"(?:(?P<w>{_NUMBER})\s*w\s*)?(?:(?P<d>{_NUMBER})\s*d\s*)?(?:(?P<h>{_NUMBER})\s*h\s*)?"
    rf"(?:(?P<m>{_NUMBER})\s*m(?!s)\s*)?(?:(?P<s>{_NUMBER})\s*s\s*)?(?:(?P<ms>{_NUMBER})\s*ms)?"
)
# Years and months have no fixed length and are left out.
_ISO = re.compile(
    rf"P(?:(?P<w>{_ISO_NUMBER})W)?(?:(?P<d>{_ISO_NUMBER})D)?"
    rf"(?:T(?:(?P<h>{_ISO_NUMBER})H)?(?:(?P<m>{_ISO_NUMBER})M)?(?:(?P<s>{_ISO_NUMBER})S)?)?"
)
_PLAIN = re.compile(_NUMBER)
_SIZE = re.compile(rf"(?P<number>{_NUMBER})\s*(?P<unit>[a-z]*)", re.IGNORECASE)

_SECONDS = {
    "w": Fraction(7 * 86_400),
    "d": Fraction(86_400),
    "h": Fraction(3_600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
}
_BYTES = {"": 1, "b": 1}
_BYTES |= {f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)}
_BYTES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)}

_LONGEST_TEXT = 64
_FEW_DAYS = 3 * 86_400
_LONGEST_DURATION = 100 * 365 * 86_400
_LARGEST_SIZE = 2**60


def parse_duration(value: object) -> float:
    """Return the seconds that `value` means: a number, or text such as `90`, `1h30m`, `250ms` or `PT15M`.

    At most 100 years. Raises ValueError, with a text that does not repeat the value.
    """
    seconds = _number(value) if not isinstance(value, str) else _duration_text(value.strip())
    if seconds is None or not 0 <= seconds <= _LONGEST_DURATION:
        raise ValueError(f"expected {DURATION}")
    return float(seconds)


def parse_size(value: object) -> int:
    """Return the bytes that `value` means: a whole number, or text such as `1024`, `64MiB`, `1MB` or `1.5 GiB`.

    kB, MB, GB, TB count in thousands; KiB, MiB, GiB, TiB in 1024s; letter case does not matter.
    Raises ValueError, with a text that does not repeat the value.
    """
    size = _number(value) if not isinstance(value, str) else _size_text(value.strip())
    if size is None or size.denominator != 1 or not 0 <= size <= _LARGEST_SIZE:
        raise ValueError(f"expected {SIZE}")
    return int(size)


def format_duration(seconds: float) -> str:
    """Write seconds so that `parse_duration` reads the same number back: `90d`, `1h30m`, `250ms`."""
    exact = Decimal(repr(float(seconds)))
    thousandths = exact * 1000
    if thousandths != thousandths.to_integral_value():
        return f"{exact:f}s"
    rest = int(thousandths)
    parts = []
    # A few days read better in hours, as the platforms' own documents have it (72h).
    for unit in ("d", "h", "m", "s", "ms") if seconds > _FEW_DAYS else ("h", "m", "s", "ms"):
        count, rest = divmod(rest, int(_SECONDS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def format_size(size: int) -> str:
    """Write a number of bytes so that `parse_size` reads the same number back: `64MiB`, `1000`."""
    for power, letter in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{letter}iB"
    return str(size)


def _number(value: object) -> Fraction | None:
    """A number that is one: bool is an int to Python, but not to people."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # An int may be too large to be asked, as a float, whether it is finite.
    return Fraction(value) if isinstance(value, int) or math.isfinite(value) else None


def _duration_text(text: str) -> Fraction | None:
    if not text or len(text) > _LONGEST_TEXT:
        return None
    if _PLAIN.fullmatch(text):
        return Fraction(text)
    match = _ISO.fullmatch(text) or _SHORT.fullmatch(text)
    if match is None or text.endswith("T"):
        return None
    parts = {unit: number for unit, number in match.groupdict().items() if number is not None}
    if not parts:
        return None
    return sum((Fraction(number.replace(",", ".")) * _SECONDS[unit] for unit, number in parts.items()), Fraction(0))


def _size_text(text: str) -> Fraction | None:
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    unit = match and _BYTES.get(match["unit"].lower())
    return Fraction(match["number"]) * unit if match and unit else None
