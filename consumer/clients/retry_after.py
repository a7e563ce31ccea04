"""How long a server asks to be left alone: pure functions over header values.

Whatever a server sends, the answer is a number of seconds between 0 and `LONGEST`, or None where it asks for nothing
that can be understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["LONGEST", "parse_retry_after", "wait_asked"]

LONGEST = 86_400.0
"""Seconds; a server that asks for more is taken to have asked for a day."""

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")
_LONGEST_TEXT = 64
_EPOCH = 1_000_000_000.0
"""From here on a number is read as a time in seconds since 1970, below as a duration."""


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Seconds until the time a `Retry-After` value names: a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    text = value.strip()
    if len(text) > _LONGEST_TEXT:
        return None
    if _NUMBER.fullmatch(text):
        return _bounded(float(text))
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return _bounded((moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def wait_asked(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a refused request should wait: `Retry-After`, else, for 429, when the rate limit's window ends.

    `headers` is looked up with lower-case names, so give a case-insensitive mapping. `ratelimit-reset` is seconds
    (an IETF draft); `x-ratelimit-reset` is, depending on the server, seconds or seconds since 1970.
    """
    asked = headers.get("retry-after")
    if asked is not None:
        return parse_retry_after(asked, now)
    if status != 429:  # noqa: PLR2004 - too many requests
        return None
    reset = (headers.get("ratelimit-reset") or headers.get("x-ratelimit-reset") or "").strip()
    if not _NUMBER.fullmatch(reset):
        return None
    seconds = float(reset)
    return _bounded(seconds - now.timestamp() if seconds >= _EPOCH else seconds)


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST) if math.isfinite(seconds) else LONGEST
