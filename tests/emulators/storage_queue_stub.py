"""An Azure Storage Queue server of our own: its REST protocol on loopback, fast, in memory, with faults on demand.

In a test, inside its loop:

    async with StorageQueueStub() as stub:
        stub.create_queue("labs")
        stub.fill("labs", (f"message {n}" for n in range(1000)))
        stub.fault("busy", action="GetMessages", count=3)
        client = QueueClient.from_connection_string(stub.connection_string, "labs")

As a program (`python -m tests.emulators.storage_queue_stub --port 0`) it prints its URL in one line, its account and
key are Azurite's, and it is steered over HTTP: see `tests.emulators.stub_server`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.emulators.faults import BROKEN, Fault
from tests.emulators.storage_queue_stub_queue import LONGEST, Queue, StubError
from tests.emulators.storage_queue_stub_wire import (
    Request,
    created,
    decoded_path,
    error_body,
    http_date,
    messages_body,
    text_of,
    verify,
)
from tests.emulators.stub_server import Clock, Connection, StubServer
from tests.servers.azurite import ACCOUNT, KEY, connection_string

__all__ = ["Clock", "StorageQueueFault", "StorageQueueStub", "main"]

ERRORS: Mapping[str, tuple[str, int]] = {
    "busy": ("ServerBusy", 503),
    "internal": ("InternalError", 500),
    "timed_out": ("OperationTimedOut", 500),
    "denied": ("AuthorizationPermissionMismatch", 403),
    "bad_key": ("AuthenticationFailed", 403),
    "no_queue": ("QueueNotFound", 404),
}
"""Kinds that answer with an error: its code and HTTP status."""
_NAME = re.compile(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_META = "x-ms-meta-"


@dataclass(slots=True)
class StorageQueueFault(Fault):
    """One thing that goes wrong; `action` is one of those that `_action` names. foreign: a web page with status 200."""

    kinds: ClassVar[tuple[str, ...]] = (*ERRORS, *BROKEN, "foreign")


Reply = tuple[bytes, int, bytes]


class StorageQueueStub(StubServer[StorageQueueFault]):
    """An in-memory Azure Storage Queue server on 127.0.0.1; an async context manager."""

    content_type = b"application/xml"

    def __init__(
        self, *, port: int = 0, clock: Callable[[], float] = time.time, latency: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__(faults=StorageQueueFault, port=port, clock=clock, latency=latency, seed=seed)
        self.queues: dict[str, Queue] = {}
        self._key = base64.b64decode(KEY)

    @property
    def connection_string(self) -> str:
        """What clients are given."""
        return connection_string(queue=f"{self.base_url}/{ACCOUNT}")

    def create_queue(self, name: str, **attributes: str) -> str:
        """Make a queue with this metadata and return its URL."""
        self.queues[name] = Queue(name, dict(attributes))
        return f"{self.base_url}/{ACCOUNT}/{name}"

    def delete_queue(self, name: str) -> None:
        """Make a queue vanish."""
        del self.queues[name]

    def fill(self, name: str, bodies: Iterable[str], **options: Any) -> int:
        """Put messages on a queue at once; `ttl` is their time to live. Returns how many."""
        queue, now, ttl = self.queues[name], self.clock(), options.get("ttl", LONGEST)
        return len([queue.put(body, now=now, ttl=ttl) for body in bodies])

    def described(self) -> dict[str, dict[str, int]]:
        """How many messages each queue holds."""
        return {name: {"messages": queue.count(self.clock())} for name, queue in self.queues.items()}

    def dispatch(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Answer one request, unless a fault has it otherwise."""
        try:
            if self.control(connection, head, body):
                return
            request = Request.read(head, body)
            parts = decoded_path(request.path)
            action = _action(request, parts)
            self.calls[action] += 1
            self.requests.append((action, dict(request.parameters)))
            faults = self.disturb(connection, action)
            if faults is None:
                return
            for fault in faults:
                if fault.kind in ERRORS:
                    raise StubError(*ERRORS[fault.kind], "on demand")
                if fault.kind == "foreign":
                    connection.answer(b"<html><p>Sign in</html>")
                    return
            verify(request, account=ACCOUNT, key=self._key)
            connection.answer(*self._perform(action, request, parts))
        except StubError as error:
            extra = f"x-ms-error-code: {error.code}\r\n".encode()
            connection.answer(error_body(error.code, error.message), error.status, extra)
        except ValueError:
            connection.answer(error_body("InvalidInput", "no request"), 400, b"x-ms-error-code: InvalidInput\r\n")

    def _perform(self, action: str, request: Request, parts: list[str]) -> Reply:
        if parts[0] != ACCOUNT:
            raise StubError("ResourceNotFound", 404)
        if action == "createqueue":
            return self._create(request, parts[1])
        queue = self.queues.get(parts[1])
        if queue is None:
            raise StubError("QueueNotFound", 404)
        if action in _ON_MESSAGES:
            return _ON_MESSAGES[action](queue, request, parts, self.clock())
        if action == "deletequeue":
            del self.queues[parts[1]]
        elif action == "setmetadata":
            queue.metadata = _metadata(request)
        else:
            lines = [f"x-ms-approximate-messages-count: {queue.count(self.clock())}"]
            lines += [f"{_META}{name}: {value}" for name, value in queue.metadata.items()]
            return b"", 200, "".join(f"{line}\r\n" for line in lines).encode()
        return b"", 204, b""

    def _create(self, request: Request, name: str) -> Reply:
        if not _NAME.fullmatch(name):
            raise StubError("InvalidResourceName")
        if name in self.queues:
            if self.queues[name].metadata != _metadata(request):
                raise StubError("QueueAlreadyExists", 409)
            # What the SDK reads of this reply, to say that there was one.
            return b"", 204, f"x-ms-request-id: none\r\nDate: {http_date(self.clock())}\r\n".encode()
        self.create_queue(name, **_metadata(request))
        return b"", 201, b""


def _metadata(request: Request) -> dict[str, str]:
    return {name.removeprefix(_META): value for name, value in request.headers.items() if name.startswith(_META)}


def _action(request: Request, parts: list[str]) -> str:
    """The operation, by the name that the reference gives it, in lower case and without spaces."""
    method, comp = request.method, request.parameters.get("comp")
    match parts:
        case [_, _] if comp in {None, "metadata"}:
            found = (
                {"PUT": "setmetadata", "GET": "getmetadata", "HEAD": "getmetadata"}
                if comp
                else {
                    "PUT": "createqueue",
                    "DELETE": "deletequeue",
                }
            )
        case [_, _, "messages"]:
            peeks = request.parameters.get("peekonly") == "true"
            found = {"GET": "peekmessages" if peeks else "getmessages", "POST": "putmessage", "DELETE": "clearmessages"}
        case [_, _, "messages", _]:
            found = {"PUT": "updatemessage", "DELETE": "deletemessage"}
        case _:
            raise StubError("InvalidUri")
    if method not in found:
        raise StubError("UnsupportedHttpVerb", 405)
    return found[method]


def _put(queue: Queue, request: Request, _: list[str], now: float) -> Reply:
    delay, ttl = request.number("visibilitytimeout", 0), request.number("messagettl", LONGEST)
    return created(queue.put(text_of(request.body), now=now, delay=delay, ttl=ttl)), 201, b""


def _get(queue: Queue, request: Request, _: list[str], now: float) -> Reply:
    visibility = request.number("visibilitytimeout", 30)
    return messages_body(queue.get(request.number("numofmessages", 1), now=now, visibility=visibility)), 200, b""


def _peek(queue: Queue, request: Request, _: list[str], now: float) -> Reply:
    return messages_body(queue.peek(request.number("numofmessages", 1), now=now), peeked=True), 200, b""


def _update(queue: Queue, request: Request, parts: list[str], now: float) -> Reply:
    receipt = request.required("popreceipt")
    request.required("visibilitytimeout")
    text = text_of(request.body) if request.body else None
    message = queue.update(parts[3], receipt, now=now, visibility=request.number("visibilitytimeout", 0), text=text)
    seen = http_date(message.visible_at)
    return b"", 204, f"x-ms-popreceipt: {message.receipt}\r\nx-ms-time-next-visible: {seen}\r\n".encode()


def _delete(queue: Queue, request: Request, parts: list[str], now: float) -> Reply:
    queue.delete(parts[3], request.required("popreceipt"), now=now)
    return b"", 204, b""


def _clear(queue: Queue, *_: Any) -> Reply:
    queue.clear()
    return b"", 204, b""


_ON_MESSAGES: Mapping[str, Callable[[Queue, Request, list[str], float], Reply]] = {
    "putmessage": _put,
    "getmessages": _get,
    "peekmessages": _peek,
    "updatemessage": _update,
    "deletemessage": _delete,
    "clearmessages": _clear,
}

main = StorageQueueStub.main

if __name__ == "__main__":
    main()
