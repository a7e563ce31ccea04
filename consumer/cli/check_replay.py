"""What `consumer check --for replay` looks at: whether dead letters can be read, and noted on."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import islice

from consumer.dead_letters.archive import Problem
from consumer.dead_letters.archives import open_archive
from consumer.dead_letters.sealing import unsealer
from consumer.errors import ConsumerError, SettingsError
from consumer.settings import Settings
from consumer.sources.base import Finding

__all__ = ["archive_findings"]


async def archive_findings(settings: Settings) -> list[Finding]:
    """Whether the store can be read, and sealed lines opened. Nothing is changed."""
    return [*_identity(settings), await asyncio.to_thread(_reading, settings)]


def _identity(settings: Settings) -> list[Finding]:
    letters = settings.dead_letters
    if letters.identity_file is None:
        if not letters.recipients:
            return []
        detail = "dead_letters.identity_file is not set: sealed dead letters cannot be replayed"
        return [Finding("identity", ok=False, detail=detail)]
    try:
        unsealer(letters.identity_file)
    except SettingsError as error:
        return [Finding("identity", ok=False, detail=str(error))]
    return [Finding("identity", ok=True, detail="it can be read")]


def _reading(settings: Settings) -> Finding:
    try:
        with contextlib.closing(open_archive(settings)) as archive, contextlib.closing(archive.read()) as lines:
            first = next(islice(lines, 1), None)
            where = archive.where
    except ConsumerError as error:
        return Finding("reading", ok=False, detail=str(error))
    if isinstance(first, Problem):
        return Finding("reading", ok=False, warning=True, detail=str(first))
    return Finding("reading", ok=True, detail=f"{where} can be read" + ("" if first else "; it is empty"))
