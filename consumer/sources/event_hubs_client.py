"""The SDK's clients for one event hub and its checkpoints, made as this program needs them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from consumer import __version__
from consumer.errors import SourceError
from consumer.settings_azure import event_hub_of, namespace_host
from consumer.sources.azure_credentials import azure_credential, missing_extra, quieten_azure
from consumer.sources.event_hubs_errors import hub_trouble, store_trouble

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.checkpoint_blobs import Checkpoint, CheckpointBlobs
    from consumer.sources.event_hubs_links import Credit, OnLink

__all__ = ["HubClients", "PartitionFacts"]

_QUESTION_RETRIES: Final = 1
"""The SDK asks again even when it was refused, and whoever waits for the answer would rather know."""
_CALL_LIMIT: Final = 15.0
"""Seconds that any question to the hub may take, retries included."""
_OWNERSHIP_LIFE: Final = 6
"""Ownership intervals after which a partition counts as nobody's; the SDK's own proportion."""
_RETRY: Final = {"retry_total": 3, "retry_backoff_factor": 0.2, "retry_backoff_max": 5.0, "auth_timeout": 10}
# The defaults of the storage SDK hide an outage for over a minute.
_STORE_RETRY: Final = {
    "retry_total": 2,
    "initial_backoff": 0,
    "increment_base": 1,
    "random_jitter_range": 0.5,
    "connection_timeout": 3,
    "read_timeout": 10,
}


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """What the hub tells of a partition."""

    beginning: int
    """Sequence number of the oldest event kept."""
    last: int
    """Sequence number of the newest; below `beginning` when there is none."""
    last_offset: str
    last_at: datetime
    """When that was accepted."""


class HubClients:
    """Everything that speaks to Azure for one source. Use `opened`."""

    def __init__(self, settings: SourceSettings, *, credential: Any) -> None:
        self._settings = settings
        self._credential = credential
        self._name = settings.name
        self._admin: Any = None
        self._producer: Any = None
        self._store: Any = None
        self._container: Any = None
        self.checkpoints: CheckpointBlobs

    @staticmethod
    @contextlib.asynccontextmanager
    async def opened(settings: SourceSettings) -> AsyncIterator[HubClients]:
        """Clients for a source, closed at the end. Nothing is connected before its first use.

        Raises SettingsError if the SDK is not installed.
        """
        quieten_azure()
        async with contextlib.AsyncExitStack() as stack:
            credential = None
            if settings.connection_string is None or settings.checkpoints.connection_string is None:
                credential = await stack.enter_async_context(azure_credential(name=settings.name, kind="event_hubs"))
            clients = HubClients(settings, credential=credential)
            stack.push_async_callback(clients._close)
            try:
                clients._make()
            except ImportError:
                raise missing_extra(settings.name, "event_hubs") from None
            yield clients

    def _make(self) -> None:
        from consumer.sources.checkpoint_blobs import CheckpointBlobs  # noqa: PLC0415 - needs the SDK

        self._admin = self.consumer(balanced=False, retry_total=_QUESTION_RETRIES)
        given = self._settings.checkpoints
        store = import_module("azure.eventhub.extensions.checkpointstoreblobaio").BlobCheckpointStore
        blobs = import_module("azure.storage.blob.aio").ContainerClient
        if given.connection_string is not None:
            string = given.connection_string.get_secret_value()
            self._store = store.from_connection_string(string, given.container, **_STORE_RETRY)
            self._container = blobs.from_connection_string(string, given.container, **_STORE_RETRY)
        else:
            self._store = store(given.account_url, given.container, credential=self._credential, **_STORE_RETRY)
            self._container = blobs(given.account_url, given.container, credential=self._credential, **_STORE_RETRY)
        self.checkpoints = CheckpointBlobs(
            self._container,
            namespace=self.namespace,
            event_hub=self.event_hub,
            consumer_group=self._settings.consumer_group,
        )

    @property
    def event_hub(self) -> str:
        """The hub's name."""
        return event_hub_of(self._settings)

    @property
    def namespace(self) -> str:
        """The host of the namespace, as the SDK puts it into the path of checkpoints."""
        # The client knows how the SDK reads a connection string's endpoint.
        return str(self._admin._address.hostname)  # noqa: SLF001 - nothing public tells it

    def consumer(
        self, *, balanced: bool = True, on_link: OnLink | None = None, credit: Credit | None = None, **options: Any
    ) -> Any:
        """A new `EventHubConsumerClient`; `balanced`: sharing the partitions out with others by the store."""
        from consumer.sources.event_hubs_links import LinkWatchingClient  # noqa: PLC0415 - needs the SDK

        sharing: dict[str, Any] = {}
        if balanced:
            interval = self._settings.checkpoints.ownership_interval
            sharing = {
                "checkpoint_store": self._store,
                "load_balancing_interval": interval,
                "partition_ownership_expiration_interval": interval * _OWNERSHIP_LIFE,
            }
        client = self._client(LinkWatchingClient, consumer_group=self._settings.consumer_group, **sharing, **options)
        client.on_link = on_link
        client.credit = credit
        return client

    def _client(self, made: Any, **options: Any) -> Any:
        options = {**_RETRY, "user_agent": f"health-event-consumer/{__version__}", **options}
        settings = self._settings
        if settings.connection_string is not None:
            string = settings.connection_string.get_secret_value()
            return made.from_connection_string(string, eventhub_name=self.event_hub, **options)
        return made(
            fully_qualified_namespace=namespace_host(settings.namespace or ""),
            eventhub_name=self.event_hub,
            credential=self._credential,
            **options,
        )

    @property
    def producer(self) -> Any:
        """The `EventHubProducerClient`."""
        if self._producer is None:
            self._producer = self._client(import_module("azure.eventhub.aio").EventHubProducerClient)
        return self._producer

    # Questions

    async def partition_ids(self) -> list[str]:
        """The hub's partitions. Raises SourceUnavailable or SourceRefused, as all of these."""
        found: Mapping[str, Any] = await self._ask("reading the hub", self._admin.get_eventhub_properties)
        self.checkpoints.hub = found["created_at"].isoformat()
        return list(found["partition_ids"])

    async def facts(self, partition_id: str) -> PartitionFacts:
        """What a partition holds."""
        found: Mapping[str, Any] = await self._ask(
            "reading a partition", lambda: self._admin.get_partition_properties(partition_id)
        )
        last = int(found["last_enqueued_sequence_number"])
        # Of an empty partition the service says that it begins where the next event will be, or at 0.
        beginning = last + 1 if found["is_empty"] else int(found["beginning_sequence_number"])
        return PartitionFacts(beginning, last, str(found["last_enqueued_offset"]), found["last_enqueued_time_utc"])

    async def all_facts(self) -> dict[str, PartitionFacts]:
        """What every partition holds."""
        ids = await self.partition_ids()
        return dict(zip(ids, await asyncio.gather(*map(self.facts, ids)), strict=True))

    def is_foreign(self, checkpoint: Checkpoint, facts: PartitionFacts) -> bool:
        """Whether a checkpoint is of another hub that had this name: then where it stands means nothing here."""
        made = self.checkpoints.hub
        return checkpoint.sequence > facts.last or (None not in (made, checkpoint.hub) and checkpoint.hub != made)

    async def mark_latest(self) -> None:
        """Write a checkpoint at the end of every partition that has none, for `latest` to be one place for everybody.

        Left to the SDK, it would be wherever the hub is when a link is attached, some time after the first checkpoint.
        """
        from consumer.sources.checkpoint_blobs import Checkpoint  # noqa: PLC0415 - needs the SDK

        facts = await self.all_facts()
        try:
            there = await self.checkpoints.all()
            for partition_id in facts.keys() - there.keys():
                end = facts[partition_id]
                await self.checkpoints.write(partition_id, Checkpoint(end.last, end.last_offset), None)
        except Exception as error:  # noqa: BLE001 - as below
            raise self.store_trouble(error) from None

    async def check_store(self, *, writing: bool = False) -> None:
        """Whether the container of the checkpoints can be read, and, if asked for, written: an empty blob stays."""
        try:
            async with asyncio.timeout(_CALL_LIMIT):
                await self.checkpoints.all()
                if writing:
                    await self.checkpoints.probe()
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the protocol knows two errors
            raise self.store_trouble(error) from None

    def hub_trouble(self, operation: str, error: BaseException) -> SourceError:
        """What an exception of the hub means, when it comes from reading it as a consumer group."""
        return hub_trouble(self._name, operation, error, group=self._settings.consumer_group)

    def store_trouble(self, error: BaseException) -> SourceError:
        """What an exception of the checkpoints' storage means."""
        return store_trouble(self._name, self._settings.checkpoints.container or "", error)

    async def _ask(self, operation: str, question: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        try:
            async with asyncio.timeout(_CALL_LIMIT):
                return await question()
        except Exception as error:  # noqa: BLE001 - as above
            raise hub_trouble(self._name, operation, error) from None

    async def _close(self) -> None:
        for client in (self._producer, self._admin, self._store, self._container):
            if client is not None:
                with contextlib.suppress(Exception):
                    await client.close()
