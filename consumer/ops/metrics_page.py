"""The tables of metrics in docs/observability.md: `python -m consumer.ops.metrics_page` prints them."""

from __future__ import annotations

from consumer.ops.metrics import Metrics
from consumer.ops.registry import markdown_table
from consumer.relay.metrics import RelayMetrics

__all__ = ["tables"]


def tables() -> str:
    """A table for the worker, and one for the relay, in Markdown."""
    relay = RelayMetrics(lambda: 0.0)
    return f"Worker:\n\n{markdown_table(Metrics())}\n\nRelay:\n\n{markdown_table(relay)}"


if __name__ == "__main__":
    print(tables())  # noqa: T201 - what it is for
