"""Own trouble is not the message's fault: a platform that does not answer, or not to us, pauses the worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer import SahhaSignature, platforms
from consumer.app import App
from consumer.breaker import Breaker
from consumer.events import ScoreEvent
from consumer.settings import SourceSettings
from consumer.sources.base import Outgoing
from consumer.sources.local import LocalSource
from consumer.testing import sample_body
from handlers import table
from tests.conformance.rig import Rig, eventually
from tests.servers.fixtures_sandbox import Caller

Trouble = Callable[["Way"], contextlib.AbstractAsyncContextManager[None]]

CALLS = ("POST /v1/auth/token: ", "GET /v1/users/{user_id}/")
EVENTS = 6


@dataclass
class Line:
    """A line to the sandbox that can be cut: then every connection is reset."""

    port: int
    url: str = ""
    cut: bool = False
    resets: int = 0
    _streams: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Carry bytes while the context lasts."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            for stream in list(self._streams):
                stream.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._streams |= {writer, far_writer}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        for stream in (writer, far_writer):
            stream.transport.abort()
            self._streams.discard(stream)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.cut:
                self.resets += 1
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        writer.close()


@dataclass
class Way:
    """A worker's way to the sandbox, and what can go wrong on it."""

    caller: Caller
    rig: Rig
    line: Line

    @property
    def key_file(self) -> Path:
        """Where the tenant key is."""
        return self.rig.folder / "tenant-key"

    async def publish(self, count: int = EVENTS, **what: Any) -> None:
        """Have the sandbox publish events, by default ones that must be fetched."""
        publisher = self.caller.sandbox.thrive.publisher
        before = sum(counts["published"] for counts in publisher.counts().values())
        given = {"stream": "coaching-nudges", "contract": "basic", "count": count, **what}
        assert (await self.caller.control("/events", **given)).status == 202
        await eventually(lambda: sum(one["published"] for one in publisher.counts().values()) == before + count)

    def stored(self) -> Counter[str]:
        """How often each nudge is in the store."""
        return Counter(row[0] for row in self.rig.rows("SELECT event_id FROM nudges"))

    @contextlib.asynccontextmanager
    async def worker(self, **changes: str) -> AsyncIterator[App]:
        """A worker with the shipped handlers that tries again soon, and does so by the files' newest secrets."""

        def loaded() -> Any:
            return self.rig.load(**changes)

        async with App.opened(loaded(), table=table, reload=loaded, poll_wait=0.2) as app:
            for intake in app.worker.intakes:
                intake.breaker.first = intake.breaker.cap = 0.2
            running = asyncio.create_task(app.worker.run())
            try:
                yield app
            finally:
                app.worker.stop()
                async with asyncio.timeout(30):
                    await running

    def nobody_was_blamed(self) -> None:
        """No attempt counted, nothing put aside but what the registration sent."""
        # Rows without failures are starts of what was handed out so often that it runs with care: no attempts.
        assert self.rig.rows("SELECT count(*) FROM consumer_attempts WHERE failures > 0") == [(0,)]
        assert self.rig.reasons() == Counter(unsigned=1)


@pytest.fixture
async def way(caller: Caller, tmp_path: Path) -> AsyncIterator[Way]:
    """A local queue that the sandbox publishes to, and calls that go through a line that can be cut."""
    line = Line(caller.sandbox.port)
    async with line.open():
        path = tmp_path / "queue"
        rig = Rig(tmp_path, {"KIND": "local", "PATH": str(path)})
        found = Way(caller, rig, line)
        found.key_file.write_text(caller.sandbox.tenant_key)
        rig.changes |= {
            "THRIVE__BASE_URL": line.url,
            "THRIVE__TENANT_KEY_FILE": str(found.key_file),
            "THRIVE__SIGNATURE__SECRETS": caller.sandbox.thrive_secret,
            "THRIVE__HTTP__TIMEOUT": "0.3s",
            "THRIVE__HTTP__ATTEMPTS": "1",
            "MAX_ATTEMPTS": "1",
        }
        body = {"queue_name": "all", "type": "local", "local": {"path": str(path)}}
        assert (await caller.partner("POST", "/v1/admin/org/queues/all", json=body)).status == 201
        yield found


@contextlib.asynccontextmanager
async def faulty(way: Way, **rule: Any) -> AsyncIterator[None]:
    """Every answer of the API is this."""
    assert (await way.caller.control("/faults", rules=[{"path": "/v1/", **rule}])).status == 200
    yield
    await way.caller.raw("DELETE", "/sandbox/faults")


@contextlib.asynccontextmanager
async def cut(way: Way) -> AsyncIterator[None]:
    """Every connection is reset."""
    way.line.cut = True
    yield
    assert way.line.resets
    way.line.cut = False


@contextlib.asynccontextmanager
async def wrong_key(way: Way) -> AsyncIterator[None]:
    """The file holds another tenant's key, then the right one."""
    way.key_file.write_text("sandbox_of_somebody_else")
    yield
    new = way.key_file.with_suffix(".new")
    new.write_text(way.caller.sandbox.tenant_key)
    new.replace(way.key_file)


TROUBLES: dict[str, tuple[Trouble, str]] = {
    "503": (lambda way: faulty(way, error_rate=1, status=503, retry_after=1), "Unavailable"),
    "429": (lambda way: faulty(way, error_rate=1, status=429, retry_after=0), "Unavailable"),
    "500": (lambda way: faulty(way, error_rate=1, status=500), "Unavailable"),
    "hanging": (lambda way: faulty(way, latency=0.6), "Unavailable"),
    "reset": (cut, "Unavailable"),
    "wrong key": (wrong_key, "CredentialsRefused"),
}


def metric(app: App, name: str) -> float | None:
    """A metric of the source."""
    return app.metrics.registry.get_sample_value(f"health_consumer_{name}", {"source": "labs"})


async def handled(app: App, count: int) -> None:
    """Wait until so many events took effect."""
    await eventually(lambda: app.metrics.totals()["handled"] == count, what=f"{count} handled")


async def tried_again(breaker: Breaker) -> None:
    """Wait until the source was tried in vain."""
    before = breaker.tries
    await eventually(lambda: breaker.tries > before, what="it tried again")


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_the_platform_in_trouble(way: Way, trouble: str) -> None:
    """The source pauses and says why, nothing is blamed on an event, and it goes on by itself."""
    begin, why = TROUBLES[trouble]
    with capture_logs() as logs:
        async with contextlib.AsyncExitStack() as stack:
            async with begin(way):
                app = await stack.enter_async_context(way.worker())
                await way.publish(EVENTS)
                await eventually(lambda: metric(app, "source_paused") == 1)
                breaker = app.worker.intakes[0].breaker
                if trouble == "503":
                    assert breaker.retry_at - breaker.since >= 1  # as its Retry-After asks
                await tried_again(breaker)
                assert app.worker.not_ready() == f"source labs: paused, {why}"
                assert way.stored() == Counter()
                way.nobody_was_blamed()
            await handled(app, EVENTS)
            await eventually(lambda: app.worker.not_ready() is None)
            assert metric(app, "source_paused") == 0
            assert app.metrics.totals() == {"handled": EVENTS, "duplicates": 0, "retried": 0, "dead_letters": 1}
    assert sorted(way.stored().values()) == [1] * EVENTS
    way.nobody_was_blamed()
    said = {one["event"] for one in logs}
    assert said >= {"source_paused", "source_resumed"}
    assert not said & {"handler_failed", "sandbox_failed", "stray_failure"}
    assert all(one["detail"].startswith(CALLS) for one in logs if one["event"] == "source_paused")


async def test_what_the_other_platform_gets_done_blames_nobody(way: Way) -> None:
    """While Thrive is down and Sahha's events go well, basic events wait, however long, and are not blamed."""
    path = way.rig.folder / "scores"
    queue = LocalSource(SourceSettings(name="scores", kind="local", path=path))
    await queue.open()
    sahha = {"SOURCES__SCORES__KIND": "local", "SOURCES__SCORES__PATH": str(path)}
    sahha |= {"SOURCES__SCORES__PROVIDER": "sahha", "SAHHA__SIGNATURE__SECRETS": "a webhook secret"}
    try:
        async with way.worker(**sahha) as app:
            breaker = next(intake.breaker for intake in app.worker.intakes if intake.source.name == "labs")
            async with faulty(way, error_rate=1, status=503, retry_after=0):
                await way.publish(3)
                for number in range(1, 6):
                    await queue.send([Outgoing(*score(number))])
                    await handled(app, number)
                    await tried_again(breaker)
                way.nobody_was_blamed()
            await handled(app, 5 + 3)
            assert app.metrics.totals()["retried"] == 0
    finally:
        await queue.close()
    way.nobody_was_blamed()


def score(number: int) -> tuple[bytes, dict[str, str]]:
    """A score of Sahha's, with its headers."""
    body = sample_body(ScoreEvent, id=f"score-{number}", createdAtUtc=datetime.now(UTC).isoformat())
    raw = json.dumps(body).encode()
    signature = SahhaSignature(secrets=["a webhook secret"])
    return raw, signature.sign(raw, external_id=body["externalId"], event_type=ScoreEvent.event_types[0])


async def test_a_member_token_that_ends_early_is_renewed_unnoticed(way: Way) -> None:
    """A 401 to a token that was good a moment ago pauses nothing: the call is made once more with a new one."""
    member = way.caller.sandbox.world.members[0]
    with capture_logs() as logs:
        async with way.worker() as app:
            for round_ in (1, 2, 3):
                await way.publish(2, user_id=member)
                await handled(app, 2 * round_)
                assert (await way.caller.control("/tokens/expire")).status == 200
    assert sum(way.stored().values()) == 6
    assert not {"source_paused", "handler_failed"} & {one["event"] for one in logs}
    way.nobody_was_blamed()


def test_by_default_a_hanging_platform_ends_a_call_before_the_handler_is_out_of_time(tmp_path: Path) -> None:
    """Or its time-out would count as an attempt of the event's."""
    rig = Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue")})
    settings = rig.load().settings
    for platform in (settings.thrive, settings.sahha):
        options = platforms._options(platform.http)
        assert max(options.total, options.timeout) < settings.source("labs").handler_timeout


async def test_what_its_own_events_get_done_without_the_platform_blames_nobody(way: Way) -> None:
    """On one source, events that bring their data go well while one that must be fetched waits: it is not blamed."""
    async with way.worker() as app:
        async with faulty(way, error_rate=1, status=503, retry_after=0):
            await way.publish(1)
            for _ in range(8):
                await way.publish(2, contract="inline", stream="lab-results")
                await asyncio.sleep(0.3)
            way.nobody_was_blamed()
        await handled(app, 8 * 2 + 1)
    way.nobody_was_blamed()
