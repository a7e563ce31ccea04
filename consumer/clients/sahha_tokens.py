"""How long a token of Sahha's may be used."""

from __future__ import annotations

import math

import jwt

from consumer.clients.member_tokens import MintedToken

__all__ = ["MARGIN", "UNKNOWN_LIFETIME", "minted"]

MARGIN = 300.0
"""Seconds a token is renewed before its end."""
UNKNOWN_LIFETIME = 3600.0
"""Seconds a token is kept that says nothing about its end; should it end sooner, a 401 tells."""

_LARGEST = 2.0**53


def minted(token: str, expires_in: float | None, *, now: float) -> MintedToken:
    """A token for the cache, from the answer that brought it; `now` is in seconds since 1970.

    Of a token that lives for less than twice the margin, half the life is used: renewed by the margin alone it would
    be made anew for every call.
    """
    life = _life(token, expires_in, now)
    return MintedToken(token, max(life, life / 2 + MARGIN))


def _life(token: str, expires_in: float | None, now: float) -> float:
    """Seconds from now: what came with the token, else what it says itself (`exp`), else an hour.

    The token's own word is read without verifying it: it is used for nothing but the time to renew, and who issued
    the token will judge it.
    """
    if expires_in is not None:
        return _seconds(expires_in)
    try:
        end = jwt.decode(token, options={"verify_signature": False}).get("exp")
    except (jwt.PyJWTError, ValueError, RecursionError):
        end = None
    if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
        return UNKNOWN_LIFETIME
    return _seconds(end - now if abs(end) < _LARGEST else end)


def _seconds(value: float) -> float:
    return float(min(max(value, 0.0), _LARGEST))
