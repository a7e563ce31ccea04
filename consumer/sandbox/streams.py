"""The names of the event streams. Thrive does not publish them; these are made after its documents' words."""

from __future__ import annotations

from typing import Final

__all__ = ["ALL", "STREAMS", "stream_of"]

STREAMS: Final = ("lab-results", "daily-device-data", "coaching-nudges", "program-updates")
ALL: Final = "all"
"""A queue registered under this name takes every stream that has none of its own."""

_ALIASES: Final = {
    "lab-results": ("lab-result", "labs", "lab"),
    "daily-device-data": ("daily-data", "device-data", "devices", "daily"),
    "coaching-nudges": ("coach-nudges", "nudges", "nudge", "coaching", "cards"),
    "program-updates": ("program", "programs", "program-updated"),
    ALL: ("events", "default"),
}
_BY_NAME: Final = {name: stream for stream, names in _ALIASES.items() for name in (stream, *names)}


def stream_of(queue_name: str) -> str | None:
    """The stream that a `queue_name` means, or `all`; letter case and `_` for `-` do not matter. None: no stream."""
    return _BY_NAME.get(queue_name.lower().replace("_", "-"))
