"""The relay's own metrics, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter

from consumer.ops.registry import MetricRegistry
from consumer.ops.secret_metrics import SecretMetrics

__all__ = ["RelayMetrics"]

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)


class RelayMetrics(MetricRegistry):
    """What became of webhooks, how many are in hand, and how long they took."""

    def __init__(self, in_hand: Callable[[], float]) -> None:
        super().__init__("relay")
        self._requests = self.counter("relay_requests", "Requests answered, by status.", ["status"])
        self.read("gauge", "relay_in_hand", "Webhooks in hand.").add_value((), in_hand)
        self._seconds = self.histogram(
            "relay_seconds", "From a webhook's headers until the queue had accepted it.", buckets=_BUCKETS
        )
        self.secrets = SecretMetrics(self)
        self._counts: dict[int, Counter] = {}
        for status in (200, 503):
            # Known from the start: a rate does not see a counter's first value.
            self._counts[status] = self._requests.labels(str(status))

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
        return int(self.value("relay_requests_total", status=str(status)) or 0)
