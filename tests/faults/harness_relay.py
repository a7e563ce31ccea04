"""`consumer relay` as a process of its own on a local queue, and connections that fire at it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from consumer.envelope import unwrap_neutral
from tests.conformance.rig import eventually
from tests.relay_rig import SECRET, answer, webhook
from tests.servers.forked import fork

__all__ = ["RelayProcess", "fire"]

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RelayProcess:
    """A relay on the queue `folder/queue`; kills what it started, and nothing else."""

    def __init__(self, folder: Path, *arguments: str, **changes: str) -> None:
        self.folder = folder
        self._log = folder / "relay.log"
        values = {
            "SOURCES__SCORES__KIND": "local",
            "SOURCES__SCORES__PATH": str(folder / "queue"),
            "SOURCES__SCORES__PROVIDER": "sahha",
            "SAHHA__SIGNATURE__SECRETS": SECRET,
            "RELAY__PORT": "0",
            "HEALTH__ENABLED": "false",
            "LOG__FORMAT": "json",
            "DRAIN_TIMEOUT": "5s",
            **changes,
        }
        settings = {f"CONSUMER_{name}": value for name, value in values.items() if value}
        self.process = fork(["relay", *arguments], env={**os.environ, **settings}, cwd=folder, out=self._log)
        self._writers: list[asyncio.StreamWriter] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    @property
    def text(self) -> str:
        """The whole log."""
        return self._log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this name."""
        found = []
        for line in self.text.splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("event") == name:
                    found.append(record)
        return found

    async def logged(self, name: str) -> dict[str, Any]:
        """Wait for a log line."""

        def there() -> bool:
            found = bool(self.events(name))
            if not found and self.process.poll() is not None:
                raise AssertionError(f"the relay ended with {self.process.returncode}:\n{self.text[-3000:]}")
            return found

        await eventually(there, within=30, what=f"{name} in the log:\n{self.text[-3000:]}")
        return self.events(name)[0]

    async def port(self) -> int:
        """Where it listens."""
        return int((await self.logged("listening"))["port"])

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its health server."""
        port = (await self.logged("health_server"))["port"]

        def ask() -> tuple[int, str]:
            try:
                with _DIRECT.open(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
                    return reply.status, reply.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(ask)

    async def ask(self, port: int, raw: bytes) -> int:
        """Send a request; the status."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        writer.write(raw)
        return (await answer(reader))[0]

    async def leave(self, port: int, raw: bytes) -> None:
        """Send a request whose answer nobody waits for."""
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        writer.write(raw)
        await writer.drain()
        await asyncio.sleep(0.3)

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        self.process.send_signal(number)

    async def ended(self, *, within: float = 15.0) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        await eventually(lambda: self.process.poll() is not None, within=within, what=f"its end:\n{self.text[-3000:]}")
        return self.process.wait()

    def bodies(self) -> list[bytes]:
        """The body of every webhook on the queue, as the file has it."""
        with contextlib.closing(sqlite3.connect(self.folder / "queue", timeout=10)) as connection:
            rows = connection.execute("SELECT body FROM bodies ORDER BY seq").fetchall()
        found = [unwrap_neutral(bytes(row[0])) for row in rows]
        assert all(found)
        return [one.body for one in found if one is not None]


async def fire(port: int, first: int, step: int, answered: dict[int, int]) -> None:
    """Post webhooks number `first`, `first + step` and so on, one after another, until the connection ends.

    `answered` gets the status of each that was answered. A new connection is made while that is possible.
    """
    number = first
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                number += step
                writer.write(webhook(number))
                answered[number], headers, _ = await answer(reader)
                if headers.get("connection") == "close":
                    break
        writer.close()
