"""Uploading of readings to Sahha, in batches of the size that Sahha's own clients use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from consumer.clients.sahha_calls import SahhaCalls
from consumer.clients.sahha_queries import body_of, checked, non_empty
from consumer.models.sahha import DataLogItem

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_ITEMS", "Logs", "batches"]

MAX_BATCH_ITEMS = 60
MAX_BATCH_BYTES = 32 * 1024

_DATA_LOG = "/api/v1/profile/data/log"


class Logs:
    """Readings of devices, uploaded for a member. These calls use the profile's own token."""

    __slots__ = ("_calls",)

    def __init__(self, calls: SahhaCalls) -> None:
        self._calls = calls

    async def upload(
        self,
        external_id: str,
        items: Iterable[DataLogItem | Mapping[str, Any]],
        *,
        repeat: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Upload readings in batches of at most 60 items and 32 KiB, in order; returns how many.

        All are checked before the first is sent: `ValueError` names the item, by its place from 0, and the field.
        Whether Sahha takes an item twice when it comes twice is not published, so a batch whose answer was lost is
        repeated only with `repeat`. `progress` is told how many are uploaded, after each batch; when a later batch
        fails, those stay uploaded.
        """
        non_empty("external_id", external_id)
        everything = list(batches(_body(place, item) for place, item in enumerate(items)))
        done = 0
        for batch in everything:
            await self._calls.as_profile(external_id, "POST", _DATA_LOG, json=batch, repeatable=repeat)
            done += len(batch)
            if progress is not None:
                progress(done)
        return done


def batches(
    bodies: Iterable[dict[str, Any]], *, max_items: int = MAX_BATCH_ITEMS, max_bytes: int = MAX_BATCH_BYTES
) -> Iterator[list[dict[str, Any]]]:
    """Group items, in order, into lists whose JSON is within the limits; one too large on its own goes alone.

    Raises `ValueError` for one that JSON cannot hold.
    """
    batch: list[dict[str, Any]] = []
    size = len("[]")
    for body in bodies:
        added = len(json.dumps(body, allow_nan=False, separators=(",", ":"))) + len(",")
        if batch and (len(batch) == max_items or size + added > max_bytes):
            yield batch
            batch, size = [], len("[]")
        batch.append(body)
        size += added
    if batch:
        yield batch


def _body(place: int, item: DataLogItem | Mapping[str, Any]) -> dict[str, Any]:
    try:
        return body_of(checked(DataLogItem, item))
    except ValueError as error:
        problem = str(error)
    raise ValueError(f"item {place}: {problem}")
