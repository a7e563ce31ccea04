"""Segments: the append-only files that hold dead letters, one line each.

A segment belongs to the process that made it, which holds a lock (flock) on it for as long as it may write. The system
drops the lock with the process, however that ends: a segment that can be locked is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from consumer.files import sync_folder, write_all

__all__ = ["SUFFIX", "UNPROVEN", "Segment", "begun_since", "closed", "new_segment", "segments", "unproven_bytes"]

SUFFIX: Final = ".jsonl"
UNPROVEN: Final = "unproven-"
"""Segments of messages that nobody is known to have signed start with this."""
_TIME: Final = "%Y%m%dT%H%M%S.%fZ"


class Segment:
    """A segment being written. Use from one thread at a time; methods raise OSError."""

    def __init__(self, path: Path) -> None:
        """Create the file, locked, mode 0600, durable in its folder. Raises BlockingIOError if somebody was faster."""
        self.path = path
        self.size = 0
        self.begun_at = time.monotonic()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._handle = os.open(path, flags, 0o600)
        try:
            self._claim()
            sync_folder(path.parent)
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to this file: if not, what is written to it is lost."""
        return _same_file(self._handle, self.path)

    def append(self, data: bytes) -> None:
        """Write whole lines and wait until they are on disk.

        After an error the segment is closed, cut back to what was good before: no later line is ever glued to half of
        one, and nothing is written behind a failed fsync, after which nobody knows what the disk holds.
        """
        try:
            write_all(self._handle, data)
            os.fsync(self._handle)
        except BaseException:
            self._abandon()
            raise
        self.size += len(data)

    def close(self) -> None:
        """Close the file, which also unlocks it."""
        os.close(self._handle)

    def _claim(self) -> None:
        try:
            _lock(self._handle)
        except BlockingIOError:
            raise
        except OSError:
            return  # no locks on this file system: a purge cannot lock either, and then leaves every segment alone
        if not self.in_place:
            raise BlockingIOError  # a purge saw the new file before it was locked, and cleared it away

    def _abandon(self) -> None:
        with contextlib.suppress(OSError):
            if self.size == 0:
                self.path.unlink()
            else:
                os.ftruncate(self._handle, self.size)
        with contextlib.suppress(OSError):
            os.close(self._handle)


def new_segment(folder: Path, *, prefix: str = "", now: datetime | None = None) -> Segment:
    """Create a segment named after the time, so that names sort by it."""
    while True:
        at = (now or datetime.now(UTC)).strftime(_TIME)
        with contextlib.suppress(FileExistsError, BlockingIOError):
            return Segment(folder / f"{prefix}{at}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")


def segments(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first. Raises OSError."""
    paths = [path for path in folder.iterdir() if path.name.endswith(SUFFIX) and not path.name.startswith(".")]
    return sorted(paths, key=lambda path: (path.name.removeprefix(UNPROVEN), path.name))


def begun_since(name: str, moment: datetime | None) -> bool:
    """Whether a segment was begun at a moment or later, by its name; not so if either does not say when."""
    if moment is None:
        return False
    try:
        return datetime.strptime(name.removeprefix(UNPROVEN).partition("-")[0], _TIME).replace(tzinfo=UTC) >= moment
    except ValueError:
        return False


def unproven_bytes(folder: Path) -> int:
    """How much the segments of unproven messages hold together. Raises OSError."""
    with os.scandir(folder) as entries:
        mine = [entry for entry in entries if entry.name.startswith(UNPROVEN) and entry.name.endswith(SUFFIX)]
        total = 0
        for entry in mine:
            with contextlib.suppress(FileNotFoundError):  # purged this moment
                total += entry.stat(follow_symlinks=False).st_size
        return total


@contextlib.contextmanager
def closed(path: Path) -> Iterator[bool]:
    """Hold a segment that nobody writes to; False when somebody does, or when that cannot be known."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _lock(handle)
            free = _same_file(handle, path)
        except OSError:
            free = False
        yield free
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(handle: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)
