"""What became of files of secrets that changed: the same metrics for worker and relay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from consumer.ops.registry import MetricRegistry

__all__ = ["SecretMetrics"]


class SecretMetrics:
    """Counts in a registry."""

    def __init__(self, registry: MetricRegistry) -> None:
        count = registry.counter(
            "secret_reloads", "Files of secrets that changed, by result: done, failed.", ["result"]
        )
        self._count = {result: count.labels(result).inc for result in ("done", "failed")}
        self._when = registry.gauge(
            "secret_reload_timestamp_seconds", "When secrets that had changed were last put to use; 0: never."
        )

    def read(self, result: Literal["done", "failed"]) -> None:
        """A file of secrets had changed, and was put to use or could not be."""
        self._count[result]()
        if result == "done":
            self._when.set(time.time())
