"""Partners' queues, as registered: opening them and sending to them with this package's own adapters."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

from pydantic import SecretStr, ValidationError

from consumer.app import build_source
from consumer.errors import SettingsError
from consumer.settings import SourceSettings
from consumer.settings_azure import namespace_host
from consumer.sources.azure_credentials import azure_credential, missing_extra, quieten_azure
from consumer.sources.base import Outgoing, Source
from consumer.sources.event_hubs_errors import hub_trouble
from consumer.sources.event_hubs_sending import send_all

__all__ = ["QueueTarget", "described", "open_target"]

_RETRY: Final[dict[str, Any]] = {
    "retry_total": 1,
    "retry_backoff_factor": 0.2,
    "retry_backoff_max": 2.0,
    "auth_timeout": 10,
}
"""The SDK's own would outlast the time a queue has to accept."""
_TEXTS: Final = frozenset({"connection_string", "sas_token", "namespace", "endpoint_url", "queue_url", "region"})
_SIGNED: Final = "SharedAccessSignature "
_ARN: Final = re.compile(r"arn:(aws[a-z-]*):sqs:([a-z0-9-]+):(\d{12}):([A-Za-z0-9_.-]+)")


class QueueTarget(Protocol):
    """A queue that can be sent to."""

    async def send(self, bodies: Sequence[bytes]) -> None:
        """Put messages on it. Raises `SourceError`."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


async def open_target(name: str, kind: str, block: Mapping[str, Any]) -> QueueTarget:
    """Connect to the queue that a registration describes.

    Beyond the documented fields these are read: `aws_sqs.queue_url` and `endpoint_url`, which reach an emulator (the
    credentials are those boto3 finds); `azure_*.connection_string` or `sas_token`; `local.path`.

    Raises `SettingsError` for a description that lacks something, `SourceError`.
    """
    for field, value in block.items():
        if field in _TEXTS and not isinstance(value, str | None):
            raise SettingsError(f"{kind}.{field}: expected a text")
    if kind == "azure_event_hubs":
        return await _Hub.opened(name, block)
    try:
        settings = SourceSettings(name=name, **described(kind, block))
    except ValidationError as error:
        texts = "; ".join(f"{'.'.join(str(part) for part in one['loc'])} {one['msg']}" for one in error.errors())
        raise SettingsError(f"{kind}: {texts.strip()}") from None
    source = build_source(settings)
    try:
        await source.open()
    except BaseException:
        await source.close()
        raise
    return _Queue(source)


class _Queue:
    """Any queue that has an adapter of its own."""

    def __init__(self, source: Source) -> None:
        self._source = source

    async def send(self, bodies: Sequence[bytes]) -> None:
        await self._source.send([Outgoing(body) for body in bodies])

    async def close(self) -> None:
        await self._source.close()


class _Hub:
    """An event hub; the adapter itself would need a container of checkpoints, which only a reader has."""

    def __init__(self, producer: Any, name: str, stack: contextlib.AsyncExitStack) -> None:
        self._producer = producer
        self._name = name
        self._stack = stack

    @classmethod
    async def opened(cls, name: str, block: Mapping[str, Any]) -> _Hub:
        try:
            sdk = import_module("azure.eventhub.aio")
        except ImportError:
            raise missing_extra(name, "event_hubs") from None
        quieten_azure()
        hub = _needed(block, "azure_event_hubs", "event_hub_name")
        string = block.get("connection_string") or _hub_string(block)
        async with contextlib.AsyncExitStack() as stack:
            try:
                if string is not None:
                    producer = sdk.EventHubProducerClient.from_connection_string(string, eventhub_name=hub, **_RETRY)
                else:
                    credential = await stack.enter_async_context(azure_credential(name=name, kind="event_hubs"))
                    host = namespace_host(_needed(block, "azure_event_hubs", "namespace"))
                    producer = sdk.EventHubProducerClient(host, hub, credential, **_RETRY)
            except ValueError:
                raise SettingsError("azure_event_hubs.connection_string: not a connection string of a hub") from None
            stack.push_async_callback(producer.close)
            try:
                await producer.get_partition_ids()
            except Exception as error:  # noqa: BLE001 - the SDK raises what it likes
                raise hub_trouble(name, "opening", error) from None
            return cls(producer, name, stack.pop_all())
        raise AssertionError("unreachable")  # pragma: no cover - the stack suppresses nothing

    async def send(self, bodies: Sequence[bytes]) -> None:
        await send_all(self._producer, [Outgoing(body) for body in bodies], name=self._name)

    async def close(self) -> None:
        await self._stack.aclose()


def _hub_string(block: Mapping[str, Any]) -> str | None:
    token = block.get("sas_token")
    if not token:
        return None
    host = namespace_host(_needed(block, "azure_event_hubs", "namespace"))
    token = token if str(token).startswith(_SIGNED) else f"{_SIGNED}{token}"
    return f"Endpoint=sb://{host}/;SharedAccessSignature={token}"


def described(kind: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source for a queue of this kind, from its block. Raises `SettingsError`."""
    if kind == "local":
        path = Path(_needed(block, "local", "path"))
        if not path.is_absolute():
            raise SettingsError("local.path: expected an absolute path")
        return {"kind": "local", "path": path}
    if kind == "aws_sqs":
        return {"kind": "sqs", **_sqs(block)}
    return {"kind": "storage_queue", **_storage_queue(block)}


def _sqs(block: Mapping[str, Any]) -> dict[str, Any]:
    arn = _ARN.fullmatch(_needed(block, "aws_sqs", "queue_arn"))
    if arn is None:
        raise SettingsError("aws_sqs.queue_arn: expected arn:aws:sqs:REGION:ACCOUNT:NAME")
    partition, region, account, queue = arn.groups()
    endpoint = block.get("endpoint_url")
    suffix = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
    base = str(endpoint).rstrip("/") if endpoint else f"https://sqs.{region}.{suffix}"
    url = block.get("queue_url") or f"{base}/{account}/{queue}"
    return {"queue_url": url, "region": block.get("region") or region, "endpoint_url": endpoint}


def _storage_queue(block: Mapping[str, Any]) -> dict[str, Any]:
    queue = _needed(block, "azure_storage_queue", "queue_name")
    string, token = block.get("connection_string"), block.get("sas_token")
    if string:
        return {"queue": queue, "connection_string": SecretStr(string)}
    account = _needed(block, "azure_storage_queue", "account_name")
    url = f"https://{quote(account, safe='')}.queue.core.windows.net"
    if token:
        string = f"QueueEndpoint={url};SharedAccessSignature={str(token).lstrip('?')}"
        return {"queue": queue, "connection_string": SecretStr(string)}
    return {"queue": queue, "account_url": url}


def _needed(block: Mapping[str, Any], kind: str, name: str) -> str:
    value = block.get(name)
    if not isinstance(value, str) or not value:
        raise SettingsError(f"{kind}.{name}: missing")
    return value
