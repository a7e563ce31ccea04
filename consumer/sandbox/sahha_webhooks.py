"""The sandbox's webhooks: events of Sahha's, signed, held back for their interval, and sent until they are taken."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from consumer.sandbox.parts import Parts
from consumer.sandbox.sahha_intervals import IntervalWindows
from consumer.sandbox.sahha_profiles import EVENT_TYPES, HookEvent, Profiles
from consumer.signatures import SahhaSignature

__all__ = ["Delivery", "Webhooks", "written"]

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)  # how long Sahha waits for an answer [D]
_BACKOFF: Final = (60, 300, 1800)  # seconds of sandbox time; Sahha's own are unknown
_AT_ONCE: Final = 16
_MOST_PENDING: Final = 10_000
_REMEMBERED: Final = 100
_LARGEST_ANSWER: Final = 65_536
_SUCCESS: Final = range(200, 300)
_TICK: Final = 0.2  # real seconds between looks at the clock, which may be advanced by hand


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request, ready to be sent."""

    event_type: str
    external_id: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Target:
    """Where webhooks go, and how."""

    url: str | None
    secret: str = field(repr=False)
    encoding: str = "hex"
    event_types: frozenset[str] = frozenset(EVENT_TYPES)
    retries: int = 3
    rate: float = 0.0
    """Events a second (real ones) that are made up and sent by themselves."""


class Webhooks:
    """Sends what happens to profiles to `target`, while `running()`. Without a URL nothing is sent or kept."""

    def __init__(self, parts: Parts, profiles: Profiles) -> None:
        options = parts.options
        self.target = Target(
            options.webhook_url,
            parts.credentials.sahha.webhook_secret,
            retries=options.webhook_retries,
            rate=options.webhook_rate,
        )
        self.windows: IntervalWindows[HookEvent] = IntervalWindows(options.webhook_interval * 60)
        self.sent: deque[Delivery] = deque(maxlen=_REMEMBERED)
        """The last good deliveries that were taken, for sending them again."""
        self._parts = parts
        self._profiles = profiles
        self._random = parts.world.draw_anew("sahha:webhooks")
        self._background: list[asyncio.Task[None]] = []
        self._deliveries: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._counts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._recent: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send while the context lasts; what is under way at its end is given up."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session:
            self._session = session
            self._background = [asyncio.create_task(work) for work in (self._deliver_held(), self._make_traffic())]
            try:
                yield
            finally:
                tasks = [*self._background, *self._deliveries]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._session = None

    async def settled(self) -> None:
        """Wait until no delivery is under way; what is held back does not count."""
        while self._deliveries:
            await asyncio.wait(set(self._deliveries))

    def publish(self, events: Iterable[HookEvent]) -> None:
        """Send events, those of a metric at most once in its interval."""
        if self.target.url is None:
            return
        for event in events:
            if event.event_type not in self.target.event_types:
                self._counts["not_selected"] += 1
            elif event.metric is None:
                self.send(self.signed(event))
            else:
                now = self.windows.offer(event.metric, event, self._parts.clock.elapsed())
                if now is not None:
                    self.send(self.signed(now))

    def signed(self, event: HookEvent) -> Delivery:
        """The request that tells of an event."""
        body, external_id = written(event), str(event.body["externalId"])
        signature = SahhaSignature(secrets=[self.target.secret], encoding=self.target.encoding)
        return Delivery(
            event.event_type,
            external_id,
            body,
            signature.sign(body, external_id=external_id, event_type=event.event_type),
        )

    def send(self, delivery: Delivery, *, good: bool = True, retries: int | None = None) -> asyncio.Task[None] | None:
        """Start sending a request; the task ends when it was taken or given up.

        None, and counted as dropped, while too many are under way, there is no URL, or nothing runs. One that is not
        `good` is not sent again as a replay.
        """
        if self._session is None or self.target.url is None or len(self._deliveries) >= _MOST_PENDING:
            self._counts["dropped"] += 1
            return None
        retries = self.target.retries if retries is None else retries
        task = asyncio.create_task(self._deliver(delivery, good=good, retries=retries))
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)
        return task

    def describe(self) -> dict[str, Any]:
        """What was sent and answered: counts, and ids of the last ones; no bodies, no secrets."""
        target = self.target
        return {
            "url": target.url,
            "interval_minutes": self.windows.interval / 60,
            "event_types": [name for name in EVENT_TYPES if name in target.event_types],
            "encoding": target.encoding,
            "retries": target.retries,
            "rate": target.rate,
            "held": self.windows.held,
            "under_way": len(self._deliveries),
            **{name: self._counts[name] for name in ("delivered", "failed", "retried", "dropped", "not_selected")},
            "answers": dict(sorted(self._answers.items())),
            "by_type": dict(sorted(self._types.items())),
            "recent": list(self._recent),
        }

    async def _deliver(self, delivery: Delivery, *, good: bool, retries: int) -> None:
        self._types[delivery.event_type] += 1
        for attempt in range(1, retries + 2):
            async with self._free:
                answer = await self._post(delivery)
            self._answers[str(answer)] += 1
            taken = answer in _SUCCESS if isinstance(answer, int) else False
            if taken or attempt > retries:
                self._finish(delivery, answer, attempt, taken=taken, good=good)
                return
            self._counts["retried"] += 1
            await self._parts.clock.sleep(_BACKOFF[min(attempt, len(_BACKOFF)) - 1])

    def _finish(self, delivery: Delivery, answer: int | str, attempts: int, *, taken: bool, good: bool) -> None:
        self._counts["delivered" if taken else "failed"] += 1
        if taken and good:
            self.sent.append(delivery)
        record = {
            "event_type": delivery.event_type,
            "external_id": delivery.external_id,
            "answer": answer,
            "attempts": attempts,
        }
        self._recent.append(record)
        if not taken:
            self._parts.log.warning("webhook_failed", event_type=delivery.event_type, answer=answer, attempts=attempts)

    async def _post(self, delivery: Delivery) -> int | str:
        """The status answered, or in a word why there was none."""
        url, session = self.target.url, self._session
        if url is None or session is None:
            return "no_url"
        headers = {**delivery.headers, "Content-Type": "application/json"}
        try:
            async with session.post(url, data=delivery.body, headers=headers, allow_redirects=False) as reply:
                with suppress(aiohttp.ClientError):
                    await reply.content.read(_LARGEST_ANSWER)
                return reply.status
        except TimeoutError:
            return "timeout"
        except (aiohttp.ClientError, ValueError, OSError):
            return "unreachable"

    async def _deliver_held(self) -> None:
        while True:
            for event in self.windows.due(self._parts.clock.elapsed()):
                self.send(self.signed(event))
            due = self.windows.next_due()
            wait = _TICK if due is None else self._parts.clock.real(due - self._parts.clock.elapsed())
            await asyncio.sleep(min(_TICK, wait))

    async def _make_traffic(self) -> None:
        while True:
            rate = self.target.rate
            await asyncio.sleep(self._random.expovariate(rate) if rate > 0 else _TICK)
            if rate > 0 and self.target.url is not None and len(self._profiles):
                self.publish([self._profiles.invented(self._profiles.draw(), self._parts.clock.now())])


def written(event: HookEvent) -> bytes:
    """The event as compact JSON: exactly the bytes that are signed and sent."""
    return json.dumps(event.body, separators=(",", ":"), allow_nan=False).encode()
