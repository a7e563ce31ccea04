"""The `storage_queue` kind: an Azure Storage Queue, through azure-storage-queue.

The service has no long poll, settles one message a call, and keeps no order. Facts about it are from its REST
reference; those about the SDK are from its source, release 12.18.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from consumer import __version__
from consumer.durations import parse_duration
from consumer.errors import SettingsError, SourceError, SourceRefused, SourceUnavailable
from consumer.sources.azure_credentials import azure_credential, missing_extra, quieten_azure
from consumer.sources.base import Capabilities, Depth, Finding, Message, Outgoing, SettleFailure
from consumer.sources.storage_queue_check import describe, message_limit, oldest
from consumer.sources.storage_queue_errors import (
    NOT_FOUND,
    RECEIPT_CODES,
    code_of,
    is_denied,
    status_of,
    trouble,
    unread_reply,
)
from consumer.sources.storage_queue_messages import LONGEST_DELAY, LONGEST_MESSAGE, entry, to_message
from consumer.sources.storage_queue_pages import read_page

if TYPE_CHECKING:
    from consumer.settings import SourceSettings

__all__ = ["StorageQueueSource"]

_PAGE: Final = 32
"""The most messages one Get Messages or Peek Messages returns."""
_MOST_RECEIVES: Final = 8
_CALLS: Final = 32
_RENEWALS: Final = 16
"""Settling calls under way at once, one for a message; renewals have their own, never behind deletions that hang.
With the receives they stay below the 100 connections that aiohttp opens. More than 32 gained nothing where a call
takes no time, and 32 carry 1,600 calls a second where it takes 20 ms: more than one core can ask for."""
_DELAY_MARGIN: Final = 3600.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
"""Between two looks at an empty queue: what a message waits for at most, against two million calls a month."""
_BAD_REQUEST: Final = 400
_MISSING: Final = 404
_NEVER: Final = "never"

_RETRIES: Final = {"retry_total": 2, "initial_backoff": 0, "increment_base": 1, "random_jitter_range": 0.5}
"""Two repetitions, each after half a second to one and a half. The SDK's own take 85 s to notice a refused port."""


class StorageQueueSource:
    """One Storage Queue; satisfies `consumer.sources.base.Source`.

    `settings` are the source's, resolved: `connection_string` or `account_url`, `queue`, `poll_wait`,
    `visibility_timeout` and `max_in_flight` matter here, and of `options`, `ttl`: how long messages that are sent
    live, a duration or `never`; 7 days if it is not set. `call_limit` is how many seconds any call may take,
    repetitions included.
    """

    kind = "storage_queue"

    def __init__(self, settings: SourceSettings, *, call_limit: float = 10.0) -> None:
        self.name = settings.name
        self._settings = settings
        self._call_limit = call_limit
        self._visibility = math.ceil(settings.visibility_timeout)
        if self._visibility > LONGEST_DELAY:
            raise SettingsError(f"sources.{self.name}.visibility_timeout: Storage Queue has 7 days at most")
        self._ttl = _time_to_live(self.name, settings.options.get("ttl"))
        self._client: Any = None
        self._stack = contextlib.AsyncExitStack()
        self._interrupted = asyncio.Event()
        self._pause = _FIRST_PAUSE
        self._waiting_since: datetime | None = None
        self._settling = asyncio.Semaphore(_CALLS)
        self._renewing = asyncio.Semaphore(_RENEWALS)
        self._capabilities = Capabilities(
            receive_batch=_PAGE,
            settle_batch=_PAGE,
            max_delay=LONGEST_DELAY - _DELAY_MARGIN,
            poll_wait=settings.poll_wait,
            max_receives=min(_MOST_RECEIVES, math.ceil(settings.max_in_flight / _PAGE)),
            largest_message=LONGEST_MESSAGE,
        )

    @property
    def capabilities(self) -> Capabilities:
        """What Storage Queue can do: 32 a receive, leases and delays of up to 7 days, no order."""
        return self._capabilities

    async def open(self) -> None:
        """Connect, and see that the queue is there, as far as the credentials may.

        Raises SettingsError too: the SDK is not installed, or takes the settings for wrong.
        """
        async with contextlib.AsyncExitStack() as stack:
            client = await self._new_client(stack)
            await stack.enter_async_context(client)
            self._client = client
            stack.callback(self._forget_client)
            await self._count()
            self._stack = stack.pop_all()

    def _forget_client(self) -> None:
        self._client = None

    async def _new_client(self, stack: contextlib.AsyncExitStack) -> Any:
        try:
            sdk = import_module("azure.storage.queue.aio")
            import_module("aiohttp")
        except ImportError:
            raise missing_extra(self.name, self.kind) from None
        quieten_azure()
        settings = self._settings
        options = {
            **_RETRIES,
            "connection_timeout": 3,
            "read_timeout": self._call_limit,
            "user_agent": f"health-event-consumer/{__version__}",
        }
        if settings.connection_string is None:
            if (settings.account_url or "").startswith("http:"):
                raise SettingsError(f"sources.{self.name}.account_url: expected https://, since it carries a token")
            credential = await stack.enter_async_context(azure_credential(name=self.name, kind=self.kind))
            return sdk.QueueClient(settings.account_url, settings.queue, credential, **options)
        string = settings.connection_string.get_secret_value()
        try:
            return sdk.QueueClient.from_connection_string(string, settings.queue, **options)
        except ValueError:
            raise SettingsError(
                f"sources.{self.name}.connection_string: expected a connection string of a storage account"
            ) from None

    @property
    def _queue(self) -> Any:
        if self._client is None:
            # The SDK would open a closed client's connections again, and nobody would close those.
            raise SourceUnavailable(f"source {self.name} is not open")
        return self._client

    async def _ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(self._call_limit):
            return await call()

    async def _call(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await self._ask(call)
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the protocol knows two errors
            raise trouble(self.name, operation, error) from None

    async def _count(self) -> int | None:
        """About how many messages the queue holds; None if the credentials may not know."""
        try:
            properties = await self._ask(self._queue.get_queue_properties)
        except Exception as error:  # noqa: BLE001 - see _call
            if is_denied(error):
                return None
            raise trouble(self.name, "Get Queue Metadata", error) from None
        return int(properties.approximate_message_count or 0)

    # Receiving

    async def receive(self, limit: int) -> list[Message]:
        """Wait for messages and return up to `limit`, at most 32.

        The service answers at once, so the waiting is ours: looks at the queue with pauses between them that double
        while it stays empty, from a tenth of a second to two, less a random part so that workers do not look in step.
        """
        until = time.monotonic() + self._capabilities.poll_wait
        while True:
            asked = time.monotonic()
            page = await self._call("Get Messages", lambda: self._page(min(_PAGE, limit)))
            if page:
                self._pause = _FIRST_PAUSE
                return [to_message(one, lease_until=asked + self._visibility) for one in page]
            pause = min(self._pause * random.uniform(0.5, 1.0), until - time.monotonic())  # noqa: S311 - no secret
            if pause <= 0 or self._interrupted.is_set():
                return []
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._interrupted.wait(), pause)

    async def _page(self, limit: int) -> Sequence[Any]:
        # The SDK's iterator over messages would go on asking until the queue is empty; one of its pages is one call.
        pages = self._queue.receive_messages(messages_per_page=limit, visibility_timeout=self._visibility).by_page()
        try:
            async for page in pages:
                return [one async for one in page]
        except Exception as error:
            text = unread_reply(error)
            salvaged = None if text is None else read_page(text)
            if salvaged is None:
                raise
            return salvaged
        return []

    def interrupt(self) -> None:
        """Let receives look once and not wait. A call under way is left alone: cancelled, it would swallow messages."""
        self._interrupted.set()

    # Settling

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Delete messages.

        One that does not exist any more counts as deleted: the SDK repeats a call whose answer was lost, and cannot
        tell that the first one did it.
        """
        return await self._each("Delete Message", messages, self._delete, self._settling)

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew the leases of messages. A renewal whose answer is lost loses the lease: only it held the receipt."""
        return await self._each("Update Message", messages, self._renew, self._renewing)

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Give messages back, to be seen again after `delay` seconds, rounded up."""
        seconds = math.ceil(min(max(delay, 0.0), self._capabilities.max_delay))

        async def hide(message: Message) -> None:
            await self._update(message, seconds)

        return await self._each("Update Message", messages, hide, self._settling)

    async def _delete(self, message: Message) -> None:
        try:
            await self._queue.delete_message(message.receipt.message_id, message.receipt.pop_receipt)
        except Exception as error:
            if code_of(error) != NOT_FOUND:
                raise

    async def _renew(self, message: Message) -> None:
        asked = time.monotonic()
        await self._update(message, self._visibility)
        message.lease_until = asked + self._visibility

    async def _update(self, message: Message, seconds: int) -> None:
        receipt = message.receipt
        # Without a visibility timeout the SDK would send 0; with content, the whole message again.
        renewed = await self._queue.update_message(receipt.message_id, receipt.pop_receipt, visibility_timeout=seconds)
        receipt.pop_receipt = renewed.pop_receipt

    async def _each(
        self,
        operation: str,
        messages: Sequence[Message],
        settle: Callable[[Message], Awaitable[None]],
        slots: asyncio.Semaphore,
    ) -> list[SettleFailure]:
        """Settle messages in a call each, together; raise if every one failed for a reason that is not its own."""

        async def one(message: Message) -> SettleFailure | SourceError | None:
            try:
                async with slots:
                    await self._ask(lambda: settle(message))
            except Exception as error:  # noqa: BLE001 - see _call
                code = code_of(error)
                if code in RECEIPT_CODES:
                    return SettleFailure(message, "gone", code)
                return trouble(self.name, operation, error)
            return None

        outcomes = await asyncio.gather(*map(one, messages))
        errors = [outcome for outcome in outcomes if isinstance(outcome, SourceError)]
        if errors and len(errors) == len(messages):
            raise errors[0]
        return [
            SettleFailure(message, "again", str(outcome)) if isinstance(outcome, SourceError) else outcome
            for message, outcome in zip(messages, outcomes, strict=True)
            if outcome is not None
        ]

    # The rest

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Put messages on the queue, several at once: the queue keeps no order. Headers are left out, it has none."""
        entries = [entry(message, name=self.name) for message in messages]

        async def put(one: dict[str, Any]) -> None:
            await self._call("Put Message", lambda: self._queue.send_message(**one, time_to_live=self._ttl))

        for start in range(0, len(entries), _CALLS):
            # Every one is answered before any error is raised: none is left to end by itself.
            for result in await asyncio.gather(*map(put, entries[start : start + _CALLS]), return_exceptions=True):
                if result is not None:
                    raise result

    async def depth(self) -> Depth:
        """How many messages there are, and how many of them are visible, as far as 32 peeked ones tell.

        The service counts both together; with 32 or more visible, all that it counts pass for visible.
        """
        messages = await self._call("Peek Messages", lambda: self._queue.peek_messages(max_messages=_PAGE))
        self._waiting_since = min((one.inserted_on for one in messages if one.inserted_on is not None), default=None)
        peeked = len(messages)
        count = await self._count()
        if count is None:
            return Depth(peeked)
        return Depth(count) if peeked >= _PAGE else Depth(peeked, max(0, count - peeked))

    def waiting_since(self) -> datetime | None:
        """When the oldest of the messages that `depth` peeked at was put there; hidden ones are not among them."""
        return self._waiting_since

    async def check(self) -> list[Finding]:
        """Reachability, permissions, and how long messages wait. Nothing is received: that would count a receive."""
        try:
            count = await self._count()
        except (SourceRefused, SourceUnavailable) as error:
            return [Finding("queue", ok=False, detail=str(error))]
        queue, nobody = self._queue, "00000000-0000-0000-0000-000000000000"
        found = (
            Finding("queue", ok=False, warning=True, detail="may not Get Queue Metadata: its length is not known")
            if count is None
            else describe(count)
        )
        # Calls that the service refuses for what they ask, unless it refuses them for who asks.
        return [
            found,
            await self._oldest(),
            await self._permission("Get Messages", lambda: self._page(0)),
            await self._permission(
                "Update Message", lambda: queue.update_message(nobody, nobody, visibility_timeout=0)
            ),
            await self._permission("Delete Message", lambda: queue.delete_message(nobody, nobody)),
            message_limit(LONGEST_MESSAGE),
        ]

    async def check_sending(self) -> list[Finding]:
        """Whether messages could be sent; none is, since none can become visible before it is sent."""
        return [await self._permission("Put Message", lambda: self._queue.send_message("", visibility_timeout=-1))]

    async def _oldest(self) -> Finding:
        try:
            peeked = await self._call("Peek Messages", lambda: self._queue.peek_messages(max_messages=1))
        except (SourceRefused, SourceUnavailable) as error:
            return Finding("oldest", ok=False, warning=True, detail=str(error))
        first = to_message(peeked[0], lease_until=math.inf) if peeked else None
        return oldest(first, now=datetime.now(UTC))

    async def _permission(self, operation: str, call: Callable[[], Awaitable[Any]]) -> Finding:
        try:
            await self._ask(call)
        except Exception as error:  # noqa: BLE001 - see _call
            if status_of(error) not in {_BAD_REQUEST, _MISSING}:
                return Finding(operation, ok=False, detail=str(trouble(self.name, operation, error)))
        return Finding(operation, ok=True, detail="allowed")

    async def close(self) -> None:
        """Close the connections. Messages still held come back when their leases end."""
        with contextlib.suppress(Exception):
            await self._stack.aclose()


def _time_to_live(name: str, text: str | None) -> int | None:
    """As the SDK wants it: seconds, -1 for ever, None for the service's 7 days. Raises SettingsError."""
    if text is None or text == _NEVER:
        return None if text is None else -1
    try:
        seconds = math.ceil(parse_duration(text))
    except ValueError as error:
        raise SettingsError(f"sources.{name}.options.ttl: {error}, or {_NEVER}") from None
    if not seconds:
        raise SettingsError(f"sources.{name}.options.ttl: expected more than 0, or {_NEVER}")
    return seconds
