"""Publishing events to the partner's queues: buffered without one, repeated by the schedule when it says no."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from consumer.errors import ConsumerError
from consumer.sandbox.members import text_of
from consumer.sandbox.outbox import Item, Outbox
from consumer.sandbox.parts import Parts
from consumer.sandbox.queue_targets import QueueTarget
from consumer.sandbox.rotation import Rotation
from consumer.sandbox.streams import ALL, STREAMS
from consumer.signatures import ThriveSignature

__all__ = ["Publisher"]

ACCEPT_WITHIN: Final = 10.0
"""Real seconds a queue has to accept a message (`/docs/event-stream`)."""
_BATCH: Final = 50
_KEPT: Final = 100
_STALE: Final = timedelta(days=30)
_SECOND_TIME: Final = (30.0, 900.0)
"""Between an event and its duplicate, in seconds of sandbox time."""


class Publisher:
    """Takes events of any stream and gets them onto the queues registered for them, at least once."""

    def __init__(self, parts: Parts, rotation: Rotation) -> None:
        self._parts = parts
        self._rotation = rotation
        self._random = parts.world.draw_anew("publishing")
        self._stranger = ThriveSignature(secrets=["somebody else's guess"], encoding="hex")
        self._boxes = {stream: Outbox() for stream in STREAMS}
        self._news = {stream: asyncio.Event() for stream in STREAMS}
        self._targets: dict[str, QueueTarget] = {}
        self._published: dict[str, deque[tuple[Item, bytes]]] = {stream: deque(maxlen=_KEPT) for stream in STREAMS}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish while the context lasts; at its end the queues are closed."""
        tasks = [asyncio.create_task(self._serve(stream)) for stream in STREAMS]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            targets, self._targets = list(self._targets.values()), {}
            for target in targets:
                await target.close()

    def register(self, name: str, target: QueueTarget | None) -> QueueTarget | None:
        """Send a stream (or `all`) to this queue from now on, what was buffered first; returns the one before."""
        before = self._targets.pop(name, None)
        if target is not None:
            self._targets[name] = target
        self.wake()
        return before

    def wake(self) -> None:
        """Look again at what is due: a queue is new, or time was skipped."""
        for news in self._news.values():
            news.set()

    def publish(self, stream: str, body: Mapping[str, Any], *, forged: bool = False, stale: bool = False) -> None:
        """Take in an event of a stream."""
        text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        item = Item(str(body["event_id"]), text, "forged" if forged else "stale" if stale else "good")
        self._add(stream, item)

    def repeat(self, stream: str | None, count: int, *, verbatim: bool) -> int:
        """Publish earlier events again: the very same messages, or signed anew. Returns how many there were."""
        earlier = [
            (name, item, raw) for name in STREAMS if stream in (None, name) for item, raw in self._published[name]
        ]
        chosen = [self._random.choice(earlier) for _ in range(count)] if earlier else []
        for name, item, raw in chosen:
            if verbatim:
                self._add(name, Item(item.event_id, raw, "verbatim", again=True))
            else:
                self._add(name, Item(item.event_id, item.body, "good", again=True))
        return len(chosen)

    def counts(self) -> dict[str, dict[str, int]]:
        """What became of each stream's events."""
        return {
            stream: {
                "published": box.published,
                "buffered": box.waiting,
                "later": box.later,
                "failed": box.failed,
                "dropped": box.dropped,
            }
            for stream, box in self._boxes.items()
        }

    def _add(self, stream: str, item: Item) -> None:
        self._boxes[stream].add(item, self._parts.clock.elapsed())
        self._news[stream].set()

    async def _serve(self, stream: str) -> None:
        box, news, clock = self._boxes[stream], self._news[stream], self._parts.clock
        while True:
            news.clear()
            target = self._targets.get(stream) or self._targets.get(ALL)
            now = clock.elapsed()
            items = box.take(now, _BATCH) if target is not None else []
            if target is not None and items:
                await self._send(stream, target, items)
                continue
            due = box.next_due() if target is not None else None
            try:
                async with asyncio.timeout(None if due is None else clock.real(due - now)):
                    await news.wait()
            except TimeoutError:
                continue

    async def _send(self, stream: str, target: QueueTarget, items: list[Item]) -> None:
        box, clock = self._boxes[stream], self._parts.clock
        messages = [self._message(item) for item in items]
        try:
            async with asyncio.timeout(ACCEPT_WITHIN):
                await target.send(messages)
        except Exception as error:  # noqa: BLE001 - whatever an adapter raises, the event is tried again
            box.not_sent(items, clock.elapsed())
            self._parts.log.warning("publish_failed", stream=stream, count=len(items), error=_words(error))
            return
        box.sent(items)
        for item, raw in zip(items, messages, strict=True):
            if item.manner == "good":
                self._published[stream].append((item, raw))
                self._maybe_again(stream, item)

    def _maybe_again(self, stream: str, item: Item) -> None:
        if not item.again and self._random.random() < self._parts.options.duplicates:
            second = replace(item, again=True, tries=0, first_tried=None)
            delay = self._random.uniform(*_SECOND_TIME)
            self._boxes[stream].add(second, self._parts.clock.elapsed(), delay=delay)

    def _message(self, item: Item) -> bytes:
        """Signed at each attempt: whether the platform renews the time on a retry is not published."""
        if item.manner == "verbatim":
            return item.body
        at = text_of(self._parts.clock.now() - (_STALE if item.manner == "stale" else timedelta()))
        if item.manner == "forged":
            return self._stranger.sign(item.body, signed_at=at)
        return self._rotation.signature(self._parts.clock.elapsed()).sign(item.body, signed_at=at)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the queue took too long"
    return str(error) if isinstance(error, ConsumerError) else type(error).__name__
