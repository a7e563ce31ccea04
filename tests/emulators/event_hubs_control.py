"""The HTTP door by which an Event Hubs emulator in another process is steered: POST JSON, get JSON.

    GET  /stats
    POST /fill     {"hub": "events", "count": 1000, "template": "event %d", "partition": "0", "keys": 10}
    POST /fill     {"hub": "events", "bodies": ["one", "two"], "properties": {"x-signature": "..."}}
    POST /fault    {"kind": "silent", "partition": "1", "seconds": 2, "count": 3}
    POST /clear    {"kind": "silent"}                    without a kind: all faults
    POST /busy     {"seconds": 2}
    POST /deny     {"role": "listen"}
    POST /drop     {"hub": "events", "partition": "0"}   without: all connections
    POST /detach   {"condition": "amqp:link:stolen", "partition": "0", "role": "listen"}
    POST /trim     {"hub": "events", "partition": "0", "count": 10}
    POST /latency  {"seconds": 0.02}
    POST /stop     {}
    POST /start    {}

`template` is filled with the number of the event, from 0; `keys` spreads them over so many partition keys, `key-0` on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from tests.emulators.amqp_frames import AmqpError

if TYPE_CHECKING:
    from tests.emulators.event_hubs import EventHubsEmulator

__all__ = ["Control"]


class Control:
    """The door; an async context manager."""

    def __init__(self, emulator: EventHubsEmulator, *, port: int = 0) -> None:
        self._emulator = emulator
        self._port = port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """Where the door is."""
        return f"http://127.0.0.1:{self._port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.partition("\r\ncontent-length:")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            status, answer = await self._answer(head.split()[1], body)
            data = json.dumps(answer).encode()
            writer.write(b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n" % status)
            writer.write(b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(data), data))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, body: bytes) -> tuple[int, Any]:
        try:
            return 200, await self._do(path.removeprefix("/"), json.loads(body or b"{}"))
        except (AmqpError, TypeError, ValueError, KeyError) as error:
            return 400, {"error": f"{type(error).__name__}: {error}"}

    async def _do(self, action: str, options: dict[str, Any]) -> Any:
        emulator = self._emulator
        match action:
            case "" | "stats":
                return emulator.stats()
            case "fill":
                return {"filled": self._fill(options)}
            case "fault":
                emulator.fault(**options)
            case "drop" | "detach" | "trim":
                return {"count": getattr(emulator, action)(**options)}
            case "clear" | "busy" | "deny":
                getattr(emulator, action)(**options)
            case "latency":
                emulator.latency = float(options["seconds"])
            case "stop" | "start":
                await getattr(emulator, action)()
            case _:
                raise ValueError(f"nothing is known under {action!r}")
        return {"faults": len(emulator.faults.active)}

    def _fill(self, options: Mapping[str, Any]) -> int:
        keys = int(options.get("keys", 0))
        return self._emulator.fill(
            options.get("hub", "events"),
            _bodies(options),
            partition=options.get("partition"),
            key=lambda number: f"key-{number % keys}" if keys else None,
            properties=options.get("properties"),
        )


def _bodies(options: Mapping[str, Any]) -> Iterator[bytes]:
    if "bodies" in options:
        yield from (str(body).encode() for body in options["bodies"])
        return
    template = str(options.get("template", "event %d"))
    for number in range(int(options["count"])):
        yield template.replace("%d", str(number)).encode()
