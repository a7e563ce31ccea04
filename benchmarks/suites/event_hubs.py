"""How fast an event hub is read, and how late: the worker, part by part, against Azure's SDK alone."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from benchmarks.draining import stop, turn
from benchmarks.hubs import EVENT_HUB, Hub, event_hub
from benchmarks.material import signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved, say
from benchmarks.programs import Program, bare, ours
from benchmarks.progress import Progress
from benchmarks.queues import ENVIRONMENT, ROOT

__all__ = ["drain", "latency"]

_EVENTS: Final = 60_000
_HANDLED: Final = 24_000
_INBOX: Final = 12_000
_PARTITIONS: Final = 4
_FEW: Final = 300
_MANY: Final = 3_000
"""Events fetched ahead for each partition. The default is few: the SDK takes in no more between two sleeps of 50 ms."""
_IN_FLIGHT: Final = {_FEW: 200, _MANY: 5_000}
"""The default, and room for one fetch of a partition beside what the others have in hand."""

_FEWER_ROUNDS: Final = 3

_SAMPLES: Final = 30
"""In each round."""
_LATENCY_ROUNDS: Final = 2
_LATEST: Final = 10.0
_SETTLE: Final = 1.0
"""Seconds after the first event before a reader counts as idle."""


def drain(plan: Plan) -> list[Result]:
    """Four partitions from their beginning, with a prefetch that keeps the CPU busy, and with the defaults."""
    bodies = signed_lab_results(plan.size(_EVENTS))
    handled, stored = bodies[: plan.size(_HANDLED)], bodies[: plan.size(_INBOX)]
    with event_hub(partitions=_PARTITIONS) as hub:
        hub.send(bodies)
        many = interleaved(
            {
                "bare": turn(hub, bodies, _bare(hub, _MANY)),
                "delivery": turn(hub, bodies, _ours(hub, "delivery", _MANY)),
                "handlers": turn(hub, handled, _ours(hub, "handlers", _MANY)),
                "inbox": turn(hub, stored, _ours(hub, "inbox", _MANY)),
            },
            plan.rounds,
        )
        few = interleaved(
            {
                "bare": turn(hub, bodies, _bare(hub, _FEW)),
                "delivery": turn(hub, bodies, _ours(hub, "delivery", _FEW)),
                "handlers": turn(hub, handled, _ours(hub, "handlers", _FEW)),
            },
            _FEWER_ROUNDS,
        )
    return [
        _against_sdk("receive and settle only", many, "delivery", _MANY, least=0.9),
        _against_sdk("verified, typed, no-op handler", many, "handlers", _MANY),
        Result(
            what=f"event hub, prefetch {_MANY:,}: with the inbox in SQLite and one insert",
            ours=many["inbox"],
            unit="events/s",
            least=2_500,
            note="every commit durable",
        ),
        _against_sdk("receive and settle only", few, "delivery", _FEW, least=0.9),
        _against_sdk("verified, typed, no-op handler", few, "handlers", _FEW),
    ]


def latency(plan: Plan) -> list[Result]:
    """One event at a time on an idle hub: from its sending to the handler's start."""
    waits: dict[str, list[float]] = {"bare": [], "ours": []}
    with event_hub(partitions=_PARTITIONS) as hub:
        programs = {"bare": _bare(hub, _FEW), "ours": _ours(hub, "handlers", _FEW, "--handled")}
        for _ in range(_LATENCY_ROUNDS):
            for name, program in programs.items():
                waits[name] += _waits(hub, program, plan.size(_SAMPLES))
                say(f"  {name}: {statistics.median(waits[name]):,.0f} ms so far")
    return [
        _waited(waits, "median", statistics.median, most=1.5),
        _waited(waits, "p95", lambda values: statistics.quantiles(values, n=20)[-1]),
    ]


def _waited(
    waits: Mapping[str, Sequence[float]],
    name: str,
    of: Callable[[Sequence[float]], float],
    *,
    most: float | None = None,
) -> Result:
    return Result(
        what=f"event hub: from sending to the handler, {name}",
        ours=of(waits["ours"]),
        reference=of(waits["bare"]),
        unit="ms",
        most=most,
        against="bare SDK, which sleeps 50 ms in two loops",
        note=f"{len(waits['ours'])} events",
    )


def _waits(hub: Hub, program: Program, count: int) -> list[float]:
    """Milliseconds that events waited, one after the other, with pauses of any length between them."""
    container = hub.filled([])
    made, progress = program.on(container), hub.watched(container)
    with subprocess.Popen(
        made.command, cwd=ROOT, env={**ENVIRONMENT, **made.env}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as running:
        try:
            return list(islice(_each_wait(hub, progress), count))
        finally:
            stop(running)


def _each_wait(hub: Hub, progress: Progress) -> Iterator[float]:
    # What earlier readers had comes first: the hub keeps it.
    sent = hub.sent + 1
    hub.send(signed_lab_results(1))
    _wait_for(progress, sent, limit=3 * _LATEST)
    time.sleep(_SETTLE)
    while True:
        # Pauses of any length, so that no loop is always met at the same point.
        time.sleep(random.uniform(0.1, 0.3))
        (body,) = signed_lab_results(1)
        at = time.monotonic()
        hub.send([body])
        sent += 1
        _wait_for(progress, sent, limit=_LATEST)
        yield (progress.at - at) * 1e3


def _wait_for(progress: Progress, count: int, *, limit: float) -> None:
    until = time.monotonic() + limit
    while progress.count < count:
        if time.monotonic() > until:
            raise RuntimeError(f"{progress.count} of {count} events arrived in time")
        time.sleep(0.002)


def _bare(hub: Hub, prefetch: int) -> Program:
    return bare(
        "bare_event_hubs",
        EVENT_HUB,
        "{queue}",
        "--prefetch",
        str(prefetch),
        BENCH_CONNECTION_STRING=hub.connection_string,
        BENCH_STORE=hub.store,
        BENCH_PROGRESS=hub.progress,
    )


def _ours(hub: Hub, what: str, prefetch: int, *arguments: str) -> Program:
    return ours(
        what,
        *arguments,
        max_in_flight=_IN_FLIGHT[prefetch],
        progress=hub.progress,
        kind="event_hubs",
        connection_string=hub.connection_string,
        event_hub=EVENT_HUB,
        checkpoints__connection_string=hub.store,
        checkpoints__container="{queue}",
        prefetch=str(prefetch),
    )


def _against_sdk(what: str, rates: dict[str, float], name: str, prefetch: int, *, least: float | None = None) -> Result:
    return Result(
        what=f"event hub, prefetch {prefetch:,}: {what}",
        ours=rates[name],
        reference=rates["bare"],
        unit="events/s",
        least=least,
        against="bare SDK, same prefetch",
        note=f"{_IN_FLIGHT[prefetch]:,} in flight",
    )
