"""The store that keeps dead letters in a folder of files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from consumer.dead_letters.batches import Quota, batches, lines_of
from consumer.dead_letters.record import DeadLetter
from consumer.dead_letters.segments import UNPROVEN, Segment, new_segment, unproven_bytes
from consumer.errors import DeadLetterError
from consumer.files import make_folder, write_all

__all__ = ["FileStore"]

_T = TypeVar("_T")

_MEBIBYTE: Final = 1024 * 1024
_PROBE_BYTES: Final = 4096
_LOOKS: Final = 10
"""How often a segment's age is looked at before it is to be closed."""


class FileStore:
    """Dead letters in a folder: a segment per process; a `DeadLetterStore`.

    A segment is closed at `segment_bytes`, or `roll_after` seconds after it was begun, so that it can be purged.

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
        roll_after: float = 3600.0,
        on_dropped: Callable[[int], None] | None = None,
    ) -> None:
        self._path = path
        self._seal = seal
        self._quota = Quota(unproven_limit, on_dropped)
        self._segment_bytes = segment_bytes
        self._roll_after = roll_after
        self._open: dict[str, Segment] = {}
        self._thread: ThreadPoolExecutor | None = None
        self._rolling: asyncio.Task[None] | None = None

    @property
    def dropped_unproven(self) -> int:
        """Records dropped because of `unproven_limit`, since the start."""
        return self._quota.dropped

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Keep the records, in order, with one fsync for each kind of segment and 8 MiB. Raises DeadLetterError."""
        if records:
            await self._in_thread(lambda: self._append(records))
            if self._open and (self._rolling is None or self._rolling.done()):
                self._rolling = asyncio.create_task(self._roll())

    async def probe(self) -> None:
        """Write and remove a file of a few KiB. Raises DeadLetterError."""
        await self._in_thread(self._probe)

    async def close(self) -> None:
        """Close the segments."""
        if self._rolling is not None:
            self._rolling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._rolling
            self._rolling = None
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
        for batch in batches(lines_of(records, proven=True, seal=self._seal)):
            self._write("", batch)
        unproven = lines_of(records, proven=False, seal=self._seal)
        for batch in batches(self._quota.within(unproven, lambda: unproven_bytes(self._path))):
            self._write(UNPROVEN, batch)

    def _write(self, prefix: str, lines: bytes) -> None:
        segment = self._segment(prefix)
        del self._open[prefix]  # comes back only when all went well
        segment.append(lines)
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

    async def _roll(self) -> None:
        """Close segments as they come of age, until none is open: the next dead letter may be long in coming."""
        while self._open:
            await asyncio.sleep(self._roll_after / _LOOKS)
            with contextlib.suppress(DeadLetterError):  # it is written to no more, whatever its closing said
                await self._in_thread(self._close_aged)

    def _close_aged(self) -> None:
        for prefix, segment in list(self._open.items()):
            if time.monotonic() - segment.begun_at >= self._roll_after:
                self._open.pop(prefix).close()

    def _close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
