"""An SQS server of our own: AWS JSON 1.0 over HTTP/1.1 on loopback, fast, in memory, with faults on demand.

In a test, inside its loop:

    async with SqsStub() as stub:
        url = stub.create_queue("labs")
        stub.fill("labs", (f"message {n}" for n in range(1000)))
        stub.fault("throttle", action="ReceiveMessage", count=3)

As a program (`python -m tests.emulators.sqs_stub --port 0`) it prints its URL in one line and is steered over HTTP:
see `tests.emulators.stub_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self

from tests.emulators.sqs_stub_actions import Partial, Service
from tests.emulators.sqs_stub_faults import SqsFault
from tests.emulators.sqs_stub_messages import State
from tests.emulators.sqs_stub_queue import Queue, StubError
from tests.emulators.stub_server import Clock, Connection, StubServer, header

__all__ = ["Clock", "SqsStub", "main"]

_TARGET = b"\r\nx-amz-target: amazonsqs."
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


class _Poll:
    """A ReceiveMessage that waits for messages."""

    __slots__ = ("connection", "payload", "timer")

    def __init__(self, connection: Connection, payload: dict[str, Any]) -> None:
        self.connection = connection
        self.payload = payload
        self.timer: asyncio.TimerHandle | None = None


class SqsStub(StubServer[SqsFault]):
    """An in-memory SQS server on 127.0.0.1; an async context manager."""

    content_type = b"application/x-amz-json-1.0"

    def __init__(
        self, *, port: int = 0, clock: Callable[[], float] = time.time, latency: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(faults=SqsFault, port=port, clock=clock, latency=latency, seed=seed)
        self.service = Service(clock)
        self._polls: dict[str, deque[_Poll]] = {}
        self._alarms: dict[str, asyncio.TimerHandle] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.service.base_url = self.base_url
        return self

    async def __aexit__(self, *_: object) -> None:
        timers = [*self._alarms.values(), *(poll.timer for polls in self._polls.values() for poll in polls)]
        for timer in filter(None, timers):
            timer.cancel()
        await super().__aexit__()

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

    def fill(self, name: str, bodies: Iterable[str], **options: Any) -> int:
        """Put messages on a queue at once, in so many `groups`; returns how many."""
        count = self.service.fill(name, bodies, groups=options.get("groups", 1))
        self.wake(name)
        return count

    def described(self) -> dict[str, dict[str, int]]:
        """What each queue holds."""
        return {name: _counts(queue) for name, queue in self.service.queues.items()}

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

    def dispatch(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Answer one request, now or later, unless a fault has it otherwise.

        A poll whose client went stays, and takes messages with it: so does the real service, for a while.
        """
        action = header(head.lower(), _TARGET)
        try:
            if action is not None:
                self._handle(connection, action.decode(), json.loads(body or b"{}"))
            elif not self.control(connection, head, body):
                raise StubError("UnknownOperationException")
        except StubError as error:
            _refuse(connection, error)
        except (ValueError, KeyError, TypeError) as error:
            _refuse(connection, StubError("SerializationException", f"{type(error).__name__}"))

    def _handle(self, connection: Connection, action: str, payload: dict[str, Any]) -> None:
        self.calls[action] += 1
        self.requests.append((action, payload))
        faults = self.disturb(connection, action)
        if faults is None:
            return
        error = next((found for fault in faults if (found := fault.error())), None)
        if error is not None:
            raise error
        partial = next((fault.partial() for fault in faults if fault.kind == "partial"), None)
        try:
            self._perform(connection, action, payload, partial)
        except (KeyError, TypeError, ValueError) as wrong:
            raise StubError("InvalidParameterValue", f"malformed request: {type(wrong).__name__}") from None

    def _perform(self, connection: Connection, action: str, payload: dict[str, Any], partial: Partial | None) -> None:
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

    def _wait(self, connection: Connection, payload: dict[str, Any], wait: float) -> None:
        queue = self.service.queue(payload)
        poll = _Poll(connection, payload)
        poll.timer = self.loop.call_later(wait, self._expire, queue.name, poll)
        self._polls.setdefault(queue.name, deque()).append(poll)
        self._set_alarm(queue)


def _counts(queue: Queue) -> dict[str, int]:
    return {
        "ready": queue.counts[State.READY],
        "delayed": queue.counts[State.DELAYED],
        "in_flight": queue.counts[State.IN_FLIGHT],
        "peak_in_flight": queue.peak_in_flight,
    }


def _refuse(connection: Connection, error: StubError) -> None:
    """Answer with an error, in the JSON protocol's form and with the code older clients know."""
    body = json.dumps({"__type": f"com.amazonaws.sqs#{error.code}", "message": error.message}).encode()
    fault = "Sender" if error.sender else "Receiver"
    connection.answer(body, error.status, f"x-amzn-query-error: {error.query};{fault}\r\n".encode())


main = SqsStub.main

if __name__ == "__main__":
    main()
