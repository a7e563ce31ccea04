"""The relay's own metrics, in a registry of its own; the only label is a status."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["RelayMetrics"]

_PREFIX = "health_consumer"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class RelayMetrics:
    """What became of webhooks, how many are in hand, and how long they took."""

    def __init__(self, in_hand: Callable[[], float]) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "relay_requests", "Requests answered, by status.", ["status"], namespace=_PREFIX, registry=self.registry
        )
        gauge = Gauge("relay_in_hand", "Webhooks in hand.", namespace=_PREFIX, registry=self.registry)
        gauge.set_function(in_hand)
        self._seconds = Histogram(
            "relay_seconds",
            "From a webhook's headers until the queue had accepted it.",
            namespace=_PREFIX,
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._counts: dict[int, Counter] = {}

    def took(self, seconds: float) -> None:
        """A webhook was put on the queue, which took so long."""
        self._seconds.observe(seconds)

    def answered(self, status: int) -> None:
        """A request was answered with this status, one of ours."""
        count = self._counts.get(status)
        if count is None:
            count = self._counts[status] = self._requests.labels(str(status))
        count.inc()

    def total(self, status: int) -> int:
        """How many requests were answered with this status."""
        return int(self.registry.get_sample_value(f"{_PREFIX}_relay_requests_total", {"status": str(status)}) or 0)

    def render(self) -> bytes:
        """The text a scrape answers with."""
        return generate_latest(self.registry)
