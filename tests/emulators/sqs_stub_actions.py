"""The actions of SQS on a set of queues: parameters in, results out, as the JSON protocol spells them. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.emulators.sqs_stub_messages import Stored
from tests.emulators.sqs_stub_queue import MAX_VISIBILITY, Queue, StubError

__all__ = ["ACCOUNT", "BATCH", "REGION", "Service", "no_queue"]

ACCOUNT = "000000000000"
REGION = "us-east-1"
BATCH = 10
"""The most messages one call can carry."""

_BATCH_BYTES = 1_048_576
_ENTRY_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

Payload = dict[str, Any]
Partial = Callable[[int], StubError | None]


def no_queue() -> StubError:
    """The error for a queue that does not exist."""
    return StubError(
        "QueueDoesNotExist",
        "The specified queue does not exist.",
        query="AWS.SimpleQueueService.NonExistentQueue",
    )


def _number(payload: Payload, name: str, low: int, high: int, default: int | None) -> int | None:
    value = payload.get(name, default)
    if value is not None and not (isinstance(value, int) and low <= value <= high):
        raise StubError("InvalidParameterValue", f"Value for parameter {name} is invalid. Must be {low} to {high}.")
    return value


def _names(payload: Payload, *keys: str) -> list[str]:
    return [name for key in keys for name in payload.get(key) or ()]


def _entries(payload: Payload) -> list[Payload]:
    entries: list[Payload] = payload.get("Entries") or []
    ids = [entry.get("Id", "") for entry in entries]
    prefix = "AWS.SimpleQueueService."
    if not entries:
        raise StubError("EmptyBatchRequest", query=prefix + "EmptyBatchRequest")
    if len(entries) > BATCH:
        raise StubError("TooManyEntriesInBatchRequest", query=prefix + "TooManyEntriesInBatchRequest")
    if not all(isinstance(one, str) and _ENTRY_ID.fullmatch(one) for one in ids):
        raise StubError("InvalidBatchEntryId", query=prefix + "InvalidBatchEntryId")
    if len(set(ids)) != len(ids):
        raise StubError("BatchEntryIdsNotDistinct", query=prefix + "BatchEntryIdsNotDistinct")
    return entries


def _batch(payload: Payload, run: Callable[[Payload], Payload], partial: Partial | None) -> Payload:
    done: list[Payload] = []
    failed: list[Payload] = []
    for position, entry in enumerate(_entries(payload)):
        try:
            error = partial(position) if partial is not None else None
            if error is not None:
                raise error
            done.append({"Id": entry["Id"], **run(entry)})
        except StubError as fault:
            failed.append(
                {"Id": entry["Id"], "Code": fault.code, "Message": fault.message, "SenderFault": fault.sender}
            )
    return {"Successful": done, "Failed": failed} if failed else {"Successful": done}


class Service:
    """Every queue of one region, and what the actions do to them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.base_url = ""
        self.queues: dict[str, Queue] = {}
        self._actions: dict[str, Callable[[Payload, Partial | None], Payload]] = {
            "createqueue": self._create_queue,
            "getqueueurl": self._get_queue_url,
            "listqueues": self._list_queues,
            "deletequeue": self._delete_queue,
            "purgequeue": self._purge_queue,
            "getqueueattributes": self._get_attributes,
            "setqueueattributes": self._set_attributes,
            "sendmessage": self._send_message,
            "sendmessagebatch": self._send_batch,
            "deletemessage": self._delete_message,
            "deletemessagebatch": self._delete_batch,
            "changemessagevisibility": self._change_visibility,
            "changemessagevisibilitybatch": self._change_batch,
        }

    def perform(self, action: str, payload: Payload, partial: Partial | None = None) -> Payload:
        """Run any action but ReceiveMessage; `action` in lower case. Raises StubError."""
        try:
            run = self._actions[action]
        except KeyError:
            raise StubError("UnknownOperationException", action) from None
        return run(payload, partial)

    def queue(self, payload: Payload) -> Queue:
        """The queue a request names by its URL; raises StubError if there is none."""
        url = payload.get("QueueUrl") or ""
        queue = self.queues.get(urlsplit(url).path.rpartition("/")[2])
        if queue is None:
            raise no_queue()
        return queue

    def url(self, name: str) -> str:
        """The URL of a queue."""
        return f"{self.base_url}/{ACCOUNT}/{name}"

    def create(self, name: str, attributes: Mapping[str, str] | None = None) -> Queue:
        """Make a queue; a name that ends in .fifo makes a FIFO queue."""
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        queue = Queue(name, arn=arn, attributes=attributes, now=self.clock(), dead_letters=self._by_arn)
        self.queues[name] = queue
        return queue

    def _by_arn(self, arn: str) -> Queue | None:
        return self.queues.get(arn.rpartition(":")[2])

    def _create_queue(self, payload: Payload, _: Partial | None) -> Payload:
        name, attributes = payload["QueueName"], payload.get("Attributes") or {}
        found = self.queues.get(name)
        if name.endswith(".fifo") != (attributes.get("FifoQueue", "false") == "true"):
            raise StubError("InvalidParameterValue", "A FIFO queue's name ends in .fifo, and FifoQueue is true.")
        if found and any(found.attributes.get(key) != value for key, value in attributes.items()):
            raise StubError("QueueNameExists", "A queue already exists with the same name and a different attribute.")
        if not found:
            self.create(name, attributes)
        return {"QueueUrl": self.url(name)}

    def _get_queue_url(self, payload: Payload, _: Partial | None) -> Payload:
        if payload["QueueName"] not in self.queues:
            raise no_queue()
        return {"QueueUrl": self.url(payload["QueueName"])}

    def _list_queues(self, payload: Payload, _: Partial | None) -> Payload:
        prefix = payload.get("QueueNamePrefix") or ""
        return {"QueueUrls": [self.url(name) for name in self.queues if name.startswith(prefix)]}

    def _delete_queue(self, payload: Payload, _: Partial | None) -> Payload:
        del self.queues[self.queue(payload).name]
        return {}

    def _purge_queue(self, payload: Payload, _: Partial | None) -> Payload:
        self.queue(payload).purge()
        return {}

    def _get_attributes(self, payload: Payload, _: Partial | None) -> Payload:
        values = self.queue(payload).described(self.clock())
        wanted = set(_names(payload, "AttributeNames"))
        return {"Attributes": {key: value for key, value in values.items() if "All" in wanted or key in wanted}}

    def _set_attributes(self, payload: Payload, _: Partial | None) -> Payload:
        self.queue(payload).configure(payload.get("Attributes") or {})
        return {}

    def _send(self, queue: Queue, entry: Payload) -> Payload:
        body = entry.get("MessageBody")
        if not isinstance(body, str) or not body:
            raise StubError("MissingParameter", "The request must contain the parameter MessageBody.")
        if _FORBIDDEN.search(body):
            raise StubError("InvalidMessageContents", "The message contains characters outside the allowed set.")
        if _size(entry) > queue.max_size:
            raise StubError("InvalidParameterValue", "One or more parameters are invalid: message too long.")
        delay = _number(entry, "DelaySeconds", 0, 900, None)
        if queue.fifo and delay:
            raise StubError("InvalidParameterValue", "DelaySeconds is invalid for a FIFO queue's message.")
        trace = (entry.get("MessageSystemAttributes") or {}).get("AWSTraceHeader")
        message = queue.send(
            body,
            now=self.clock(),
            attributes=entry.get("MessageAttributes"),
            system={"AWSTraceHeader": trace["StringValue"]} if trace else None,
            group=entry.get("MessageGroupId"),
            deduplication_id=entry.get("MessageDeduplicationId"),
            delay=delay,
        )
        result: Payload = {"MessageId": message.id, "MD5OfMessageBody": message.md5}
        return {**result, "SequenceNumber": f"{message.sequence:020d}"} if queue.fifo else result

    def _send_message(self, payload: Payload, _: Partial | None) -> Payload:
        return self._send(self.queue(payload), payload)

    def _send_batch(self, payload: Payload, partial: Partial | None) -> Payload:
        queue = self.queue(payload)
        if sum(map(_size, payload.get("Entries") or ())) > _BATCH_BYTES:
            raise StubError("BatchRequestTooLong", query="AWS.SimpleQueueService.BatchRequestTooLong")
        return _batch(payload, lambda entry: self._send(queue, entry), partial)

    def _delete_message(self, payload: Payload, _: Partial | None) -> Payload:
        self.queue(payload).delete(payload["ReceiptHandle"], now=self.clock())
        return {}

    def _delete_batch(self, payload: Payload, partial: Partial | None) -> Payload:
        queue, now = self.queue(payload), self.clock()

        def delete(entry: Payload) -> Payload:
            queue.delete(entry["ReceiptHandle"], now=now)
            return {}

        return _batch(payload, delete, partial)

    def _change(self, queue: Queue, entry: Payload) -> Payload:
        timeout = _number(entry, "VisibilityTimeout", 0, MAX_VISIBILITY, None)
        if timeout is None:
            raise StubError("MissingParameter", "The request must contain the parameter VisibilityTimeout.")
        queue.change_visibility(entry["ReceiptHandle"], timeout, now=self.clock())
        return {}

    def _change_visibility(self, payload: Payload, _: Partial | None) -> Payload:
        return self._change(self.queue(payload), payload)

    def _change_batch(self, payload: Payload, partial: Partial | None) -> Payload:
        queue = self.queue(payload)
        return _batch(payload, lambda entry: self._change(queue, entry), partial)

    def receive(self, payload: Payload) -> tuple[bytes | None, float]:
        """The reply to ReceiveMessage, and 0; or None and how many seconds it may wait for messages."""
        queue = self.queue(payload)
        limit = _number(payload, "MaxNumberOfMessages", 1, BATCH, 1)
        wait = _number(payload, "WaitTimeSeconds", 0, 20, queue.wait)
        visibility = _number(payload, "VisibilityTimeout", 0, MAX_VISIBILITY, None)
        attempt = payload.get("ReceiveRequestAttemptId") or ""
        given = queue.receive(limit or 1, now=self.clock(), visibility=visibility, attempt=attempt)
        if not given and wait:
            return None, wait
        system = _names(payload, "MessageSystemAttributeNames", "AttributeNames")
        custom = _names(payload, "MessageAttributeNames")
        return _reply(given, system, custom), 0

    def fill(self, name: str, bodies: Iterable[str], *, groups: int = 1) -> int:
        """Put many messages on a queue at once, without the protocol's cost; returns how many."""
        queue, now, count = self.queues[name], self.clock(), 0
        for body in bodies:
            if queue.fifo:
                queue.send(body, now=now, group=f"g{count % groups}", deduplication_id=f"fill-{now}-{count}", delay=0)
            else:
                queue.send(body, now=now, delay=0)
            count += 1
        return count


def _size(entry: Payload) -> int:
    size = len(str(entry.get("MessageBody", "")).encode("utf-8", "surrogatepass"))
    for name, value in (entry.get("MessageAttributes") or {}).items():
        size += len(name) + sum(len(str(part)) for part in value.values())
    return size


def _reply(messages: list[Stored], system: list[str], custom: list[str]) -> bytes:
    if not messages:
        return b"{}"
    return f'{{"Messages": [{",".join(_described(message, system, custom) for message in messages)}]}}'.encode()


def _described(message: Stored, system: list[str], custom: list[str]) -> str:
    parts = [
        f'"MessageId": "{message.id}", "ReceiptHandle": "{message.handle}", "MD5OfBody": "{message.md5}"',
        f'"Body": {message.encoded}',
    ]
    if system:
        known = _system(message)
        chosen = known if "All" in system else {key: known[key] for key in system if key in known}
        parts.append(f'"Attributes": {json.dumps(chosen)}')
    if custom and message.attributes:
        named = {key: value for key, value in message.attributes.items() if _wanted(key, custom)}
        if named:
            parts.append(f'"MessageAttributes": {json.dumps(named)}')
    return f"{{{', '.join(parts)}}}"


def _system(message: Stored) -> dict[str, str]:
    known = {
        "SenderId": "AIDAEXAMPLE",
        "SentTimestamp": str(int(message.sent_at * 1000)),
        "ApproximateReceiveCount": str(message.receive_count),
        "ApproximateFirstReceiveTimestamp": str(int(message.first_received_at * 1000)),
        **message.system,
    }
    if message.group is not None:
        known["MessageGroupId"] = message.group
        known["SequenceNumber"] = f"{message.sequence:020d}"
    return known


def _wanted(name: str, patterns: list[str]) -> bool:
    return any(
        pattern in {"All", ".*", name} or (pattern.endswith(".*") and name.startswith(pattern[:-2]))
        for pattern in patterns
    )
