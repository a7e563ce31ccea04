"""How much a program has done, in memory that another process reads while it is written.

A log such as an event hub cannot tell how much of it is finished, so each contestant does, all in the same way.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

__all__ = ["Progress"]

_RECORD = struct.Struct("=dq")


class Progress:
    """A number of messages and when it last grew, kept in a small file."""

    def __init__(self, path: Path, *, new: bool = False) -> None:
        if new:
            path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _RECORD.size)
        self._count = 0

    def add(self, count: int) -> None:
        """So many more are done, by now."""
        self._count += count
        # The time is written first: whoever sees the new number sees its time.
        _RECORD.pack_into(self._memory, 0, time.monotonic(), self._count)

    @property
    def count(self) -> int:
        """How many are done."""
        return int(_RECORD.unpack_from(self._memory)[1])

    @property
    def at(self) -> float:
        """When the last of them was, in seconds of the clock that all processes share."""
        return float(_RECORD.unpack_from(self._memory)[0])
