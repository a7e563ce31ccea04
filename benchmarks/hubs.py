"""An event hub on loopback, with its checkpoints in Azurite, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.progress import Progress
from tests.emulators.event_hubs_client import EventHubsControl, event_hubs_process
from tests.servers.azurite import Azurite, azurite_server, create_container

__all__ = ["EVENT_HUB", "Hub", "event_hub"]

EVENT_HUB = "events"
_FILL = 2_000
_numbers = itertools.count(1)


class Hub:
    """One hub, which is read from its beginning again and again: each time with checkpoints in a new container.

    What the others call a queue is here the name of that container.
    """

    def __init__(self, control: EventHubsControl, store: Azurite, folder: Path) -> None:
        self._control = control
        self._folder = folder
        self._asked: dict[str, tuple[Progress, int]] = {}
        self.connection_string = control.connection_string
        self.store = store.connection_string
        self.sent = 0
        """Events that the hub holds."""
        self.progress = str(folder / "{queue}")
        """The file in which a contestant says what it has finished."""

    def send(self, bodies: Sequence[str]) -> None:
        """Put events on the hub, to its partitions in turn."""
        for start in range(0, len(bodies), _FILL):
            self._control.call("fill", hub=EVENT_HUB, bodies=list(bodies[start : start + _FILL]))
        self.sent += len(bodies)

    def watched(self, container: str) -> Progress:
        """What whoever keeps its checkpoints there has finished."""
        return self._asked[container][0]

    def filled(self, bodies: Sequence[str]) -> str:
        """A new container; as many events as these must be finished."""
        container = f"bench-{next(_numbers)}"
        asyncio.run(create_container(self.store, container))
        self._asked[container] = Progress(self._folder / container, new=True), len(bodies)
        return container

    def left(self, container: str) -> int:
        """How many of those are not finished yet."""
        progress, count = self._asked[container]
        return max(0, count - progress.count)


@contextlib.contextmanager
def event_hub(*, partitions: int) -> Iterator[Hub]:
    """An empty hub with so many partitions."""
    with (
        tempfile.TemporaryDirectory() as folder,
        azurite_server() as store,
        event_hubs_process(hub=EVENT_HUB, partitions=partitions) as control,
    ):
        yield Hub(control, store, Path(folder))
