"""What the probes say of a worker that is being opened, and then of the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.ops.server import Probes

if TYPE_CHECKING:
    from consumer.worker import Worker

__all__ = ["StartUp"]


class StartUp:
    """Where the start of a worker has got to. It is alive meanwhile, and neither started nor ready."""

    def __init__(self) -> None:
        self._doing = "loading the handlers"
        self.worker: Worker | None = None
        """The worker, once everything it stands on is open."""

    def doing(self, what: str) -> None:
        """This is what the start takes its time over now."""
        self._doing = what

    def done(self, worker: Worker) -> None:
        """Settings, handlers, database, dead letters and queues are there."""
        self.worker = worker

    @property
    def probes(self) -> Probes:
        """What to serve from the first moment on."""
        return Probes(not_started=self._not_started, not_live=self._not_live, not_ready=self._not_ready)

    def _not_started(self) -> str | None:
        return f"starting: {self._doing}" if self.worker is None else None

    def _not_live(self) -> str | None:
        return None if self.worker is None else self.worker.not_live()

    def _not_ready(self) -> str | None:
        return self._not_started() if self.worker is None else self.worker.not_ready()
