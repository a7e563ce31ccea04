"""Which archive the settings mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from consumer.dead_letters.archive import Archive
from consumer.dead_letters.file_archive import FileArchive
from consumer.dead_letters.object_archive import ObjectArchive
from consumer.dead_letters.objects import open_objects
from consumer.settings import Settings

__all__ = ["open_archive"]


def open_archive(settings: Settings, paths: Sequence[Path] = (), *, queue: str | None = None) -> Archive:
    """The archive of the configured store. To be closed by the caller.

    With `paths` it is that of these files and folders, with `queue` that of this source's dead-letter queue. Raises
    SettingsError when the store cannot be read back, or what it needs is not installed.
    """
    letters = settings.dead_letters
    if paths:
        return FileArchive(paths)
    if letters.kind == "file" and queue is None:
        return FileArchive([letters.path], missing_ok=True)
    if letters.kind in {"s3", "blob"} and queue is None:
        return ObjectArchive(open_objects(letters))
    from consumer.dead_letters.queue_archive import queue_archive  # noqa: PLC0415 - only what is used is imported

    return queue_archive(settings, only=queue)
