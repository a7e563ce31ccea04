"""The `sqs` kind: an Amazon SQS queue, standard or FIFO, through aioboto3.

Credentials come the way boto3's users expect, and are renewed by it where their provider can. Facts about SQS are
from its API reference and developer guide.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from consumer import __version__
from consumer.errors import SettingsError, SourceError, SourceRefused, SourceUnavailable
from consumer.sources.base import Capabilities, Depth, Finding, Message, Outgoing, SettleFailure
from consumer.sources.sqs_attempts import Attempts
from consumer.sources.sqs_check import describe
from consumer.sources.sqs_errors import NONSENSE_CODES, code_of, fate_of_entry, is_denied, trouble
from consumer.sources.sqs_messages import REDRIVEN_FROM, Facts, batches, entry, to_message
from consumer.sources.sqs_sending import send_batch

if TYPE_CHECKING:
    from consumer.settings import SourceSettings

__all__ = ["SqsSource", "endpoint_of", "region_of"]

_BATCH: Final = 10
_LONGEST_FLIGHT: Final = 12 * 3600.0
_FLIGHT_MARGIN: Final = 1800.0
"""A message may be in flight for 12 hours from its receive; the time it was held before a release counts."""
_MOST_RECEIVES: Final = 64
_FEWEST_SETTLES: Final = 4
_MOST_SETTLES: Final = 32
_SPARE_CONNECTIONS: Final = 4
_HANDOUT_SLACK: Final = 1.0
_RECEIVES_PER_ATTEMPT: Final = 5
"""How many receives the crash guard allows an event for each of its attempts."""

_EMPTY_REPLY: Final = 64
"""Bytes that a reply without messages has at most: `{}` from SQS, a little more from emulators."""

_IDS: Final = tuple(str(number) for number in range(_BATCH))
_NOT_A_HANDLE: Final = "health-event-consumer-check"
# All that is used here. Who sent a message, for one, is not asked for.
_SYSTEM_ATTRIBUTES: Final = ["SentTimestamp", "ApproximateReceiveCount", "MessageGroupId", "AWSTraceHeader"]
_COUNTERS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_REGION: Final = re.compile(
    r"(?:^|\.)sqs(?:-fips)?\.([a-z]{2,}(?:-[a-z]+)+-\d+)\.|^([a-z]{2,}(?:-[a-z]+)+-\d+)\.queue\.amazonaws\."
)
_AWS_HOST: Final = re.compile(r"(?:sqs(?:-fips)?\.[a-z0-9-]+|[a-z0-9-]+\.queue|queue)\.amazonaws\.com(?:\.cn)?")


def region_of(queue_url: str) -> str | None:
    """The region that a queue's URL names; None if it names none, as an emulator's."""
    found = _REGION.search(urlsplit(queue_url).hostname or "")
    return (found.group(1) or found.group(2)) if found else None


def endpoint_of(queue_url: str) -> str | None:
    """Where to reach a queue that is not at AWS's public endpoints: its URL without the path; None if it is."""
    parts = urlsplit(queue_url)
    if not parts.hostname or _AWS_HOST.fullmatch(parts.hostname):
        return None
    return f"{parts.scheme}://{parts.netloc}"


class SqsSource:
    """One SQS queue; satisfies `consumer.sources.base.Source`.

    `settings` are the source's, resolved: `queue_url`, `region`, `endpoint_url`, `poll_wait`, `visibility_timeout`,
    `max_in_flight` and `max_attempts` matter here. `call_limit` is how many seconds any call but a receive may take,
    retries included; `poll_grace` how many a receive may take beyond its wait, before its connection counts as dead.
    With `redriven` each message that a redrive policy moved here says from where: see `sqs_messages.origin`.
    """

    kind = "sqs"

    def __init__(
        self, settings: SourceSettings, *, call_limit: float = 10.0, poll_grace: float = 10.0, redriven: bool = False
    ) -> None:
        self.name = settings.name
        self._call_limit = call_limit
        self._poll_grace = poll_grace
        self._url = settings.queue_url or ""
        if not self._url.startswith(("https://", "http://")):
            raise SettingsError(f"sources.{self.name}.queue_url: expected the queue's URL, https://...")
        self._settings = settings
        self._visibility = math.ceil(settings.visibility_timeout)
        self._wait = max(1, int(settings.poll_wait)) if settings.poll_wait else 0
        self._asked = [*_SYSTEM_ATTRIBUTES, REDRIVEN_FROM] if redriven else _SYSTEM_ATTRIBUTES
        self._facts = Facts()
        self._client: Any = None
        self._stack = contextlib.AsyncExitStack()
        self._interrupted = False
        self._attempts = Attempts()
        receives = min(_MOST_RECEIVES, math.ceil(settings.max_in_flight / _BATCH))
        self._capabilities = Capabilities(
            receive_batch=_BATCH,
            settle_batch=_BATCH,
            max_delay=_LONGEST_FLIGHT - _FLIGHT_MARGIN,
            poll_wait=float(self._wait),
            max_receives=receives,
            max_settles=min(_MOST_SETTLES, max(_FEWEST_SETTLES, receives)),
        )

    @property
    def capabilities(self) -> Capabilities:
        """What SQS can do: tens, long polls, leases and delays of up to 12 hours."""
        return self._capabilities

    @property
    def facts(self) -> Facts:
        """What the queue's attributes said when they were last read."""
        return self._facts

    async def open(self) -> None:
        """Connect, and read retention, order and redrive policy.

        Credentials that may not read the queue's attributes are enough to consume: then the defaults of SQS are
        taken, and `check` says so. Raises SettingsError too: aioboto3 is not installed, or the region is not known.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                self._client = await stack.enter_async_context(self._new_client())
            except SettingsError:
                raise
            except Exception as error:  # noqa: BLE001 - boto raises what it likes; the protocol knows two errors
                raise trouble(self.name, "client", error) from None
            stack.callback(self._forget_client)
            self._facts = await self._read_facts()
            self._capabilities = replace(self._capabilities, largest_message=self._facts.largest_message)
            self._stack = stack.pop_all()

    def _forget_client(self) -> None:
        self._client = None

    def _new_client(self) -> Any:
        try:
            aioboto3, config = import_module("aioboto3"), import_module("aiobotocore.config")
        except ImportError:
            raise SettingsError(f"source {self.name} is sqs: pip install 'health-event-consumer[sqs]'") from None
        can = self._capabilities
        session = import_module("aiobotocore.session").get_session()
        session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
        return aioboto3.Session(botocore_session=session).client(
            "sqs",
            region_name=self._settings.region or region_of(self._url),
            endpoint_url=self._settings.endpoint_url or endpoint_of(self._url),
            config=config.AioConfig(
                # Given whole, or botocore builds it anew, twice, for every call: 13 % of a call's CPU.
                user_agent=f"health-event-consumer/{__version__}",
                parameter_validation=False,
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=3,
                read_timeout=self._wait + self._poll_grace,
                # Boto's ten would let acknowledgements wait behind long polls.
                max_pool_connections=can.max_receives + can.max_settles + _SPARE_CONNECTIONS,
            ),
        )

    @property
    def _sqs(self) -> Any:
        if self._client is None:
            # A client that was closed would open connections that nobody closes.
            raise SourceUnavailable(f"source {self.name} is not open")
        return self._client

    async def _read_facts(self) -> Facts:
        method = self._sqs.get_queue_attributes
        try:
            reply = await self._ask(self._call_limit, method, AttributeNames=["All"])
        except Exception as error:  # noqa: BLE001 - see open
            if is_denied(code_of(error)):
                return Facts(denied=True, fifo=self._url.endswith(".fifo"))
            raise trouble(self.name, "GetQueueAttributes", error) from None
        return Facts.read(self._attributes(reply))

    def _attributes(self, reply: Mapping[str, Any]) -> Mapping[str, str]:
        attributes: Mapping[str, str] | None = reply.get("Attributes")
        if not attributes:
            raise self._foreign("GetQueueAttributes")
        return attributes

    def _foreign(self, operation: str) -> SourceUnavailable:
        """Botocore takes any text with status 200, a proxy's page too, for a reply without content."""
        return SourceUnavailable(f"source {self.name}: the reply to {operation} is not one of SQS")

    async def _ask(self, limit: float, method: Callable[..., Awaitable[Any]], **parameters: Any) -> Any:
        async with asyncio.timeout(limit):
            return await method(QueueUrl=self._url, **parameters)

    async def _call(
        self,
        operation: str,
        method: Callable[..., Awaitable[Any]],
        *,
        limit: float | None = None,
        **parameters: Any,
    ) -> Any:
        try:
            return await self._ask(self._call_limit if limit is None else limit, method, **parameters)
        except Exception as error:  # noqa: BLE001 - see open
            raise trouble(self.name, operation, error) from None

    async def receive(self, limit: int) -> list[Message]:
        """Wait for messages and return up to `limit`, at most ten.

        `lease_until` counts from one second before the reply came, or from the request if that is later: the
        service hands out while a poll waits, and does not say when. A reply that came later than any wait explains
        counts from the request: this process, or the network, stood still meanwhile.
        """
        wait = 0 if self._interrupted else self._wait
        attempt = self._attempts.begin(min(_BATCH, limit)) if self._facts.fifo else None
        parameters: dict[str, Any] = {"ReceiveRequestAttemptId": attempt.id} if attempt else {}
        sent = time.monotonic()
        try:
            reply = await self._call(
                "ReceiveMessage",
                self._sqs.receive_message,
                limit=wait + self._poll_grace,
                MaxNumberOfMessages=attempt.limit if attempt else min(_BATCH, limit),
                WaitTimeSeconds=wait,
                VisibilityTimeout=self._visibility,
                MessageSystemAttributeNames=self._asked,
                MessageAttributeNames=["All"],
                **parameters,
            )
        except SourceUnavailable:
            if attempt:
                self._attempts.failed(attempt)
            raise
        raw = reply.get("Messages")
        if not raw:
            if _length(reply) > _EMPTY_REPLY:
                raise self._foreign("ReceiveMessage")
            return []
        received = time.monotonic()
        late = received - sent > wait + _HANDOUT_SLACK
        lease_until = self._visibility + (sent if late else max(sent, received - _HANDOUT_SLACK))
        facts = self._facts
        return [to_message(one, lease_until=lease_until, facts=facts) for one in raw]

    def interrupt(self) -> None:
        """Let later receives not wait. A poll under way is left alone: cancelled, it would swallow messages."""
        self._interrupted = True

    async def acknowledge(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Delete messages, at most ten."""
        entries = [{"Id": _IDS[i], "ReceiptHandle": message.receipt} for i, message in enumerate(messages)]
        reply = await self._call("DeleteMessage", self._sqs.delete_message_batch, Entries=entries)
        return _failures(messages, reply)

    async def extend(self, messages: Sequence[Message]) -> list[SettleFailure]:
        """Renew the leases of at most ten messages. Beyond 12 hours in flight SQS refuses; that lease is `gone`."""
        asked = time.monotonic()
        failures = await self._change_visibility(messages, self._visibility)
        failed = {id(failure.message) for failure in failures}
        for message in messages:
            if id(message) not in failed:
                message.lease_until = asked + self._visibility
        return failures

    async def release(self, messages: Sequence[Message], delay: float) -> list[SettleFailure]:
        """Give back at most ten messages, to be seen again after `delay` seconds, rounded up."""
        return await self._change_visibility(messages, math.ceil(min(max(delay, 0.0), self._capabilities.max_delay)))

    async def _change_visibility(self, messages: Sequence[Message], seconds: int) -> list[SettleFailure]:
        entries = [
            {"Id": _IDS[i], "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
            for i, message in enumerate(messages)
        ]
        method = self._sqs.change_message_visibility_batch
        reply = await self._call("ChangeMessageVisibility", method, Entries=entries)
        return _failures(messages, reply)

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Put messages on the queue, in order. FIFO: without ids of their own they get a fresh one and one group."""
        entries = [entry(message, name=self.name, fifo=self._facts.fifo) for message in messages]
        for batch in batches(entries):
            errors = [answer for answer in await self._send_batch(batch) if answer is not None]
            if errors:
                raise errors[0]

    async def send_each(self, messages: Sequence[Outgoing]) -> list[SourceError | None]:
        """Put messages on the queue and say of each whether it is there; one that is refused keeps back no other."""
        entries = [entry(message, name=self.name, fifo=self._facts.fifo) for message in messages]
        answers: list[SourceError | None] = []
        try:
            for batch in batches(entries):
                answers += await self._send_batch(batch)
        except SourceError as error:
            # It is about the call, so the rest would only meet the same.
            answers += [error] * (len(entries) - len(answers))
        return answers

    async def _send_batch(self, batch: Sequence[dict[str, Any]]) -> list[SourceError | None]:
        method = self._sqs.send_message_batch
        return await send_batch(
            batch, name=self.name, call=lambda numbered: self._call("SendMessage", method, Entries=numbered)
        )

    async def depth(self) -> Depth:
        """The queue's three approximate counters; they lag behind by up to a minute."""
        method = self._sqs.get_queue_attributes
        reply = await self._call("GetQueueAttributes", method, AttributeNames=list(_COUNTERS))
        attributes = self._attributes(reply)
        return Depth(*(int(attributes.get(counter, 0)) for counter in _COUNTERS))

    async def check(self) -> list[Finding]:
        """Reachability, permissions and the queue's settings. Nothing is received: that would count a receive."""
        try:
            self._facts = await self._read_facts()
        except (SourceRefused, SourceUnavailable) as error:
            return [Finding("queue", ok=False, detail=str(error))]
        one = {"Id": _IDS[0], "ReceiptHandle": _NOT_A_HANDLE}
        delete, change = self._sqs.delete_message_batch, self._sqs.change_message_visibility_batch
        return [
            *describe(self._facts, most_receives=_RECEIVES_PER_ATTEMPT * self._settings.max_attempts),
            await self._permission("ReceiveMessage", self._sqs.receive_message, MaxNumberOfMessages=0),
            await self._permission("DeleteMessage", delete, Entries=[one]),
            await self._permission("ChangeMessageVisibility", change, Entries=[{**one, "VisibilityTimeout": 0}]),
        ]

    async def check_sending(self) -> list[Finding]:
        """Whether messages could be sent; none is."""
        return [await self._permission("SendMessage", self._sqs.send_message_batch, Entries=[])]

    async def _permission(self, operation: str, method: Callable[..., Awaitable[Any]], **nonsense: Any) -> Finding:
        """Make a call that cannot be carried out as it is: who may not make it at all is told so first."""
        name = f"sqs:{operation}"
        try:
            reply = await self._ask(self._call_limit, method, **nonsense)
        except Exception as error:  # noqa: BLE001 - see open
            if code_of(error) in NONSENSE_CODES:
                return Finding(name, ok=True, detail="allowed")
            return Finding(name, ok=False, detail=str(trouble(self.name, operation, error)))
        denied = any(is_denied(str(one.get("Code", ""))) for one in reply.get("Failed") or ())
        return Finding(name, ok=not denied, detail="access denied" if denied else "allowed")

    async def close(self) -> None:
        """Close the connections. Messages still held come back when their leases end."""
        with contextlib.suppress(Exception):
            await self._stack.aclose()


@functools.cache
def _descriptions(data_path: str | None) -> Any:
    """Botocore's descriptions of the service: read once, since every session would take 50 ms to parse them again."""
    return import_module("botocore.loaders").create_loader(data_path)


def _length(reply: Mapping[str, Any]) -> int:
    headers = (reply.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    return int(headers.get("content-length") or 0)


def _failures(messages: Sequence[Message], reply: Mapping[str, Any]) -> list[SettleFailure]:
    """Which messages a batch did not settle: what the reply does not call successful is not."""
    done, failed = reply.get("Successful") or (), reply.get("Failed") or ()
    if len(done) == len(messages) and not failed:
        return []
    settled = {one["Id"] for one in done}
    reported = {one["Id"]: one for one in failed}
    return [
        _failure(message, reported.get(_IDS[i]))
        for i, message in enumerate(messages)
        if _IDS[i] not in settled or _IDS[i] in reported
    ]


def _failure(message: Message, reported: Mapping[str, Any] | None) -> SettleFailure:
    if reported is None:
        return SettleFailure(message, "again", "NotInReply")
    code = str(reported.get("Code", ""))
    return SettleFailure(message, fate_of_entry(code, sender_fault=bool(reported.get("SenderFault", True))), code)
