"""The store that keeps dead letters as objects, in S3 or Blob Storage: one for each batch, never changed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final, TypeVar

from consumer.dead_letters.batches import Quota, batches, lines_of
from consumer.dead_letters.objects import ListingDenied, ObjectChanged, Objects
from consumer.dead_letters.record import DeadLetter
from consumer.dead_letters.segments import SUFFIX, UNPROVEN
from consumer.errors import DeadLetterError

__all__ = ["ObjectStore"]

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_PROBE: Final = ".probe"
_ANSWER_WITHIN: Final = 25.0
"""Seconds a call may take in all: more than an `Objects` needs, unless the name service hangs."""
_COUNT_EVERY: Final = 300.0
_LONGEST_HOST: Final = 40
_MOST_COUNTED: Final = 32_768
"""Objects of unproven messages that fill the quota however small they are: counting them must not take long."""


class ObjectStore:
    """Dead letters as objects; a `DeadLetterStore`.

    Their names sort by time, and those of messages that nobody is known to have signed start with `unproven-`. Of the
    latter all processes together keep about `unproven_limit` bytes, in 32,768 objects at most: what others write is
    counted every `count_every` seconds, and not at all when the credentials do not allow listing, which is warned of.
    Beyond, they are dropped as `FileStore` does. With `seal` lines are encrypted. The SDK is used in one thread of the
    store's own; what takes longer than `answer_within` seconds fails, and may still happen.
    """

    def __init__(
        self,
        objects: Objects,
        *,
        seal: Callable[[bytes], bytes] | None = None,
        unproven_limit: int = 256 * 1024 * 1024,
        on_dropped: Callable[[int], None] | None = None,
        answer_within: float = _ANSWER_WITHIN,
        count_every: float = _COUNT_EVERY,
    ) -> None:
        self._objects = objects
        self._seal = seal
        self._quota = Quota(unproven_limit, on_dropped)
        self._unproven_limit = unproven_limit
        self._least = unproven_limit // _MOST_COUNTED
        self._answer_within = answer_within
        self._count_every = count_every
        self._unproven_bytes = 0
        self._counted_at: float | None = None
        self._may_list = True
        self._thread: ThreadPoolExecutor | None = None

    @property
    def dropped_unproven(self) -> int:
        """Records dropped because of `unproven_limit`, since the start."""
        return self._quota.dropped

    async def append(self, records: Sequence[DeadLetter]) -> None:
        """Keep the records, in order, in an object for each kind and 8 MiB. Raises DeadLetterError."""
        if records:
            await self._in_thread(lambda: self._append(records))

    async def probe(self) -> None:
        """Write an empty object, always the same: deleting it would take a right that the worker needs for nothing.

        Raises DeadLetterError.
        """
        await self._in_thread(lambda: self._objects.overwrite(_PROBE, b""))

    async def may_count(self) -> bool:
        """Whether the credentials allow what `unproven_limit` needs to hold for all processes together: listing.

        Raises DeadLetterError.
        """
        try:
            await self._in_thread(self._counted)
        except ListingDenied:
            return False
        return True

    async def close(self) -> None:
        """Let go of the connections."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
        self._objects.close()

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        # One thread, so that a cancelled call that still writes is never met by the next one.
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="dead-letters")
        try:
            async with asyncio.timeout(self._answer_within):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except TimeoutError:
            text = f"dead-letter store {self._objects.where}: no answer within {self._answer_within:g} s"
            raise DeadLetterError(text) from None

    def _append(self, records: Sequence[DeadLetter]) -> None:
        for batch in batches(lines_of(records, proven=True, seal=self._seal)):
            self._write("", batch)
        unproven = lines_of(records, proven=False, seal=self._seal)
        for batch in batches(self._quota.within(unproven, self._used)):
            self._write(UNPROVEN, batch)
            self._unproven_bytes += max(len(batch), self._least)

    def _write(self, prefix: str, lines: bytes) -> None:
        try:
            self._objects.create(_new_name(prefix), lines)
        except ObjectChanged:
            # The name is nobody else's: it was written when the SDK asked once, and the answer was lost.
            return

    def _used(self) -> int:
        """How many bytes unproven messages take, as far as it is known."""
        now = time.monotonic()
        if self._may_list and (self._counted_at is None or now - self._counted_at >= self._count_every):
            self._counted_at = now
            try:
                self._unproven_bytes = self._counted()
            except ListingDenied:
                self._may_list = False
                _log.warning(
                    "the dead-letter store may not be listed, so dead_letters.unproven_limit holds for this process"
                    " alone, from its start"
                )
            except DeadLetterError as error:
                # Honest messages must not wait for a count of forged ones; if the store is gone, writing will tell.
                _log.warning("messages that nobody is known to have signed cannot be counted for now: %s", error)
        return self._unproven_bytes

    def _counted(self) -> int:
        used = 0
        for found in self._objects.list(UNPROVEN):
            used += max(found.size, self._least)
            if used >= self._unproven_limit:
                break  # there is no room, however many more there are
        return used


def _new_name(prefix: str) -> str:
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:_LONGEST_HOST]
    return f"{prefix}{at}-{host}-{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
