"""The store that keeps dead letters in a folder of files."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from consumer.dead_letters.record import DeadLetter, encode
from consumer.dead_letters.segments import UNPROVEN, Segment, new_segment, unproven_bytes
from consumer.errors import DeadLetterError
from consumer.files import make_folder, write_all

__all__ = ["FileStore"]

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_MEBIBYTE: Final = 1024 * 1024
_UNPROVEN_REASONS: Final = frozenset({"unsigned", "bad_signature"})
_WRITE_BYTES: Final = 8 * _MEBIBYTE
"""How many bytes of lines are in memory at once; each envelope of an array repeats the headers of its message."""
_PROBE_BYTES: Final = 4096
_WARN_EVERY: Final = 60.0


class FileStore:
    """Dead letters in a folder: a segment per process, rolled at `segment_bytes`; a `DeadLetterStore`.

    Segments are made when first needed. With `seal` (see `consumer.dead_letters.sealing`) lines are encrypted. Messages
    that nobody is known to have signed have segments of their own, which all processes on the folder together keep
    below `unproven_limit` bytes: beyond it they are dropped, counted in `dropped_unproven`, told to `on_dropped` (from
    another thread) and warned of in the log. All writing happens in one thread of the store's own.
    """

    def __init__(
        self,
        path: Path,
        *,
        seal: Callable[[bytes], bytes] | None = None,
        unproven_limit: int = 256 * _MEBIBYTE,
        segment_bytes: int = 64 * _MEBIBYTE,
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        self.dropped_unproven = 0
        """Records dropped because of `unproven_limit`, since the start."""
        self._path = path
        self._seal = seal
        self._unproven_limit = unproven_limit
        self._segment_bytes = segment_bytes
        self._on_dropped = on_dropped
        self._open: dict[str, Segment] = {}
        self._warned_at = -_WARN_EVERY
        self._thread: ThreadPoolExecutor | None = None

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Keep the records, in order, with one fsync for each kind of segment and 8 MiB. Raises DeadLetterError."""
        if records:
            await self._in_thread(lambda: self._append(records))

    async def probe(self) -> None:
        """Write and remove a file of a few KiB. Raises DeadLetterError."""
        await self._in_thread(self._probe)

    async def close(self) -> None:
        """Close the segments."""
        if self._thread is not None:
            await self._in_thread(self._close)
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # One thread, so that a cancelled call that still writes is never met by the next one.
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            raise DeadLetterError(
                f"dead-letter store {self._path}: {error.strerror or type(error).__name__}"
            ) from error

    def _append(self, records: Sequence[DeadLetter]) -> None:
        make_folder(self._path)
        self._write_all("", self._lines(records, proven=True))
        self._write_all(UNPROVEN, self._within_quota(self._lines(records, proven=False)))

    def _lines(self, records: Sequence[DeadLetter], *, proven: bool) -> Iterator[bytes]:
        for record in records:
            if (record.proven and record.reason not in _UNPROVEN_REASONS) is proven:
                yield encode(record, seal=self._seal)

    def _write_all(self, prefix: str, lines: Iterable[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for line in lines:
            batch.append(line)
            size += len(line)
            if size >= _WRITE_BYTES:
                self._write(prefix, batch)
                batch, size = [], 0
        self._write(prefix, batch)

    def _write(self, prefix: str, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        segment = self._segment(prefix)
        del self._open[prefix]  # comes back only when all went well
        segment.append(b"".join(lines))
        if segment.size < self._segment_bytes:
            self._open[prefix] = segment
        else:
            segment.close()

    def _segment(self, prefix: str) -> Segment:
        segment = self._open.get(prefix)
        if segment is not None and not segment.in_place:
            segment.close()
            segment = None
        if segment is None:
            segment = self._open[prefix] = new_segment(self._path, prefix=prefix)
        return segment

    def _within_quota(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        room: int | None = None
        dropped = 0
        for line in lines:
            if room is None:
                room = self._unproven_limit - unproven_bytes(self._path)
            if len(line) <= room:
                room -= len(line)
                yield line
            else:
                dropped += 1
        if dropped:
            self._dropped(dropped)

    def _dropped(self, count: int) -> None:
        self.dropped_unproven += count
        if self._on_dropped is not None:
            self._on_dropped(count)
        if time.monotonic() - self._warned_at >= _WARN_EVERY:
            self._warned_at = time.monotonic()
            _log.warning(
                "dead letters of messages that nobody is known to have signed are dropped:"
                " dead_letters.unproven_limit is reached; dropped since the start: %d",
                self.dropped_unproven,
            )

    def _probe(self) -> None:
        make_folder(self._path)
        path = self._path / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, bytes(_PROBE_BYTES))
            os.fsync(handle)
        finally:
            os.close(handle)
            path.unlink()

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
