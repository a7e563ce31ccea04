"""What `consumer check` says of an event hub."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from consumer.errors import SourceError
from consumer.sources.base import Finding
from consumer.sources.event_hubs_client import HubClients, PartitionFacts
from consumer.sources.event_hubs_errors import condition_of

if TYPE_CHECKING:
    from consumer.settings import SourceSettings
    from consumer.sources.checkpoint_blobs import Checkpoint

__all__ = ["findings"]

_LISTEN: Final = 10.0
"""Seconds within which a hub takes or refuses a reader."""
_TAKEN: Final = frozenset({"link:stolen", "resource-locked"})
"""Conditions by which a hub says that others read this consumer group, which therefore exists."""


async def findings(clients: HubClients, settings: SourceSettings) -> list[Finding]:
    """Hub, consumer group, checkpoints and backlog. No event is received. Raises SourceError."""
    facts = await clients.all_facts()
    found = [Finding("hub", ok=True, detail=f"{len(facts)} partitions, {_backlog(facts)} events kept")]
    found.append(await _consumer_group(clients, settings, next(iter(facts))))
    try:
        await clients.check_store(writing=True)
        checkpoints = await clients.checkpoints.all()
    except SourceError as error:
        return [*found, Finding("checkpoints", ok=False, detail=str(error))]
    found.append(Finding("checkpoints", ok=True, detail=f"container {settings.checkpoints.container} can be written"))
    return [*found, _lag(clients, facts, checkpoints)]


def _backlog(facts: Mapping[str, PartitionFacts]) -> int:
    return sum(max(0, fact.last - fact.beginning + 1) for fact in facts.values())


async def _consumer_group(clients: HubClients, settings: SourceSettings, partition_id: str) -> Finding:
    """Whether the consumer group may be read: by a reader that asks for what comes next, for a moment."""
    answer: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def on_link(_: str, error: Exception | None) -> None:
        if not answer.done():
            answer.set_result(error)

    async def ignore(_: Any, __: Any) -> None:
        """Events that come in this moment are for the worker, and errors are told by the link."""

    client = clients.consumer(balanced=False, on_link=on_link)
    reading = asyncio.create_task(
        client.receive_batch(
            on_event_batch=ignore, on_error=ignore, partition_id=partition_id, starting_position="@latest"
        )
    )
    await asyncio.wait({answer, reading}, timeout=_LISTEN, return_when=asyncio.FIRST_COMPLETED)
    with contextlib.suppress(Exception):
        await client.close()
    reading.cancel()
    await asyncio.wait({reading})
    group = settings.consumer_group
    if not answer.done():
        answer.cancel()
        return Finding("consumer group", ok=False, detail=f"{group}: no answer to a reader")
    error = answer.result()
    if error is None:
        return Finding("consumer group", ok=True, detail=f"{group} can be read")
    if condition_of(error) in _TAKEN:
        return Finding("consumer group", ok=True, detail=f"{group} is being read by others")
    detail = str(clients.hub_trouble("reading as a consumer group", error))
    return Finding("consumer group", ok=False, detail=detail)


def _lag(clients: HubClients, facts: Mapping[str, PartitionFacts], checkpoints: Mapping[str, Checkpoint]) -> Finding:
    foreign = [one for name, one in checkpoints.items() if name in facts and clients.is_foreign(one, facts[name])]
    if foreign:
        detail = f"{len(foreign)} checkpoints are of another hub of this name: if it was made anew, remove them"
        return Finding("backlog", ok=False, detail=detail)
    missing = [partition for partition in facts if partition not in checkpoints]
    expired = behind = 0
    for partition, checkpoint in checkpoints.items():
        fact = facts.get(partition)
        if fact is not None:
            behind += max(0, fact.last - max(checkpoint.sequence, fact.beginning - 1))
            expired += max(0, fact.beginning - checkpoint.sequence - 1)
    if expired:
        detail = f"the hub has deleted {expired} events that were not consumed yet: see its retention"
        return Finding("backlog", ok=False, warning=True, detail=detail)
    detail = f"{behind} events behind the checkpoints"
    if missing:
        detail += f"; {len(missing)} partitions never consumed"
    return Finding("backlog", ok=True, detail=detail)
