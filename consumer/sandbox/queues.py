"""Queue administration: `/v1/admin/org/queues/{queue_name}`, with the test publish before anything is stored."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import ConfigDict, Field

from consumer.errors import ConsumerError
from consumer.sandbox.answers import Refusal, data, invalid, no_content
from consumer.sandbox.members import text_of
from consumer.sandbox.parts import Parts
from consumer.sandbox.publishing import ACCEPT_WITHIN, Publisher
from consumer.sandbox.queue_targets import QueueTarget, open_target
from consumer.sandbox.queues_file import Registration, read_registrations, write_registrations
from consumer.sandbox.requests import Shape, body_of
from consumer.sandbox.streams import ALL, STREAMS, stream_of

__all__ = ["QueueAdmin"]

_SHOWN: Final = {
    "aws_sqs": ("queue_arn", "region", "role_arn", "publishing_principal_arn"),
    "azure_event_hubs": ("namespace", "event_hub_name"),
    "azure_storage_queue": ("account_name", "queue_name"),
    "local": ("path",),
}
"""What is answered of each type's block; everything else is taken for a secret and only written."""
_PRINCIPAL: Final = "arn:aws:iam::000000000000:role/sandbox-event-publisher"
_OPEN_WITHIN: Final = 20.0


class _Body(Shape):
    """`type` is polymorphic; the block of the type is optional as far as the schema goes."""

    model_config = ConfigDict(extra="allow")

    queue_name: str = Field(min_length=1, max_length=200)
    type: Literal["aws_sqs", "azure_event_hubs", "azure_storage_queue", "local"]


class QueueAdmin:
    """The queues that are registered, and the handlers of their routes."""

    def __init__(self, parts: Parts, publisher: Publisher) -> None:
        self._parts = parts
        self._publisher = publisher
        self._registered: dict[str, Registration] = {}
        self._changing = asyncio.Lock()

    @property
    def registered(self) -> dict[str, str]:
        """The type of the queue of each stream that has one."""
        return {name: one.kind for name, one in self._registered.items()}

    async def restore(self) -> None:
        """Open the queues of the start before; one that cannot be opened is to be registered again, as the log says."""
        file, log = self._parts.options.queues_file, self._parts.log
        async with self._changing:
            try:
                kept = {} if file is None else read_registrations(file)
            except ValueError as error:
                log.warning("queues_not_restored", error=str(error))
                return
            for stream, one in kept.items():
                try:
                    async with asyncio.timeout(_OPEN_WITHIN):
                        target = await open_target(_source_name(one.queue_name), one.kind, one.block)
                except (ConsumerError, TimeoutError) as error:
                    log.warning("queue_not_restored", stream=stream, error=str(error) or "it took too long")
                    continue
                self._registered[stream] = one
                self._publisher.register(stream, target)
                log.info("queue_restored", stream=stream, type=one.kind)

    def _keep(self) -> None:
        file = self._parts.options.queues_file
        if file is None:
            return
        try:
            write_registrations(file, self._registered)
        except OSError as error:
            self._parts.log.warning("queues_not_kept", error=error.strerror)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST: test publish, then store."""
        return await self._store(request, replace=False)

    async def replace(self, request: web.Request) -> web.StreamResponse:
        """PUT: the same in the place of one that is there. Whether the platform tests then too is not published."""
        return await self._store(request, replace=True)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET, without the write-only fields."""
        return data(_shown(self._there(_stream(request))))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """DELETE: later events are buffered, or go to the queue for `all`."""
        stream = _stream(request)
        async with self._changing:
            self._there(stream)
            del self._registered[stream]
            self._keep()
            before = self._publisher.register(stream, None)
        await _close(before)
        self._parts.log.info("queue_removed", stream=stream)
        return no_content()

    def _there(self, stream: str) -> Registration:
        if stream not in self._registered:
            where = f"go to the queue registered for {ALL}" if ALL in self._registered else "are buffered"
            raise Refusal(
                404, f"No queue is registered for this stream: its events {where}", code="queue_not_configured"
            )
        return self._registered[stream]

    async def _store(self, request: web.Request, *, replace: bool) -> web.StreamResponse:
        stream = _stream(request)
        body = await body_of(request, _Body)
        _require_same_name(request, body)
        block = (body.model_extra or {}).get(body.type) or {}
        if not isinstance(block, dict):
            raise invalid(body.type, "expected an object")
        async with self._changing:
            if replace:
                self._there(stream)
            elif stream in self._registered:
                raise Refusal(
                    409, "A queue is registered for this stream: replace it with PUT", code="queue_already_configured"
                )
            target = await self._tested(body, block)
            now = text_of(self._parts.clock.now())
            created = self._registered[stream].created_at if replace else now
            self._registered[stream] = Registration(body.queue_name, body.type, block, created, now)
            self._keep()
            before = self._publisher.register(stream, target)
        await _close(before)
        self._parts.log.info("queue_registered", stream=stream, type=body.type)
        return data(_shown(self._registered[stream]), status=200 if replace else 201)

    async def _tested(self, body: _Body, block: dict[str, Any]) -> QueueTarget:
        """The queue, after it took a test message. Raises `Refusal` (400) with the provider's error."""
        try:
            async with asyncio.timeout(_OPEN_WITHIN):
                target = await open_target(_source_name(body.queue_name), body.type, block)
            try:
                async with asyncio.timeout(ACCEPT_WITHIN):
                    await target.send([self._test_message(body.queue_name)])
            except BaseException:
                await _close(target)
                raise
        except (ConsumerError, TimeoutError) as error:
            text = str(error) or "it took too long"
            raise Refusal(400, f"The test publish failed: {text}") from None
        return target

    def _test_message(self, queue_name: str) -> bytes:
        """The synthetic test publish: unsigned, and what else it holds is not published."""
        message = {
            "event_id": str(uuid.uuid4()),
            "event_type": "queue.test",
            "occurred_at": text_of(self._parts.clock.now()),
            "data": {"queue_name": queue_name, "message": "Synthetic test publish. No action needed."},
        }
        return json.dumps(message, separators=(",", ":")).encode()


def _shown(one: Registration) -> dict[str, Any]:
    blocks: dict[str, Any] = dict.fromkeys(kind for kind in _SHOWN if kind != "local")
    blocks[one.kind] = {name: one.block.get(name) for name in _SHOWN[one.kind]}
    if one.kind == "aws_sqs":
        blocks["aws_sqs"]["publishing_principal_arn"] = _PRINCIPAL
    times = {"created_at": one.created_at, "updated_at": one.updated_at}
    return {"queue_name": one.queue_name, "type": one.kind, **blocks, **times}


def _source_name(queue_name: str) -> str:
    return queue_name.lower().replace("-", "_")


def _stream(request: web.Request) -> str:
    stream = stream_of(request.match_info["queue_name"])
    if stream is None:
        raise invalid("queue_name", f"expected one of {', '.join((*STREAMS, ALL))}")
    return stream


def _require_same_name(request: web.Request, body: _Body) -> None:
    if body.queue_name != request.match_info["queue_name"]:
        raise invalid("queue_name", "expected the one in the path")


async def _close(target: QueueTarget | None) -> None:
    if target is not None:
        await target.close()
