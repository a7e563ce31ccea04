"""How large a webhook may be, so that the message made of it fits its queue; how many connections are held. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from consumer.errors import SettingsError

__all__ = ["HEADERS_SHARE", "body_limit", "connection_limit", "headers_size", "largest_body"]

HEADERS_SHARE: Final = 8 * 1024
"""Bytes of a message that the three header values may take, as JSON writes them."""
_FRAME: Final = 256
"""And what everything else beside the body takes at most: names, provider, time, punctuation."""
_MOST: Final = 256 * 1024
"""The largest body unless a setting says otherwise; those of Sahha have a few KB."""
_SURELY_SHORT: Final = HEADERS_SHARE // 4
"""So many characters fit in any case: UTF-8 has four bytes for one at most, and an escape has two."""
_SPARE_FILES: Final = 64
_FEWEST_CONNECTIONS: Final = 16


def largest_body(message_bytes: int) -> int:
    """The largest body whose message surely has no more than so many bytes; 0 or less if there is none."""
    return (message_bytes - HEADERS_SHARE - _FRAME) // 4 * 3


def body_limit(asked: int | None, *, largest_message: int | None, max_message_bytes: int, source: str) -> int:
    """The largest body to accept, in bytes.

    `asked` is the setting, None for whatever fits; `largest_message` what the queue takes, None without a limit;
    `max_message_bytes` what the worker reads. Raises SettingsError for more than fits, or where nothing does.
    """
    bound = max_message_bytes if largest_message is None else min(largest_message, max_message_bytes)
    fits = largest_body(bound)
    reason = (
        f"sources.{source}.max_message_bytes is {bound}"
        if bound == max_message_bytes
        else f"the queue of source {source} takes messages of {bound} bytes"
    )
    if fits <= 0:
        raise SettingsError(
            f"CONSUMER_RELAY__SOURCE: {reason}, and an empty webhook may need {HEADERS_SHARE + _FRAME} of them"
        )
    if asked is None:
        return min(fits, _MOST)
    if asked > fits:
        raise SettingsError(
            f"CONSUMER_RELAY__MAX_BODY_BYTES: expected {fits} or less, since {reason} (base64 takes a third more)"
        )
    return asked


def headers_size(headers: Mapping[str, str]) -> int:
    """An upper bound of the bytes that the values take in a message; exact if there is any danger."""
    characters = sum(map(len, headers.values()))
    if characters <= _SURELY_SHORT:
        return characters * 4
    return sum(len(json.dumps(value, ensure_ascii=False).encode()) for value in headers.values())


def connection_limit(max_concurrency: int, open_files: int) -> int:
    """The most connections to hold: twice the webhooks in hand, but never all the files that may be open."""
    return max(_FEWEST_CONNECTIONS, min(2 * max_concurrency, open_files - _SPARE_FILES))
