"""Tokens kept by the REST clients: minted once, renewed in time, bounded."""

from __future__ import annotations

import asyncio
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.clients.member_tokens import MintedToken, TokenCache
from consumer.errors import ApiError, ConsumerError


class Mint:
    """Mints numbered tokens, one at a time when told to wait."""

    def __init__(self, *, lives_for=3600.0, wait=False):
        self.minted: list[str] = []
        self.lives_for = lives_for
        self.gate = asyncio.Event()
        self.error: Exception | None = None
        self.now = 1000.0
        if not wait:
            self.gate.set()

    async def __call__(self, key):
        number = len(self.minted)
        self.minted.append(key)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return MintedToken(f"{key}-{number}", self.lives_for)

    def cache(self, **options) -> TokenCache:
        return TokenCache(self, clock=lambda: self.now, **options)


async def test_a_token_is_minted_once_and_used_until_a_minute_before_its_end():
    mint = Mint()
    cache = mint.cache()
    assert [await cache.get("a"), await cache.get("a"), await cache.get("b")] == ["a-0", "a-0", "b-1"]
    mint.now += 3539
    assert await cache.get("a") == "a-0"
    mint.now += 1
    assert await cache.get("a") == "a-2"


async def test_those_who_ask_at_once_share_one_minting():
    mint = Mint(wait=True)
    cache = mint.cache()
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(20)]
    await asyncio.sleep(0)
    mint.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"a-0"}
    assert mint.minted == ["a"]


async def test_a_cancelled_waiter_leaves_the_minting_to_the_others():
    mint = Mint(wait=True)
    cache = mint.cache()
    first, second = asyncio.create_task(cache.get("a")), asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    mint.gate.set()
    assert await second == "a-0"
    assert await cache.get("a") == "a-0"


async def test_a_failed_minting_reaches_every_waiter_and_is_not_kept():
    mint = Mint(wait=True)
    mint.error = ApiError("POST /v1/auth/token", status=401)
    cache = mint.cache()
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(3)]
    await asyncio.sleep(0)
    mint.gate.set()
    assert all(isinstance(one, ApiError) for one in await asyncio.gather(*waiting, return_exceptions=True))
    mint.error = None
    assert await cache.get("a") == "a-1"


async def test_a_failure_that_nobody_waits_for_any_more_is_not_reported_as_stray():
    strays = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
    mint = Mint(wait=True)
    mint.error = ApiError("POST /v1/auth/token", status=500)
    cache = mint.cache()
    waiting = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    mint.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert mint.minted == ["a"]
    assert strays == []


async def test_a_dropped_token_is_minted_again_but_a_newer_one_stays():
    mint = Mint()
    cache = mint.cache()
    old = await cache.get("a")
    cache.drop("a", old)
    new = await cache.get("a")
    cache.drop("a", old)
    assert (old, new, await cache.get("a")) == ("a-0", "a-1", "a-1")


async def test_clearing_also_forgets_what_is_being_minted():
    mint = Mint(wait=True)
    cache = mint.cache()
    waiting = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    cache.clear()
    mint.gate.set()
    assert await waiting == "a-0"
    assert await cache.get("a") == "a-1"


async def test_closing_ends_the_minting_and_tells_those_who_wait():
    mint = Mint(wait=True)
    cache = mint.cache()
    waiting = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(ConsumerError, match="closed"):
        await waiting


def test_a_token_does_not_show():
    assert "hush" not in repr(MintedToken("hush", 1.0))


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("get"), st.sampled_from("abcde")),
        st.tuples(st.just("drop"), st.sampled_from("abcde")),
        st.tuples(st.just("pass"), st.floats(0, 200)),
    ),
    max_size=40,
)


@settings(max_examples=50)
@given(steps=_steps, capacity=st.integers(1, 4), lives_for=st.floats(0, 300))
def test_whatever_happens_tokens_are_few_their_owners_and_last(steps, capacity, lives_for):
    async def run():
        mint = Mint(lives_for=lives_for)
        cache = mint.cache(capacity=capacity)
        last: dict[str, str] = {}
        born: dict[str, float] = {}
        dropped: set[str] = set()
        for step, value in steps:
            if step == "pass":
                mint.now += value
            elif step == "drop" and value in last:
                cache.drop(value, last[value])
                dropped.add(last[value])
            elif step == "get":
                before = len(mint.minted)
                token = await cache.get(value)
                assert token.startswith(f"{value}-")
                assert token not in dropped
                if len(mint.minted) > before:
                    born[token] = mint.now
                else:
                    assert lives_for - (mint.now - born[token]) > 60
                last[value] = token
            assert len(cache) <= capacity

    asyncio.run(run())
