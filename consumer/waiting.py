"""Telling a handler's own time from the time it waits in line for the database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self

__all__ = ["Waited", "in_line"]


class Waited:
    """Sums the seconds spent `in_line` by whatever runs inside it: `with Waited() as waited: ...; waited.seconds`."""

    __slots__ = ("_token", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


_current: ContextVar[Waited | None] = ContextVar("waited", default=None)


@contextmanager
def in_line() -> Iterator[None]:
    """What happens inside is waiting for others, not work."""
    waited = _current.get()
    started = time.perf_counter()
    try:
        yield
    finally:
        if waited is not None:
            waited.seconds += time.perf_counter() - started
