"""A relay in the test's own loop, a local queue behind it that can be made to fail, and HTTP as tests need it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumer import SahhaSignature
from consumer.envelope import Neutral, unwrap_neutral
from consumer.errors import SourceRefused
from consumer.relay import Relay
from consumer.settings import Settings
from consumer.settings_loading import load_settings
from consumer.sources.base import Message, Outgoing, Source
from consumer.sources.local import LocalSource
from tests.conformance.rig import eventually, nothing_stray

__all__ = [
    "SCORE",
    "SECRET",
    "MoodyQueue",
    "Running",
    "body_of",
    "neutral",
    "relaying",
    "request",
    "settings",
    "webhook",
]

SECRET = "a webhook secret of the tests"
SCORE = "ScoreCreatedIntegrationEvent"


class MoodyQueue(LocalSource):
    """A local queue whose sends can be held up, or fail."""

    def __init__(self, chosen: Any) -> None:
        super().__init__(chosen)
        self.open_error: Exception | None = None
        self.send_error: Exception | None = None
        self.refused: bytes | None = None
        """A body that it does not take, nor any that come with it."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.sends: list[int] = []

    async def open(self) -> None:
        if self.open_error is not None:
            raise self.open_error
        await super().open()

    async def send(self, messages: Sequence[Outgoing]) -> None:
        self.sends.append(len(messages))
        await self.gate.wait()
        if self.send_error is not None:
            raise self.send_error
        if any(neutral(message.body).body == self.refused for message in messages):
            raise SourceRefused("not this one")
        await super().send(messages)


@dataclass
class Running:
    """A relay that listens."""

    relay: Relay
    queue: Any
    stop: asyncio.Event
    serving: asyncio.Task[None]
    _streams: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, closed with the relay."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.relay.port)
        self._streams.append(writer)
        return reader, writer

    async def ask(self, raw: bytes) -> tuple[int, dict[str, str], str]:
        """Send these bytes on a connection of their own; status, headers and text of the answer."""
        reader, writer = await self.connect()
        writer.write(raw)
        return await answer(reader)

    async def post(self, number: int = 0, **changes: str) -> int:
        """Post a good webhook; the status."""
        return (await self.ask(webhook(number, **changes)))[0]

    async def messages(self, count: int) -> list[Message]:
        """So many messages of the queue, which holds no more."""
        found: list[Message] = []
        async with asyncio.timeout(10):
            while len(found) < count:
                found += await self.queue.receive(100)
        assert (await self.queue.depth()).total == count
        return found

    async def count(self) -> int:
        """How many messages the queue holds."""
        return int((await self.queue.depth()).total)

    async def close(self) -> None:
        """Drop the test's connections."""
        for writer in self._streams:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def settings(folder: Path, **changes: str) -> Settings:
    """Settings with one local queue of Sahha's, `scores`."""
    values = {
        "SOURCES__SCORES__KIND": "local",
        "SOURCES__SCORES__PATH": str(folder / "queue"),
        "SOURCES__SCORES__PROVIDER": "sahha",
        "SAHHA__SIGNATURE__SECRETS": SECRET,
        "RELAY__PORT": "0",
        **changes,
    }
    given = {f"CONSUMER_{name}": value for name, value in values.items() if value}
    return load_settings(env=given, cwd=folder).settings


@contextlib.asynccontextmanager
async def relaying(
    folder: Path,
    *,
    queue: Source | None = None,
    open_error: Exception | None = None,
    drain_timeout: float = 5.0,
    **changes: str,
) -> AsyncIterator[Running]:
    """A relay that listens while the context lasts, and ends cleanly."""
    chosen = settings(folder, **changes)
    source = queue or MoodyQueue(chosen.source("scores"))
    if open_error is not None:
        assert isinstance(source, MoodyQueue)
        source.open_error = open_error
    signature = SahhaSignature(secrets=[SECRET]) if chosen.relay.verify else None
    relay, stop = Relay(chosen, source, signature=signature), asyncio.Event()
    with nothing_stray():
        serving = asyncio.create_task(relay.serve(stop, drain_timeout=drain_timeout))
        running = Running(relay, source, stop, serving)
        try:
            await eventually(lambda: relay.port is not None or serving.done())
            yield running
        finally:
            stop.set()
            async with asyncio.timeout(20):
                await serving
            await running.close()
            await source.close()


def body_of(number: int = 0, **changes: Any) -> bytes:
    """The body of a score."""
    content = {"id": str(number), "externalId": f"u{number}", "type": "sleep", "score": 0.5, "scoreDateTime": "x"}
    return json.dumps({**content, "createdAtUtc": "2026-03-16T08:00:00Z", **changes}).encode()


def webhook(number: int = 0, **changes: str) -> bytes:
    """A whole request with a good webhook; `changes` replace headers, or with an empty value leave them out."""
    raw = body_of(number)
    headers = SahhaSignature(secrets=[SECRET]).sign(raw, external_id=f"u{number}", event_type=SCORE)
    return request(raw, **{**{name.replace("-", "_"): value for name, value in headers.items()}, **changes})


def request(raw: bytes, *, start: str = "POST /hook HTTP/1.1", **headers: str) -> bytes:
    """A whole request; `headers` with _ for -, those with an empty value left out."""
    given = {"Host": "relay", "Content_Length": str(len(raw)), **headers}
    lines = [start, *(f"{name.replace('_', '-')}: {value}" for name, value in given.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + raw


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], str]:
    """Read one answer."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        text = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), headers, text.decode()


def neutral(message: Message | bytes) -> Neutral:
    """The neutral envelope in a message."""
    found = unwrap_neutral(message if isinstance(message, bytes) else message.body)
    assert found is not None
    return found
