"""Tokens that are minted on demand, kept while they last, and minted once however many ask."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

from consumer.errors import ApiError, ConsumerError

__all__ = ["MintedToken", "TokenCache"]

T = TypeVar("T")

_UNAUTHORIZED = frozenset({401})


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A fresh token, and for how many seconds it is good."""

    text: str = field(repr=False)
    lives_for: float


class TokenCache:
    """Tokens by whom they are for: bounded, the least recently used go first.

    A token is used while more than `margin` seconds are left of it. Of several that ask for the same missing token one
    mints and the others wait; a waiter that is cancelled leaves the minting to the others. What fails is not kept.
    """

    def __init__(
        self,
        mint: Callable[[str], Awaitable[MintedToken]],
        *,
        margin: float = 60.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mint = mint
        self._margin = margin
        self._capacity = capacity
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._minting: dict[str, asyncio.Task[str]] = {}
        self._tasks: set[asyncio.Task[str]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> str:
        """The token for `key`, minted if there is none that lasts. Raises what minting raises."""
        kept = self._kept.get(key)
        if kept is not None and kept.good_until - self._clock() > self._margin:
            self._kept.move_to_end(key)
            return kept.text
        self._kept.pop(key, None)
        task = self._minting.get(key)
        if task is None:
            task = asyncio.create_task(self._mint_and_keep(key))
            self._minting[key] = task
            self._tasks.add(task)
            task.add_done_callback(self._done)
        # Unlike awaiting the task itself, waiting for it does not cancel it when the waiter is cancelled.
        await asyncio.wait([task])
        if task.cancelled():
            raise ConsumerError("the client is closed")
        return task.result()

    async def spend(self, key: str, send: Callable[[str], Awaitable[T]], *, over: Collection[int] = _UNAUTHORIZED) -> T:
        """What `send` gives for the token of `key`, tried once more with a new one after a status in `over`.

        Such a refusal has had no effect, so whatever was sent may be sent again. Raises what minting and `send` raise.
        """
        token = await self.get(key)
        try:
            return await send(token)
        except ApiError as error:
            if error.status not in over:
                raise
        self.drop(key, token)
        token = await self.get(key)
        try:
            return await send(token)
        except ApiError as error:
            if error.status in over:
                self.drop(key, token)
            raise

    def drop(self, key: str, token: str) -> None:
        """Forget `token`, which was refused; a newer one for the same key stays."""
        kept = self._kept.get(key)
        if kept is not None and kept.text == token:
            del self._kept[key]

    def clear(self) -> None:
        """Forget all of them, those being minted included: whoever waits for one still gets it."""
        self._kept.clear()
        self._minting.clear()

    async def close(self) -> None:
        """Stop minting and forget all tokens."""
        self.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _mint_and_keep(self, key: str) -> str:
        me = asyncio.current_task()
        # Read before the request: what its way here takes is then on the safe side.
        asked_at = self._clock()
        try:
            minted = await self._mint(key)
        finally:
            current = self._minting.get(key) is me
            if current:
                del self._minting[key]
        if current:
            self._kept[key] = _Kept(minted.text, asked_at + minted.lives_for)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return minted.text

    def _done(self, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Where every waiter has gone, nobody else takes note of what was raised.
            task.exception()


@dataclass(frozen=True, slots=True)
class _Kept:
    text: str = field(repr=False)
    good_until: float
