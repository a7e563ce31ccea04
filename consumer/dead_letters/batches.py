"""What every store of lines does before it writes: lines of proven and of unproven messages, a quota, and batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from consumer.dead_letters.record import DeadLetter, encode

__all__ = ["BATCH_BYTES", "Quota", "batches", "lines_of"]

_log = logging.getLogger(__name__)

BATCH_BYTES: Final = 8 * 1024 * 1024
"""How many bytes of lines are in memory at once; each envelope of an array repeats the headers of its message."""
_UNPROVEN_REASONS: Final = frozenset({"unsigned", "bad_signature"})
_WARN_EVERY: Final = 60.0


def lines_of(
    records: Sequence[DeadLetter], *, proven: bool, seal: Callable[[bytes], bytes] | None = None
) -> Iterator[bytes]:
    """Yield the lines of the records that are, or are not, of messages whose signer is known."""
    for record in records:
        if (record.proven and record.reason not in _UNPROVEN_REASONS) is proven:
            yield encode(record, seal=seal)


def batches(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to pieces of about `BATCH_BYTES`; none is empty."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= BATCH_BYTES:
            yield b"".join(batch)
            batch, size = [], 0
    if batch:
        yield b"".join(batch)


class Quota:
    """Drops what unproven messages would take beyond `limit` bytes; counted, told to `on_dropped`, warned of."""

    def __init__(self, limit: int, on_dropped: Callable[[int], None] | None = None) -> None:
        self.dropped = 0
        """Records dropped since the start."""
        self._limit = limit
        self._on_dropped = on_dropped
        self._warned_at = -_WARN_EVERY

    def within(self, lines: Iterable[bytes], used: Callable[[], int]) -> Iterator[bytes]:
        """Yield the lines there is room for. `used` tells the bytes in use; it is asked once, before the first line."""
        room: int | None = None
        dropped = 0
        for line in lines:
            if room is None:
                room = self._limit - used()
            if len(line) <= room:
                room -= len(line)
                yield line
            else:
                dropped += 1
        if dropped:
            self._drop(dropped)

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self._on_dropped is not None:
            self._on_dropped(count)
        if time.monotonic() - self._warned_at >= _WARN_EVERY:
            self._warned_at = time.monotonic()
            _log.warning(
                "dead letters of messages that nobody is known to have signed are dropped:"
                " dead_letters.unproven_limit is reached; dropped since the start: %d",
                self.dropped,
            )
