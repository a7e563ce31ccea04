"""`python -m benchmarks [--only NAME]... [--quick] [--json]`; `make bench` runs all of it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping

from benchmarks.measuring import Plan, Result, as_json, say, table
from benchmarks.suites import draining, event_hubs, inbox, opening, relay, replicas, resources, storage_queue, tracing

__all__: list[str] = []

_SUITES: Mapping[str, Callable[[Plan], list[Result]]] = {
    "opening": opening.run,
    "inbox": inbox.run,
    "inbox-room": inbox.room,
    "startup": resources.startup,
    "drain": draining.near,
    "drain-20ms": draining.far,
    "drain-fauxqs": draining.by_others,
    "storage-queue": storage_queue.near,
    "storage-queue-20ms": storage_queue.far,
    "event-hubs": event_hubs.drain,
    "latency": event_hubs.latency,
    "relay": relay.run,
    "replicas": replicas.run,
    "peers": draining.peers,
    "tracing": tracing.run,
    "idle": resources.idle,
    "memory": resources.memory,
}


def main() -> int:
    """Measure; exit 0 when every aim was met, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures this package on this machine.")
    parser.add_argument("--only", action="append", choices=list(_SUITES), metavar="NAME", help=", ".join(_SUITES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer messages: an idea, not a figure")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    options = parser.parse_args()
    plan = Plan(rounds=3 if options.quick else 5, quick=options.quick)
    results: list[Result] = []
    for name in options.only or _SUITES:
        begun = time.monotonic()
        say(f"{name} ...")
        results += _SUITES[name](plan)
        say(f"{name}: {time.monotonic() - begun:.0f} s")
    print(json.dumps(as_json(results), indent=2) if options.json else table(results))
    return int(any(result.met is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
