"""A registry of metrics that knows what it holds: for the page that lists them, and for whoever checks alerts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consumer import __version__
from consumer.failures import describe

__all__ = ["Listed", "MetricRegistry", "Readings", "markdown_table"]

_log = structlog.get_logger("worker")

_PREFIX: Final = "health_consumer"

Readings = Callable[[], Iterable[tuple[Sequence[str], float]]]
"""What a metric is at the moment: label values and the value they have."""
Read = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One metric, as people and queries name it."""

    name: str
    """As it is in a query; a histogram's is followed by `_bucket`, `_sum` or `_count` there."""
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


class MetricRegistry:
    """Makes metrics with one prefix. `component` says in `build_info` what kind of process this is."""

    def __init__(self, component: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.listed: list[Listed] = []
        """Every metric of ours; those of the process, the platform and the garbage collector are the library's."""
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = self.gauge("build_info", "1, with what runs as labels.", ["component", "version", "python"])
        build.labels(component, __version__, platform.python_version()).set(1)

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        """A counter, named without its `_total`."""
        self._list(f"{name}_total", "counter", labels, meaning)
        return Counter(name, meaning, labels, namespace=_PREFIX, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge that is set."""
        self._list(name, "gauge", labels, meaning)
        return Gauge(name, meaning, labels, namespace=_PREFIX, registry=self.registry)

    def histogram(self, name: str, meaning: str, labels: Sequence[str] = (), *, buckets: Sequence[float]) -> Histogram:
        """A histogram with these buckets, in the unit that the name ends with."""
        self._list(name, "histogram", labels, meaning)
        return Histogram(name, meaning, labels, namespace=_PREFIX, registry=self.registry, buckets=buckets)

    def read(self, kind: Read, name: str, meaning: str, labels: Sequence[str] = ()) -> ReadAtScrape:
        """A metric that something else keeps, and that is read whenever somebody asks."""
        self._list(f"{name}_total" if kind == "counter" else name, kind, labels, meaning)
        collector = ReadAtScrape(kind, f"{_PREFIX}_{name}", meaning, labels)
        self.registry.register(collector)
        return collector

    def render(self) -> bytes:
        """The text a scrape answers with."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """A sample by its full name without the prefix; None where there is none with exactly these labels."""
        return self.registry.get_sample_value(f"{_PREFIX}_{name}", labels)

    def _list(
        self, name: str, kind: Literal["counter", "gauge", "histogram"], labels: Sequence[str], meaning: str
    ) -> None:
        self.listed.append(Listed(f"{_PREFIX}_{name}", kind, tuple(labels), meaning))


class ReadAtScrape(Collector):
    """One metric whose values are asked for when it is scraped."""

    def __init__(self, kind: Read, name: str, meaning: str, labels: Sequence[str]) -> None:
        self._family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._readings: list[Readings] = []
        self._said = False

    def add(self, readings: Readings) -> None:
        """Ask this one too; what it answers must differ in its labels from what the others do."""
        self._readings.append(readings)

    def add_value(self, labels: Sequence[str], value: Callable[[], float | None]) -> None:
        """Ask for one value, which has these labels; None: there is none at the moment."""

        def readings() -> Iterator[tuple[Sequence[str], float]]:
            found = value()
            if found is not None:
                yield labels, found

        self.add(readings)

    def describe(self) -> Iterable[Metric]:
        """The metric without values."""
        return [self._family(self._name, self._meaning, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """The metric as it is now; what cannot be read is left out, and the log says so once."""
        family = self._family(self._name, self._meaning, labels=self._labels)
        for readings in self._readings:
            try:
                for labels, value in readings():
                    family.add_metric(labels, float(value))
            except Exception as error:  # noqa: BLE001 - a source of the user's own must not cost the others' metrics
                if not self._said:
                    _log.warning("metric_unknown", metric=self._name, **describe(error))
                self._said = True
        return [family]


def markdown_table(registry: MetricRegistry) -> str:
    """The metrics of a registry for the documentation."""
    lines = ["| Metric | Kind | Labels | Meaning |", "|---|---|---|---|"]
    for one in registry.listed:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.meaning} |")
    return "\n".join(lines)
