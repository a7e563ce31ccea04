"""What `consumer check` looks at of the dead-letter store: whether the worker can write to it."""

from __future__ import annotations

from typing import Final

from consumer.app import build_store
from consumer.dead_letters.object_store import ObjectStore
from consumer.dead_letters.queue_check import queue_findings
from consumer.dead_letters.sealing import unsealer
from consumer.errors import ConsumerError, SettingsError
from consumer.settings import DeadLetterSettings, Settings
from consumer.sources.base import Finding

__all__ = ["store_findings"]

_UNCOUNTED: Final = (
    "it may not be listed, so dead_letters.unproven_limit holds for each process by itself: allow listing, or lower it"
)


async def store_findings(settings: Settings) -> list[Finding]:
    """Whether dead letters can be kept, sealed if they are to be, and opened. Nothing but a probe is written."""
    letters = settings.dead_letters
    found = await _store(settings)
    if letters.kind == "queue":
        found += await queue_findings(settings)
    if letters.recipients and found[0].ok:
        found.append(Finding("recipients", ok=True, detail=f"sealed for {len(letters.recipients)}"))
    if letters.identity_file is not None:
        try:
            unsealer(letters.identity_file)
        except SettingsError as error:
            found.append(Finding("identity", ok=False, warning=True, detail=f"{error}; replay needs it"))
    return found


async def _store(settings: Settings) -> list[Finding]:
    try:
        store = build_store(settings)
    except SettingsError as error:
        name = "recipients" if str(error).startswith("dead_letters.recipients") else "store"
        return [Finding(name, ok=False, detail=str(error))]
    try:
        await store.probe()
        counted = not isinstance(store, ObjectStore) or await store.may_count()
    except ConsumerError as error:
        return [Finding("store", ok=False, detail=str(error))]
    finally:
        await store.close()
    found = [Finding("store", ok=True, detail=_where(settings.dead_letters))]
    return found if counted else [*found, Finding("unproven", ok=False, warning=True, detail=_UNCOUNTED)]


def _where(letters: DeadLetterSettings) -> str:
    if letters.kind == "file":
        return f"{letters.path} can be written"
    if letters.kind == "queue":
        return "the dead-letter queue of every source can be reached"
    return f"{letters.prefix} in {letters.bucket or letters.container} can be written"
