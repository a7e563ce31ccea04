"""Folders and files that outlive a power cut and that only their owner can read."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["make_folder", "private_file", "sync_folder", "write_all"]


def make_folder(path: Path) -> None:
    """Create the folder, mode 0700, and those above it that are missing; durable on return. Raises OSError."""
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def sync_folder(path: Path) -> None:
    """Make the folder's entries durable: new files, renames, removals. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte, however many calls that takes. Raises OSError, perhaps with some of them written."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def private_file(path: Path, *, exclusive: bool = False) -> BinaryIO:
    """Open a new file for writing, mode 0600; unless `exclusive` one that is there is removed first. Raises OSError.

    Never is anything written through a link, nor into a file that somebody else may have made and can read.
    """
    if not exclusive:
        path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_EXCL, 0o600), "wb")
