"""The fates of a segment that is a file: a file beside it, append-only."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from consumer.dead_letters.fates import FATES_SUFFIX, fates_in, fates_of, lines_of_fates
from consumer.errors import DeadLetterError
from consumer.files import private_file, sync_folder, write_all

__all__ = ["fates_path", "keep_fates", "read_fates", "record_fates"]


def fates_path(segment: Path) -> Path:
    """Where the fates of a segment are."""
    return segment.with_name(segment.name + FATES_SUFFIX)


def read_fates(segment: Path) -> dict[str, str]:
    """The fate of each id that was replayed. Raises DeadLetterError when the file cannot be read."""
    try:
        with fates_path(segment).open("rb") as lines:
            return fates_in(lines)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DeadLetterError(f"{fates_path(segment)}: {error.strerror}") from error


def record_fates(segment: Path, fates: Mapping[str, str], *, at: datetime) -> None:
    """Add the fates of ids to the segment's; durable on return. Raises DeadLetterError."""
    lines = lines_of_fates(fates, at=at)
    path = fates_path(segment)
    try:
        with _locked(path) as handle:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # ends the half line that a crash left behind
            try:
                write_all(handle, lines)
            except OSError:
                os.ftruncate(handle, size)
                raise
            os.fsync(handle)
        if size == 0:
            sync_folder(path.parent)
    except OSError as error:
        raise DeadLetterError(f"{path}: {error.strerror}") from error


def keep_fates(segment: Path, ids: Iterable[str]) -> None:
    """Forget all fates but those of `ids`: what a purge does once the other lines are gone. Raises OSError."""
    path, wanted = fates_path(segment), set(ids)
    if not path.exists():
        return
    with _locked(path) as handle:
        lines = os.pread(handle, os.fstat(handle).st_size, 0).splitlines(keepends=True)
        kept = fates_of(wanted, lines)
        if not kept:
            path.unlink()
            return
        new = path.with_name(path.name + ".new")
        with private_file(new) as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Open the file for appending while nobody else does, nor replaces it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(handle).st_ino:
                    yield handle
                    return
        finally:
            os.close(handle)
