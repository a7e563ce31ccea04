"""How fast a queue in SQS is emptied: the worker, part by part, against the barest loop and against others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from benchmarks.draining import drain, turn
from benchmarks.material import signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved, say
from benchmarks.peers import PEERS, Peer
from benchmarks.programs import Program, bare, ours
from benchmarks.queues import QueueServer, fauxqs, stub

__all__ = ["by_others", "far", "near", "peers"]

_MESSAGES = 20_000
_SQLITE_MESSAGES = 12_000
_PEER_MESSAGES = 4_000
_FAUXQS_MESSAGES = 8_000
_FAR = 0.020
_POLLERS = 20
"""What `max_in_flight=200`, the default, allows."""
_LOOP = f"bare loop, {_POLLERS} pollers"


def near(plan: Plan) -> list[Result]:
    """The stub on loopback, no latency: everything is our own CPU."""
    bodies = signed_lab_results(plan.size(_MESSAGES))
    with stub() as server:
        rates = interleaved(
            {
                "bare": turn(server, bodies, _bare()),
                "delivery": turn(server, bodies, _ours("delivery")),
                "handlers": turn(server, bodies, _ours("handlers")),
                "inbox": turn(server, bodies[: plan.size(_SQLITE_MESSAGES)], _ours("inbox")),
            },
            plan.rounds,
        )
    return [
        _against_loop("drain: receive and settle only", rates, "delivery", least=0.9),
        _against_loop("drain: verified, typed, no-op handler", rates, "handlers", least=0.6),
        Result(
            what="drain: with the inbox in SQLite and one insert",
            ours=rates["inbox"],
            unit="msg/s",
            least=2_500,
            note="every commit durable",
        ),
    ]


def far(plan: Plan) -> list[Result]:
    """The same with 20 ms for each call, as a region nearby has."""
    bodies = signed_lab_results(plan.size(_MESSAGES))
    with stub(latency=_FAR) as server:
        rates = interleaved(
            {
                "bare": turn(server, bodies, _bare()),
                "delivery": turn(server, bodies, _ours("delivery")),
                "handlers": turn(server, bodies, _ours("handlers")),
            },
            plan.rounds,
        )
    return [
        _against_loop("drain at 20 ms: receive and settle only", rates, "delivery", least=0.9),
        _against_loop("drain at 20 ms: verified, typed, no-op handler", rates, "handlers", least=0.9),
    ]


def by_others(plan: Plan) -> list[Result]:
    """A check on the stub: the same two on a server by others, which is slower than either."""
    bodies = signed_lab_results(plan.size(_FAUXQS_MESSAGES))
    with fauxqs() as server:
        rates = interleaved(
            {"bare": turn(server, bodies, _bare()), "handlers": turn(server, bodies, _ours("handlers"))}, 3
        )
    return [_against_loop("drain from fauxqs: verified, typed, no-op handler", rates, "handlers")]


def peers(plan: Plan) -> list[Result]:
    """Against other Python consumers, which verify nothing."""
    bodies = signed_lab_results(plan.size(_MESSAGES))
    few = bodies[: max(1_000, plan.size(_PEER_MESSAGES))]
    contestants = {}
    failed = []
    with stub() as server:
        for peer in PEERS:
            try:
                contestants[peer.name] = _peer_turn(server, few, peer)
            except (OSError, subprocess.SubprocessError) as error:
                say(f"{peer.version} could not be installed: {error}")
                failed.append(peer.name)
        contestants["ours"] = turn(server, bodies, _ours("handlers"))
        rates = interleaved(contestants, plan.rounds)
    ours = rates.pop("ours")
    results = [
        Result(
            what="drain against a peer: no-op handler", ours=ours, reference=rate, unit="msg/s", least=4, against=name
        )
        for name, rate in rates.items()
    ]
    missing = [
        Result(what="drain against a peer: no-op handler", ours=ours, unit="msg/s", note=f"{name} NOT INSTALLED")
        for name in failed
    ]
    return results + missing


def _peer_turn(server: QueueServer, bodies: Sequence[str], peer: Peer) -> Callable[[], float]:
    program = Program(peer.command(), {"BENCH_QUEUE_URL": "{queue}"})
    messages = [peer.message(number, body) for number, body in enumerate(bodies)]
    return lambda: drain(server, messages, program).rate


def _bare() -> Program:
    return bare("bare_sqs", "{queue}", "--pollers", str(_POLLERS))


def _ours(what: str) -> Program:
    # Polls as short as the loop's own: a worker that stops waits for the one under way.
    return ours(what, max_in_flight=10 * _POLLERS, kind="sqs", queue_url="{queue}", poll_wait="1s")


def _against_loop(what: str, rates: dict[str, float], name: str, *, least: float | None = None) -> Result:
    return Result(what=what, ours=rates[name], reference=rates["bare"], unit="msg/s", least=least, against=_LOOP)
