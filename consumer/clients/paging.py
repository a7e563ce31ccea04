"""Walking through lists page by page, past servers that miscount or repeat themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["MAX_PAGES", "Page", "walk"]

T = TypeVar("T")

MAX_PAGES = 10_000
"""Where a walk ends at the latest."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer of a list: its items, as JSON values, and how many there are in all, if it says."""

    items: Sequence[Any] = field(repr=False)
    total: int | None


async def walk(
    fetch: Callable[[int, int], Awaitable[Page]],
    read: Callable[[Any], T],
    *,
    page_size: int,
    most: int | None = None,
) -> AsyncIterator[T]:
    """Every item of a list, asked for with `fetch(offset, limit)` and given as `read` reads it; at most `most` of them.

    It ends after `total` items; without a total, after a page that is not full; and in any case at an empty page, at
    one that came before, and after `MAX_PAGES`.
    """
    left = most
    offset = 0
    seen: set[bytes] = set()
    for _ in range(MAX_PAGES):
        limit = page_size if left is None else min(page_size, left)
        if limit <= 0:
            return
        page = await fetch(offset, limit)
        mark = _mark(page.items)
        if not page.items or mark in seen:
            return
        if mark is not None:
            seen.add(mark)
        for item in map(read, page.items[:left]):
            yield item
        offset += len(page.items)
        left = None if left is None else left - len(page.items)
        if offset >= page.total if page.total is not None else len(page.items) < limit:
            return


def _mark(items: Sequence[Any]) -> bytes | None:
    """What tells a page from others; None for one that is nested too deeply to tell."""
    try:
        return hashlib.sha256(json.dumps(items).encode()).digest()
    except RecursionError:
        return None
