"""Metrics in Prometheus' format, with bounded labels only: no id, no user, no free text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from consumer.outcomes import DeadLettered, Duplicate, GivenBack, Handled, Verdict, WillRetry

__all__ = ["CONTENT_TYPE", "Metrics", "SourceMetrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "health_consumer"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Every metric of one worker, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        counter = functools.partial(Counter, namespace=_PREFIX, registry=self.registry)
        gauge = functools.partial(Gauge, namespace=_PREFIX, registry=self.registry)
        self.received = counter("received", "Messages received from the queue.", ["source"])
        self.handled = counter("handled", "Events whose effect is durable.", ["source", "event"])
        self.duplicates = counter("duplicates", "Events that had taken effect before.", ["source"])
        self.retried = counter("retried", "Failed attempts that will be tried again.", ["source", "event"])
        self.dead_letters = counter("dead_letters", "Events put aside, by reason.", ["source", "reason"])
        self.given_back = counter("given_back", "Deliveries given back unhandled, for trouble of our own.", ["source"])
        self.leases_lost = counter("leases_lost", "Deliveries whose lease ran out or was taken away.", ["source"])
        self.settle_failures = gauge("settle_failures", "Settlements given up since the start.", ["source"])
        self.unproven_dropped = gauge("unproven_dropped", "Unsigned or forged messages dropped beyond the quota.")
        self.in_flight = gauge("in_flight", "Deliveries in hand.", ["source"])
        self.in_flight_bytes = gauge("in_flight_bytes", "Size of the deliveries in hand.", ["source"])
        self.oldest_age = gauge(
            "oldest_age_seconds",
            "Age of the oldest delivery in hand, or left by a pause, since its queue took it.",
            ["source"],
        )
        self.paused = gauge("source_paused", "1 while the source is paused for trouble of our own.", ["source"])
        self._handler_seconds = Histogram(
            "handler_seconds",
            "How long handlers run.",
            ["handler"],
            namespace=_PREFIX,
            registry=self.registry,
            buckets=_BUCKETS,
        )
        self._observe: dict[str, Callable[[float], None]] = {}

    def handler_ran(self, name: str, seconds: float) -> None:
        """One run of the handler `name` took this long."""
        observe = self._observe.get(name)
        if observe is None:
            observe = self._observe[name] = self._handler_seconds.labels(name).observe
        observe(seconds)

    def source(self, name: str) -> SourceMetrics:
        """The metrics of one source, with its label filled in."""
        return SourceMetrics(self, name)

    def totals(self) -> dict[str, int]:
        """What became of events since the start, over all sources."""
        counters = {
            "handled": self.handled,
            "duplicates": self.duplicates,
            "retried": self.retried,
            "dead_letters": self.dead_letters,
        }
        return {name: _total(counter) for name, counter in counters.items()}

    def render(self) -> bytes:
        """The text a scrape answers with."""
        return generate_latest(self.registry)


def _total(counter: Counter) -> int:
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


class SourceMetrics:
    """One source's counters; children are kept, since looking labels up costs more than counting."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name
        self._events: dict[tuple[str, type[Any]], Any] = {}
        self.received = metrics.received.labels(name).inc
        self._duplicate = metrics.duplicates.labels(name).inc
        self._given_back = metrics.given_back.labels(name).inc
        self.lease_lost = metrics.leases_lost.labels(name).inc
        self.paused = metrics.paused.labels(name)
        self.paused.set(0)

    def outcome(self, verdict: Verdict, event: type[Any]) -> None:
        """Count what became of an event of this class."""
        if isinstance(verdict, Handled):
            self._event("handled", event)()
        elif isinstance(verdict, Duplicate):
            self._duplicate()
        elif isinstance(verdict, WillRetry):
            self._event("retried", event)()
        elif isinstance(verdict, DeadLettered):
            self._metrics.dead_letters.labels(self._name, verdict.reason).inc()
        elif isinstance(verdict, GivenBack):
            self._given_back()

    def watch(
        self,
        *,
        in_flight: Callable[[], float],
        in_flight_bytes: Callable[[], float],
        oldest_age: Callable[[], float],
        settle_failures: Callable[[], float],
    ) -> None:
        """Read these when scraped."""
        metrics = self._metrics
        metrics.in_flight.labels(self._name).set_function(in_flight)
        metrics.in_flight_bytes.labels(self._name).set_function(in_flight_bytes)
        metrics.oldest_age.labels(self._name).set_function(oldest_age)
        metrics.settle_failures.labels(self._name).set_function(settle_failures)

    def _event(self, metric: str, event: type[Any]) -> Any:
        child = self._events.get((metric, event))
        if child is None:
            counter = getattr(self._metrics, metric)
            child = self._events[metric, event] = counter.labels(self._name, event.__name__).inc
        return child
