"""An Event Hubs emulator of our own: AMQP 1.0 over plain TCP on loopback, in memory, fast, with faults on demand.

In a test, inside its loop:

    async with EventHubsEmulator(hubs={"events": 4}) as hub:
        hub.fill("events", (b"%d" % n for n in range(1000)))
        client = EventHubProducerClient.from_connection_string(hub.connection_string, eventhub_name="events")
        hub.drop(partition="0")                      # break off the connections that read partition 0
        hub.detach("amqp:link:detach-forced")        # detach links with a condition
        hub.busy(2.0)                                # server busy for two seconds
        hub.fault("silent", partition="1")           # see event_hubs_faults; hub.clear() ends them
        hub.deny(role="listen")                      # no permission
        hub.trim("events", "0", 10)                  # the ten oldest events are gone, as by retention
        await hub.stop(); await hub.start()          # away and back, with its data and on its port
        hub.latency = 0.02                           # seconds that everything is written late

As a program (`python -m tests.emulators.event_hubs`) it prints one line of JSON with `connection_string`, `port` and
`control`, the URL it is steered at (see event_hubs_control; event_hubs_client is a client for it).

It does not do: TLS, websockets, capture, schema registry, geo-replication, throttling by units, publisher addresses,
idempotent producers, claims of Azure AD tokens (taken unread), the service's own hash of partition keys,
retention by time, Kafka. Conditions and texts of errors follow the documentation and client libraries, not a capture
of the service.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

from tests.emulators.amqp_connection import Connection
from tests.emulators.amqp_frames import AmqpError
from tests.emulators.amqp_links import Endpoint, Link, Outgoing
from tests.emulators.event_hubs_faults import BUSY, Fault, Faults
from tests.emulators.event_hubs_log import EventHubsLog, Hub, Partition, position
from tests.emulators.event_hubs_nodes import (
    Answer,
    HubSink,
    PartitionFeed,
    ReplyFeed,
    RequestSink,
    entity_path,
    put_token,
    selector,
)

__all__ = ["KEY_NAME", "EventHubsEmulator", "main"]

KEY_NAME = "RootManageSharedAccessKey"
"""The name of the one key there is."""
_UNAUTHORIZED = "amqp:unauthorized-access"
_NODES = frozenset({"$cbs", "$management"})


class EventHubsEmulator:
    """The server; an async context manager."""

    def __init__(
        self,
        *,
        hubs: Mapping[str, int] | None = None,
        consumer_groups: Sequence[str] = ("$Default",),
        port: int = 0,
        key: str = "SAS_KEY_VALUE",
        max_message_size: int = 1 << 20,
        max_frame_size: int = 1 << 16,
        idle_timeout: float = 240.0,
        latency: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.log = EventHubsLog({"events": 4} if hubs is None else hubs, consumer_groups, clock())
        self.faults = Faults()
        self.host = "127.0.0.1"
        self.port = port
        self.max_message_size = max_message_size
        self.max_frame_size = max_frame_size
        self.idle_timeout = idle_timeout
        self.latency = latency
        self.connections: set[Connection] = set()
        self.attached = 0
        """Links to partitions and hubs that were attached so far."""
        self.refusals: deque[tuple[str, str]] = deque(maxlen=100)
        """The latest links that were refused: path and condition. (Azure's client tells its user of few of them.)"""
        self._keys = {KEY_NAME: key}
        self._clock = clock
        self._replies: dict[tuple[Connection, str], list[ReplyFeed]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, again on the same port after a stop."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Refuse connections and break off those there are; the events stay."""
        if self._server is not None:
            self._server.close()
        self.drop()
        while self.connections:
            await asyncio.sleep(0)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    @property
    def connection_string(self) -> str:
        """What clients are given."""
        key = self._keys[KEY_NAME]
        access = f"SharedAccessKeyName={KEY_NAME};SharedAccessKey={key};UseDevelopmentEmulator=true"
        return f"Endpoint=sb://{self.host}:{self.port};{access}"

    def fill(
        self,
        hub: str,
        bodies: Iterable[bytes],
        *,
        partition: str | None = None,
        key: Callable[[int], str | None] = lambda _: None,
        properties: Mapping[str, Any] | None = None,
    ) -> int:
        """Put events into a hub at once, to one partition, by the key of the n-th, or in turn; returns how many."""
        target = self.log.hub(hub)
        chosen = target.partition(partition) if partition is not None else None
        return target.fill(bodies, self._clock(), partition=chosen, key=key, properties=properties)

    def trim(self, hub: str, partition: str, count: int) -> int:
        """Delete the oldest events of a partition; returns how many."""
        return self.log.hub(hub).partition(partition).trim(count)

    def fault(self, kind: str, *, seconds: float | None = None, **options: Any) -> Fault:
        """Put a fault in force; see `event_hubs_faults.Fault`."""
        fault = self.faults.add(kind, now=self._clock(), seconds=seconds, **options)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds + 0.001, self._wake)
        return fault

    def clear(self, kind: str | None = None) -> None:
        """End the faults (of this kind)."""
        self.faults.clear(kind)
        self._wake()

    def busy(self, seconds: float | None = None) -> None:
        """Server busy: links are detached, new ones refused and sends rejected, so long or until `clear`."""
        for kind in ("refuse_links", "reject_sends"):
            self.fault(kind, seconds=seconds, condition=BUSY, description="The server is busy. Please try again.")
        self.detach(BUSY, "The server is busy. Please try again.")

    def deny(self, *, role: str | None = None, hub: str | None = None, partition: str | None = None) -> None:
        """Refuse links for want of permission, until `clear`; role is "listen" or "send"."""
        text = "Unauthorized access. Claims are required to perform this operation."
        where: dict[str, Any] = {"role": role, "hub": hub, "partition": partition}
        self.fault("refuse_links", condition=_UNAUTHORIZED, description=text, **where)

    def drop(self, *, hub: str | None = None, partition: str | None = None) -> int:
        """Break off all connections, or those with links to this hub or partition; returns how many."""
        dropped = [
            connection
            for connection in self.connections
            if (hub is None and partition is None)
            or any(_concerns(link, hub=hub, partition=partition) for link in connection.links)
        ]
        for connection in dropped:
            connection.abort()
        return len(dropped)

    def detach(
        self,
        condition: str | None = "amqp:link:detach-forced",
        description: str = "The link was detached on demand.",
        *,
        hub: str | None = None,
        partition: str | None = None,
        role: str | None = None,
    ) -> int:
        """Detach links to hubs and partitions, with a condition or (None) without; returns how many."""
        links = [link for link in self._links() if _concerns(link, hub=hub, partition=partition, role=role)]
        for link in links:
            link.detach(AmqpError(condition, description) if condition else None)
        return len(links)

    def stats(self) -> dict[str, Any]:
        """What there is and what was done, as JSON can say it."""
        hubs = {
            hub.name: {partition.id: partition.stats() for partition in hub.partitions}
            for hub in self.log.hubs.values()
        }
        links = len(self._links())
        return {"connections": len(self.connections), "links": links, "attached": self.attached, "hubs": hubs}

    def _links(self) -> list[Link]:
        links = [link for connection in self.connections for link in connection.links]
        return [link for link in links if entity_path(link.address).split("/")[-1] not in _NODES]

    def _wake(self) -> None:
        for link in self._links():
            if isinstance(link, Outgoing):
                link.wake()

    def connected(self, connection: Connection) -> bool:
        """A client came."""
        self.connections.add(connection)
        return self.faults.draw("refuse_connections", self._clock()) is None

    def disconnected(self, connection: Connection) -> None:
        """A client went."""
        self.connections.discard(connection)
        for node in _NODES:
            self._replies.pop((connection, node), None)

    def authenticate(self, connection: Connection, mechanism: str, response: bytes) -> bool:
        """PLAIN needs a key and its name; with the others, what counts is put to `$cbs` later."""
        if mechanism != "PLAIN":
            return True
        _, _, rest = response.partition(b"\0")
        name, _, key = rest.partition(b"\0")
        expected = self._keys.get(name.decode(errors="replace"), "")
        good = bool(expected) and hmac.compare_digest(expected.encode(), key)
        if good:
            connection.claims[""] = math.inf
        return good

    def attach(self, connection: Connection, link: Link) -> Endpoint:
        """What is at the other end of a new link."""
        path = entity_path(link.address)
        node = path.split("/")[-1]
        if node in _NODES:
            return self._node(connection, link, node)
        try:
            self._authorize(connection, path)
            endpoint = self._reading(link, path) if link.request.role else self._sending(path)
        except AmqpError as error:
            self.refusals.append((path, error.condition))
            raise
        self.attached += 1
        return endpoint

    def _node(self, connection: Connection, link: Link, node: str) -> Endpoint:
        feeds = self._replies.setdefault((connection, node), [])
        if link.request.role:
            return ReplyFeed(feeds, link)
        if node == "$cbs":
            return RequestSink(link, feeds, lambda properties, token: self._put_token(connection, properties, token))
        return RequestSink(link, feeds, lambda properties, _: self._manage(connection, properties))

    def _put_token(self, connection: Connection, properties: Mapping[str, Any], token: Any) -> Answer:
        try:
            path, until = put_token(properties, token, self._keys, self._clock())
        except AmqpError as error:
            return 401, error.description, None
        connection.claims[path.casefold()] = until
        if until < math.inf:
            old = connection.timers.pop(f"claim {path}", None)
            if old is not None:
                old.cancel()
            delay = until - self._clock()
            connection.timers[f"claim {path}"] = connection.loop.call_later(delay, self._expire, connection)
        return 202, "Accepted", None

    def _expire(self, connection: Connection) -> None:
        for link in connection.links:
            path = entity_path(link.address)
            if path.split("/")[-1] not in _NODES and not self._allowed(connection, path):
                link.detach(AmqpError(_UNAUTHORIZED, "ExpiredToken: The token is expired."))

    def _allowed(self, connection: Connection, path: str) -> bool:
        now, wanted = self._clock(), f"{path.casefold()}/"
        claims = (claim for claim, until in connection.claims.items() if until > now)
        return any(not claim or wanted.startswith(f"{claim}/") for claim in claims)

    def _authorize(self, connection: Connection, path: str) -> None:
        if not self._allowed(connection, path):
            raise AmqpError(_UNAUTHORIZED, f"Unauthorized access to '{path}': no token for it was put to $cbs.")

    def _manage(self, connection: Connection, properties: Mapping[str, Any]) -> Answer:
        fault = self.faults.draw("management", self._clock(), hub=str(properties.get("name")))
        if fault is not None:
            return fault.status, fault.description, None
        if properties.get("operation") != "READ":
            return 501, "Only READ is known.", None
        try:
            hub = self.log.hub(str(properties.get("name", "")))
            self._authorize(connection, hub.name)
            if properties.get("type") == "com.microsoft:partition":
                return 200, "OK", hub.partition(str(properties.get("partition"))).describe(hub.name)
        except AmqpError as error:
            status = {"amqp:not-found": 404, _UNAUTHORIZED: 401}.get(error.condition, 400)
            return status, error.description, None
        return 200, "OK", hub.describe()

    def _refuse(self, hub: Hub, partition: Partition | None, role: str) -> None:
        name = partition.id if partition else None
        fault = self.faults.draw("refuse_links", self._clock(), hub=hub.name, partition=name, role=role)
        if fault is not None:
            raise fault.error()

    def _sending(self, path: str) -> HubSink:
        match path.split("/"):
            case [name]:
                hub, partition = self.log.hub(name), None
            case [name, kind, number] if kind.casefold() == "partitions":
                hub = self.log.hub(name)
                partition = hub.partition(number)
            case _:
                raise AmqpError("amqp:not-found", f"The messaging entity '{path}' could not be found.")
        self._refuse(hub, partition, "send")
        return HubSink(hub, partition, faults=self.faults, clock=self._clock, max_message_size=self.max_message_size)

    def _reading(self, link: Link, path: str) -> PartitionFeed:
        match path.split("/"):
            case [name, groups, group, partitions, number] if (groups.casefold(), partitions.casefold()) == (
                "consumergroups",
                "partitions",
            ):
                hub = self.log.hub(name)
            case _:
                raise AmqpError("amqp:not-found", f"The messaging entity '{path}' could not be found.")
        if group.casefold() not in hub.groups:
            text = f"The messaging entity '{hub.name}/consumergroups/{group}' could not be found."
            raise AmqpError("amqp:not-found", text)
        partition = hub.partition(number)
        self._refuse(hub, partition, "listen")
        feed = PartitionFeed(hub, partition, link, group=group.casefold(), faults=self.faults, clock=self._clock)
        feed.reader.next = position(partition, selector(link))
        feed.reader.register()
        return feed


def _concerns(link: Link, *, hub: str | None = None, partition: str | None = None, role: str | None = None) -> bool:
    name, *rest = entity_path(link.address).split("/")
    number = rest[-1] if rest else None
    own = "listen" if link.request.role else "send"
    return hub in {None, name} and partition in {None, number} and role in {None, own}


async def _serve(options: argparse.Namespace) -> None:
    from tests.emulators.event_hubs_control import Control

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    hubs = {name: int(count) for name, _, count in (hub.partition("=") for hub in options.hub)}
    groups = ("$Default", *options.group)
    async with (
        EventHubsEmulator(hubs=hubs, consumer_groups=groups, port=options.port, latency=options.latency) as hub,
        Control(hub, port=options.control_port) as control,
    ):
        line = {"connection_string": hub.connection_string, "port": hub.port, "control": control.url}
        sys.stdout.write(f"{json.dumps(line)}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Run the emulator until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="An in-memory Event Hubs server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--hub", action="append", metavar="NAME=PARTITIONS", help="may be repeated; default events=4")
    parser.add_argument("--group", action="append", default=[], help="a consumer group besides $Default")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that everything is written late")
    options = parser.parse_args()
    options.hub = options.hub or ["events=4"]
    asyncio.run(_serve(options))


if __name__ == "__main__":
    main()
