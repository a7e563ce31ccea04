"""What a sandbox keeps in its project over a restart: files for their owner alone, and the count of its starts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

__all__ = ["STARTS", "next_start", "write_private"]

STARTS: Final = "secrets/starts"
"""In a project: the number of the last start, of which the first is 0."""


def write_private(file: Path, content: bytes) -> None:
    """Put this in the place of what the file holds, at once or not at all. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
        stream.write(content)
    fresh.replace(file)


def next_start(file: Path) -> int:
    """The number of this start of a project that is there: one more than the last, which the file then says.

    Where the count cannot be read or kept, the Unix time in seconds: that too was not there before.
    """
    try:
        number = int(file.read_text(encoding="ascii")) + 1
    except (OSError, ValueError):
        number = int(time.time())
    try:
        write_private(file, b"%d\n" % number)
    except OSError:
        return int(time.time())
    return number
