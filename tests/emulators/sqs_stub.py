"""An SQS server of our own: AWS JSON 1.0 over HTTP/1.1 on loopback, fast, in memory, with faults on demand.

In a test, inside its loop:

    async with SqsStub() as stub:
        url = stub.create_queue("labs")
        stub.fill("labs", (f"message {n}" for n in range(1000)))
        stub.fault("throttle", action="ReceiveMessage", count=3)

As a program (`python -m tests.emulators.sqs_stub --port 0`) it prints its URL in one line and is steered over HTTP:

    POST   /_stub/faults   {"kind": "throttle", "action": "ReceiveMessage", "count": 3}
    DELETE /_stub/faults
    POST   /_stub/queues   {"name": "labs", "attributes": {"VisibilityTimeout": "60"}}
    POST   /_stub/fill     {"queue": "labs", "count": 1000, "template": "message {n}"}
    POST   /_stub/fill     {"queue": "labs", "bodies": ["one", "two"]}
    GET    /_stub/stats
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from tests.emulators.sqs_stub_actions import Partial, Service
from tests.emulators.sqs_stub_faults import Fault, Faults
from tests.emulators.sqs_stub_messages import State
from tests.emulators.sqs_stub_queue import Queue, StubError

__all__ = ["Clock", "SqsStub", "main"]

_REASONS = {200: b"OK", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found", 500: b"Error", 503: b"Unavailable"}
_TARGET = b"\r\nx-amz-target: amazonsqs."
_LENGTH = b"\r\ncontent-length: "
_WAKES = frozenset(
    {
        "sendmessage",
        "sendmessagebatch",
        "deletemessage",
        "deletemessagebatch",
        "changemessagevisibility",
        "changemessagevisibilitybatch",
    }
)


class Clock:
    """A clock that a test moves by hand; starts at the real time. Long polls still wait in real time."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class _Poll:
    """A ReceiveMessage that waits for messages."""

    __slots__ = ("connection", "payload", "timer")

    def __init__(self, connection: _Connection, payload: dict[str, Any]) -> None:
        self.connection = connection
        self.payload = payload
        self.timer: asyncio.TimerHandle | None = None


class SqsStub:
    """The server; an async context manager."""

    def __init__(
        self, *, port: int = 0, clock: Callable[[], float] = time.time, latency: float = 0.0, seed: int = 0
    ) -> None:
        self.service = Service(clock)
        self.faults = Faults(seed)
        self.calls: Counter[str] = Counter()
        self.requests: deque[tuple[str, dict[str, Any]]] = deque(maxlen=100)
        """The latest requests: the action in lower case, and its parameters."""
        self.latency = latency
        self._port = port
        self._connections: set[_Connection] = set()
        self._polls: dict[str, deque[_Poll]] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self._server = await self.loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self.service.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        timers = [*self._alarms.values(), *(poll.timer for polls in self._polls.values() for poll in polls)]
        for timer in filter(None, timers):
            timer.cancel()
        for connection in list(self._connections):
            connection.abort()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        """The endpoint to give to clients."""
        return self.service.base_url

    def create_queue(self, name: str, **attributes: str) -> str:
        """Make a queue and return its URL."""
        self.service.create(name, attributes)
        return self.service.url(name)

    def queue(self, name: str) -> Queue:
        """The state of a queue."""
        return self.service.queues[name]

    def delete_queue(self, name: str) -> None:
        """Make a queue vanish; polls on it stay open until they end by themselves."""
        del self.service.queues[name]

    def fill(self, name: str, bodies: Iterable[str], *, groups: int = 1) -> int:
        """Put messages on a queue at once; returns how many."""
        count = self.service.fill(name, bodies, groups=groups)
        self.wake(name)
        return count

    def fault(self, kind: str, **options: Any) -> Fault:
        """Put a fault in force; see `sqs_stub_faults.Fault`."""
        return self.faults.add(kind, **options)

    def wake(self, name: str) -> None:
        """Serve the polls that wait at a queue, if it has something for them. Needed after moving a `Clock`."""
        polls = self._polls.get(name)
        queue = self.service.queues.get(name)
        if not polls or queue is None:
            return
        queue.advance(self.service.clock())
        while polls and queue.counts[State.READY]:
            body, _ = self.service.receive({**polls[0].payload, "WaitTimeSeconds": 0})
            if body is None or body == b"{}":
                break
            self._finish(polls.popleft(), body)
        self._set_alarm(queue)

    def _set_alarm(self, queue: Queue) -> None:
        if (alarm := self._alarms.pop(queue.name, None)) is not None:
            alarm.cancel()
        change = queue.next_change()
        if change is not None and self._polls.get(queue.name):
            delay = max(0.001, change - self.service.clock())
            self._alarms[queue.name] = self.loop.call_later(delay, self.wake, queue.name)

    def _finish(self, poll: _Poll, body: bytes) -> None:
        if poll.timer is not None:
            poll.timer.cancel()
        poll.connection.answer(body)

    def _expire(self, name: str, poll: _Poll) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._polls[name].remove(poll)
        self._finish(poll, b"{}")

    def connected(self, connection: _Connection) -> None:
        """A client came."""
        self._connections.add(connection)

    def disconnected(self, connection: _Connection) -> None:
        """A client went. A poll of its stays, and takes messages with it: so does the real service, for a while."""
        self._connections.discard(connection)

    def handle(self, connection: _Connection, action: str, payload: dict[str, Any]) -> None:
        """Answer one request, now or later, unless a fault has it otherwise."""
        self.calls[action] += 1
        self.requests.append((action, payload))
        faults = {fault.kind: fault for fault in self.faults.draw(action)}
        if "hang" in faults:
            return
        if "reset" in faults:
            connection.abort()
            return
        if "reset_after" in faults:
            connection.breaks = True
        if "bad_json" in faults:
            connection.cuts = True
        connection.delay = faults["latency"].seconds if "latency" in faults else self.latency
        error = next((found for fault in faults.values() if (found := fault.error())), None)
        partial = faults["partial"].partial() if "partial" in faults else None
        try:
            if error is not None:
                raise error
            self._perform(connection, action, payload, partial)
        except StubError as found:
            connection.refuse(found)
        except (KeyError, TypeError, ValueError) as wrong:
            connection.refuse(StubError("InvalidParameterValue", f"malformed request: {type(wrong).__name__}"))

    def _perform(self, connection: _Connection, action: str, payload: dict[str, Any], partial: Partial | None) -> None:
        if action == "receivemessage":
            body, wait = self.service.receive(payload)
            if body is None:
                self._wait(connection, payload, wait)
            else:
                connection.answer(body)
            return
        result = self.service.perform(action, payload, partial)
        connection.answer(json.dumps(result).encode())
        if action in _WAKES:
            self.wake(self.service.queue(payload).name)

    def _wait(self, connection: _Connection, payload: dict[str, Any], wait: float) -> None:
        queue = self.service.queue(payload)
        poll = _Poll(connection, payload)
        poll.timer = self.loop.call_later(wait, self._expire, queue.name, poll)
        self._polls.setdefault(queue.name, deque()).append(poll)
        self._set_alarm(queue)

    def control(self, method: str, path: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The control path; what it returns goes out as JSON."""
        if path == "/_stub/faults":
            if method == "DELETE":
                self.faults.clear()
            elif method == "POST":
                self.fault(**payload)
            return {"faults": len(self.faults.active)}
        if path == "/_stub/queues" and method == "POST":
            return {"url": self.create_queue(payload["name"], **payload.get("attributes", {}))}
        if path == "/_stub/fill" and method == "POST":
            return {"filled": self.fill(payload["queue"], _bodies(payload), groups=payload.get("groups", 1))}
        if path == "/_stub/stats":
            return {"calls": dict(self.calls), "queues": {name: _counts(q) for name, q in self.service.queues.items()}}
        raise StubError("UnknownOperationException", f"{method} {path}")


def _counts(queue: Queue) -> dict[str, int]:
    return {
        "ready": queue.counts[State.READY],
        "delayed": queue.counts[State.DELAYED],
        "in_flight": queue.counts[State.IN_FLIGHT],
        "peak_in_flight": queue.peak_in_flight,
    }


def _bodies(payload: Mapping[str, Any]) -> Iterator[str]:
    if "bodies" in payload:
        yield from payload["bodies"]
        return
    # Not str.format: a template is JSON, full of braces of its own.
    before, mark, after = str(payload["template"]).partition("{n}")
    for number in range(int(payload["count"])):
        yield f"{before}{number}{after}" if mark else before


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive: one request after the other, each with a Content-Length."""

    def __init__(self, stub: SqsStub) -> None:
        self._stub = stub
        self._buffer = bytearray()
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self.delay = 0.0
        self.breaks = False
        self.cuts = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # what create_server gives a stream protocol
        self._transport = transport
        self._stub.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stub.disconnected(self)

    def abort(self) -> None:
        """Break the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        length = int(_header(head, _LENGTH) or 0)
        if len(self._buffer) < end + 4 + length:
            return
        body = bytes(self._buffer[end + 4 : end + 4 + length])
        del self._buffer[: end + 4 + length]
        self._busy = True
        self.breaks = self.cuts = False
        self.delay = 0.0
        self._dispatch(head, body)

    def _dispatch(self, head: bytes, body: bytes) -> None:
        action = _header(head, _TARGET)
        try:
            payload = json.loads(body or b"{}")
            if action is not None:
                self._stub.handle(self, action.decode(), payload)
                return
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.answer(json.dumps(self._stub.control(method.upper(), path, payload)).encode())
        except StubError as error:
            self.refuse(error)
        except (ValueError, KeyError, TypeError) as error:
            self.refuse(StubError("SerializationException", f"{type(error).__name__}"))

    def refuse(self, error: StubError) -> None:
        """Answer with an error, in the JSON protocol's form and with the code older clients know."""
        body = json.dumps({"__type": f"com.amazonaws.sqs#{error.code}", "message": error.message}).encode()
        fault = "Sender" if error.sender else "Receiver"
        self.answer(body, error.status, f"x-amzn-query-error: {error.query};{fault}\r\n".encode())

    def answer(self, body: bytes, status: int = 200, extra: bytes = b"") -> None:
        """Answer, late if a latency is set."""
        if self.cuts:
            body = body[: len(body) // 2] or b"{"
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/x-amz-json-1.0\r\n%sContent-Length: %d\r\n\r\n"
        data = head % (status, _REASONS.get(status, b"Error"), extra, len(body)) + body
        if self.delay:
            self._stub.loop.call_later(self.delay, self._write, data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self.breaks:
            self.abort()
            return
        self._transport.write(data)
        self._busy = False
        if self._buffer:
            self._next()


def _header(head: bytes, name: bytes) -> bytes | None:
    start = head.find(name)
    if start < 0:
        return None
    start += len(name)
    end = head.find(b"\r\n", start)
    return head[start:] if end < 0 else head[start:end]


async def _serve(port: int, latency: float) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SqsStub(port=port, latency=latency) as stub:
        sys.stdout.write(f"{stub.url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Run the stub until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="An in-memory SQS server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds added to every answer")
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.latency))


if __name__ == "__main__":
    main()
