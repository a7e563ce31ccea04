"""What concerns the partner as a whole: where events are published, and the rotation of keys and secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

from consumer.clients.thrive_calls import ThriveCalls, fresh_key
from consumer.models.thrive_api_admin import Queue, RotatedSigningSecret, RotatedTenantKey

__all__ = ["QUEUE_KINDS", "Queues", "Rotation", "queue_body"]

QUEUE_KINDS: Final = ("aws_sqs", "azure_event_hubs", "azure_storage_queue")

_QUEUE = "/v1/admin/org/queues/{queue_name}"
_NOT_YET: Final = frozenset({503})
"""How the rotation endpoints say that they are not there yet, with a Retry-After of a day: an answer, no outage."""
_LEAST_SECRET_BYTES = 32


def queue_body(stream: str, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What registers a queue for a stream: `{"queue_name", "type", <type>: fields}`.

    Neither kinds nor fields are checked: which ones the platform takes, such as for SAS tokens, is not published.
    """
    return {"queue_name": stream, "type": kind, **({kind: dict(fields)} if fields else {})}


class Queues:
    """`thrive.queues`: one queue for each stream of events. `queue_name` is the stream's name."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def register(self, queue_name: str, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Queue:
        """Register a queue (see `queue_body`). The platform publishes a test message to it first.

        Raises `ApiError`: 400 `invalid_request` with the queue service's error when that fails, 409
        `queue_already_configured` when there is one.
        """
        reply = await self._calls.as_partner(
            "POST",
            _QUEUE,
            path={"queue_name": queue_name},
            json=dict(body),
            idempotency_key=fresh_key(idempotency_key),
            repeatable=True,
        )
        return self._calls.data(f"POST {_QUEUE}", reply, Queue)

    async def show(self, queue_name: str) -> Queue:
        """The stream's queue. Raises `NotFound` where there is none: its events are buffered meanwhile."""
        reply = await self._calls.as_partner("GET", _QUEUE, path={"queue_name": queue_name})
        return self._calls.data(f"GET {_QUEUE}", reply, Queue)

    async def replace(self, queue_name: str, body: Mapping[str, Any]) -> Queue:
        """Put another queue in the place of the stream's."""
        reply = await self._calls.as_partner("PUT", _QUEUE, path={"queue_name": queue_name}, json=dict(body))
        # What this answers is not published; elsewhere the platform answers changes with an empty 204.
        return self._calls.data(f"PUT {_QUEUE}", reply, Queue) if reply.body else await self.show(queue_name)

    async def remove(self, queue_name: str) -> None:
        """Remove the stream's queue; later events are buffered until there is another."""
        await self._calls.as_partner("DELETE", _QUEUE, path={"queue_name": queue_name})


class Rotation:
    """New keys and secrets. Documented, but today answered with 503 `service_unavailable`, an `ApiError` here."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    async def tenant_key(self) -> RotatedTenantKey:
        """A new tenant key; the old one is good for a day more. It is not used before `replace_tenant_key`."""
        template = "/v1/auth/tenant-key/rotate"
        reply = await self._calls.as_partner("POST", template, final=_NOT_YET)
        return self._calls.data(f"POST {template}", reply, RotatedTenantKey)

    async def signing_secret(self, secret: str | None = None) -> RotatedSigningSecret:
        """A new signing secret: the given one, at least 32 bytes in hex or base64, or one the platform makes.

        Raises `ValueError` for one that is neither. What its field is called is not published: `signing_secret` here.
        """
        template = "/v1/auth/signing-secret/rotate"
        if secret is not None and not _strong(secret):
            raise ValueError(f"secret: expected at least {_LEAST_SECRET_BYTES} bytes in hex or base64")
        body = None if secret is None else {"signing_secret": secret}
        reply = await self._calls.as_partner("POST", template, json=body, final=_NOT_YET)
        return self._calls.data(f"POST {template}", reply, RotatedSigningSecret)


def _strong(secret: str) -> bool:
    try:
        return len(bytes.fromhex(secret)) >= _LEAST_SECRET_BYTES
    except ValueError:
        pass
    try:
        return len(base64.b64decode(secret, validate=True)) >= _LEAST_SECRET_BYTES
    except (binascii.Error, ValueError):
        return False
