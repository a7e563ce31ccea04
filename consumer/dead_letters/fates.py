"""What became of the lines of a segment when they were replayed: `<segment>.fates`, append-only, a line for each.

    {"id": "...", "fate": "handled", "at": "2026-03-16T08:00:00.000000Z"}

The segment itself is never changed by a replay. The last fate of an id counts, but what is done stays done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from consumer.errors import DeadLetterError
from consumer.files import private_file, sync_folder, write_all

__all__ = ["DONE", "fates_path", "keep_fates", "read_fates", "record_fates"]

DONE: Final = frozenset({"handled", "duplicate"})
"""Fates after which a line needs no replay."""


def fates_path(segment: Path) -> Path:
    """Where the fates of a segment are."""
    return segment.with_name(segment.name + ".fates")


def read_fates(segment: Path) -> dict[str, str]:
    """The fate of each id that was replayed. Lines that make no sense, such as half of one, are no fate.

    Raises DeadLetterError when the file cannot be read.
    """
    fates: dict[str, str] = {}
    try:
        with fates_path(segment).open("rb") as lines:
            for line in lines:
                identity, fate = _parse(line)
                if identity is not None and fates.get(identity) not in DONE:
                    fates[identity] = fate
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DeadLetterError(f"{fates_path(segment)}: {error.strerror}") from error
    return fates


def record_fates(segment: Path, fates: Mapping[str, str], *, at: datetime) -> None:
    """Add the fates of ids to the segment's; durable on return. Raises DeadLetterError."""
    when = at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    lines = [json.dumps({"id": identity, "fate": fate, "at": when}) for identity, fate in fates.items()]
    path = fates_path(segment)
    try:
        with _locked(path) as handle:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                lines.insert(0, "")  # ends the half line that a crash left behind
            try:
                write_all(handle, "".join(f"{line}\n" for line in lines).encode())
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
        kept = b"".join(line for line in lines if line.endswith(b"\n") and _parse(line)[0] in wanted)
        if not kept:
            path.unlink()
            return
        new = path.with_name(path.name + ".new")
        with private_file(new) as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _parse(line: bytes) -> tuple[str | None, str]:
    try:
        entry = json.loads(line)
        identity, fate = entry["id"], entry["fate"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, ""
    return (identity, fate) if isinstance(identity, str) and isinstance(fate, str) else (None, "")


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
