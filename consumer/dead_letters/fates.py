"""What became of the lines of a segment when they were replayed: `<segment>.fates`, a line for each.

    {"id": "...", "fate": "handled", "at": "2026-03-16T08:00:00.000000Z"}

The segment itself is never changed by a replay. The last fate of an id counts, but what is done stays done.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

__all__ = ["DONE", "FATES_SUFFIX", "fates_in", "fates_of", "lines_of_fates"]

DONE: Final = frozenset({"handled", "duplicate"})
"""Fates after which a line needs no replay."""
FATES_SUFFIX: Final = ".fates"
"""What the name of a segment's fates ends with, after the segment's own."""


def fates_in(lines: Iterable[bytes]) -> dict[str, str]:
    """The fate of each id that was replayed. Lines that make no sense, such as half of one, are no fate."""
    fates: dict[str, str] = {}
    for line in lines:
        identity, fate = _parse(line)
        if identity is not None and fates.get(identity) not in DONE:
            fates[identity] = fate
    return fates


def lines_of_fates(fates: Mapping[str, str], *, at: datetime) -> bytes:
    """A line for each id, newlines included."""
    when = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return b"".join(
        json.dumps({"id": identity, "fate": fate, "at": when}).encode() + b"\n" for identity, fate in fates.items()
    )


def fates_of(ids: Collection[str], lines: Iterable[bytes]) -> bytes:
    """The whole lines that are about one of these ids."""
    return b"".join(line for line in lines if line.endswith(b"\n") and _parse(line)[0] in ids)


def _parse(line: bytes) -> tuple[str | None, str]:
    try:
        entry = json.loads(line)
        identity, fate = entry["id"], entry["fate"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, ""
    return (identity, fate) if isinstance(identity, str) and isinstance(fate, str) else (None, "")
