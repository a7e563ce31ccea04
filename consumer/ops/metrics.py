"""Metrics of a worker in Prometheus' format, with bounded labels only: no id, no user, no free text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Counter
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from consumer.errors import CredentialsRefused, NotConfigured
from consumer.ops.registry import MetricRegistry
from consumer.ops.secret_metrics import SecretMetrics
from consumer.ops.source_metrics import SourceMetrics
from consumer.outcomes import Reject, Retry, Unavailable

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_CALL_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_AGE_BUCKETS: Final = (
    *(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY),
)
"""An event may have waited for as long as queues keep messages."""


class Metrics(MetricRegistry):
    """Every metric of one worker, in a registry of its own."""

    def __init__(self) -> None:
        super().__init__("worker")
        source = ["source"]
        # What becomes of messages
        self.received = self.counter("received", "Messages received from the queue.", source)
        self.handled = self.counter("handled", "Events whose effect is durable.", ["source", "event"])
        self.duplicates = self.counter("duplicates", "Events that had taken effect before.", source)
        self.retried = self.counter("retried", "Failed attempts that will be tried again.", ["source", "event"])
        self.dead_letters = self.counter("dead_letters", "Events put aside, by reason.", ["source", "reason"])
        self.given_back = self.counter("given_back", "Events given back unhandled, for trouble of our own.", source)
        self.accepted_to_handled = self.histogram(
            "accepted_to_handled_seconds",
            "From when the queue accepted a message to when its event's effect was durable.",
            source,
            buckets=_AGE_BUCKETS,
        )
        # What is in hand and what waits
        self.in_flight = self.read("gauge", "in_flight", "Deliveries in hand.", source)
        self.in_flight_bytes = self.read("gauge", "in_flight_bytes", "Size of the deliveries in hand.", source)
        self.oldest_age = self.read(
            "gauge",
            "oldest_age_seconds",
            "Age of the oldest message known: in hand, left by a pause, or seen waiting where the queue tells"
            " (not SQS); 0 with none.",
            source,
        )
        self.expiry_margin = self.read(
            "gauge",
            "expiry_margin_seconds",
            "Until the queue would delete the first of the messages known; no sample while there is none, or the queue"
            " keeps messages for ever.",
            source,
        )
        self.retention = self.read(
            "gauge", "retention_seconds", "How long the queue keeps a message, as the last one received told.", source
        )
        self.queue_messages = self.read(
            "gauge",
            "queue_messages",
            "Messages the queue holds, by state (visible, in_flight, delayed), as far as it tells; every worker of a"
            " source sees the same ones.",
            ["source", "state"],
        )
        self.backlog_updated = self.read(
            "gauge",
            "backlog_updated_timestamp_seconds",
            "When the queue last told what it holds.",
            source,
        )
        self.backlog_errors = self.counter("backlog_errors", "Times the queue did not tell what it holds.", source)
        self.parked_events = self.read("gauge", "parked_events", "Events that wait in the database.", source)
        # Receiving, settling, leases
        self.receive_errors = self.read("counter", "receive_errors", "Receives that failed.", source)
        self.leases_lost = self.counter("leases_lost", "Deliveries whose lease ran out or was taken away.", source)
        self.settle_failures = self.read(
            "counter", "settle_failures", "Settlements given up: those messages come again.", source
        )
        self.settle_seconds = self.histogram(
            "settle_seconds",
            "How long a call to the queue took, by operation (acknowledge, release, extend).",
            ["source", "operation"],
            buckets=_CALL_BUCKETS,
        )
        # Trouble of our own
        self.paused = self.gauge("source_paused", "1 while the source is paused.", source)
        self.paused_info = self.read(
            "gauge",
            "source_paused_info",
            "1 with the reason, while the source is paused: signatures, handlers, database, dead_letters, unavailable,"
            " credentials, operator or other.",
            ["source", "reason"],
        )
        # Partitions
        self.partitions = self.read("gauge", "partitions", "Partitions the queue has.", source)
        self.partitions_owned = self.read("gauge", "partitions_owned", "Partitions this worker reads.", source)
        self.partitions_stalled = self.read(
            "gauge", "partitions_stalled", "Partitions that stay silent although the queue has more of them.", source
        )
        self.partition_changes = self.read(
            "counter", "partition_changes", "Partitions taken and given up by this worker.", source
        )
        partition = ["source", "partition"]
        self.partition_lag = self.read(
            "gauge", "partition_lag_events", "Unfinished events of a partition this worker reads.", partition
        )
        self.partition_lag_seconds = self.read(
            "gauge",
            "partition_lag_seconds",
            "Age of the oldest unfinished event of a partition this worker reads; 0 with none.",
            partition,
        )
        self.checkpoint_age = self.read(
            "gauge",
            "checkpoint_age_seconds",
            "For how long finished events have waited for a checkpoint; 0 with none.",
            partition,
        )
        self.checkpoint_failures = self.read(
            "counter", "checkpoint_failures", "Checkpoints that could not be written.", source
        )
        # Handlers and what they call
        self._handler_seconds = self.histogram(
            "handler_seconds", "How long handlers run, when they succeed.", ["handler"], buckets=_BUCKETS
        )
        self._handler_failures = self.counter(
            "handler_failures",
            "Runs of handlers that did not succeed, by kind: error, timeout, retry, reject, unavailable.",
            ["handler", "kind"],
        )
        self._client_requests = self.counter(
            "client_requests",
            "Requests to a platform's API, by method and template, and outcome (2xx, 3xx, 4xx, 5xx, no_answer).",
            ["provider", "call", "outcome"],
        )
        self._client_seconds = self.histogram(
            "client_request_seconds", "How long requests to a platform's API take.", ["provider"], buckets=_CALL_BUCKETS
        )
        # Dead letters, inbox, secrets
        self.dead_letter_seconds = self.histogram(
            "dead_letter_write_seconds", "How long it took to make a batch durable.", buckets=_CALL_BUCKETS
        )
        self.dead_letter_failures = self.counter(
            "dead_letter_write_failures", "Batches of dead letters that could not be kept."
        )
        self.dead_letters_purged = self.counter(
            "dead_letters_purged", "Dead letters deleted because they were older than dead_letters.max_age."
        )
        self.unproven_dropped = self.counter(
            "unproven_dropped", "Unsigned or forged messages dropped beyond the quota."
        )
        self.inbox_pruned = self.counter("inbox_pruned_rows", "Rows deleted because the inbox need not remember them.")
        self.inbox_prune_failures = self.counter("inbox_prune_failures", "Prunings of the inbox that failed.")
        self.secrets = SecretMetrics(self)
        self._observe: dict[str, Callable[[float], None]] = {}
        self._failed: dict[tuple[str, str], Callable[[], None]] = {}
        self._requested: dict[tuple[str, str, str], Callable[[], None]] = {}

    def handler_ran(self, name: str, seconds: float) -> None:
        """One run of the handler `name` took this long."""
        observe = self._observe.get(name)
        if observe is None:
            observe = self._observe[name] = self._handler_seconds.labels(name).observe
        observe(seconds)

    def handler_failed(self, name: str, error: BaseException) -> None:
        """One run of the handler `name` raised this; only what kind of thing it is is kept."""
        kind = _kind(error)
        count = self._failed.get((name, kind))
        if count is None:
            count = self._failed[name, kind] = self._handler_failures.labels(name, kind).inc
        count()

    def platform(self, provider: str) -> Callable[[str, int | None, float], None]:
        """What to tell of each request to a platform: method and template, status or None, seconds."""
        observe = self._client_seconds.labels(provider).observe

        def requested(call: str, status: int | None, seconds: float) -> None:
            outcome = "no_answer" if status is None else f"{status // 100}xx"
            count = self._requested.get((provider, call, outcome))
            if count is None:
                count = self._requested[provider, call, outcome] = self._client_requests.labels(
                    provider, call, outcome
                ).inc
            count()
            observe(seconds)

        return requested

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


def _total(counter: Counter) -> int:
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def _kind(error: Any) -> str:
    kinds = (
        (Retry, "retry"),
        (Reject, "reject"),
        (Unavailable, "unavailable"),
        (CredentialsRefused, "unavailable"),
        (NotConfigured, "unavailable"),
        (TimeoutError, "timeout"),
    )
    return next((kind for made, kind in kinds if isinstance(error, made)), "error")
