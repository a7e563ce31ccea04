"""How fast an Azure Storage Queue is emptied: the worker, part by part, against the barest loop on Azure's SDK.

The service deletes one message a call, so every figure here is a number of calls a second.
"""

from __future__ import annotations

from benchmarks.draining import turn
from benchmarks.material import signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved
from benchmarks.programs import Program, bare, ours
from benchmarks.queues import StorageStub, storage_stub

__all__ = ["far", "near"]

_MESSAGES = 4_000
_DELETES = 32
"""At once; what our adapter uses, and more gained neither of them anything."""
_FAR = 0.020
_IN_FLIGHT = 200
"""The default."""


def near(plan: Plan) -> list[Result]:
    """The stub on loopback, no latency: everything is our own CPU, and most of that the SDK's."""
    return _measured(plan, latency=0.0, what="storage queue")


def far(plan: Plan) -> list[Result]:
    """The same with 20 ms for each call, as a region nearby has."""
    return _measured(plan, latency=_FAR, what="storage queue at 20 ms")


def _measured(plan: Plan, *, latency: float, what: str) -> list[Result]:
    bodies = signed_lab_results(plan.size(_MESSAGES))
    with storage_stub(latency=latency) as server:
        rates = interleaved(
            {
                "bare": turn(server, bodies, _bare(server)),
                "delivery": turn(server, bodies, _ours("delivery", server)),
                "handlers": turn(server, bodies, _ours("handlers", server)),
            },
            plan.rounds,
        )
    return [
        _against_sdk(f"{what}: receive and settle only", rates, "delivery", least=0.9),
        _against_sdk(f"{what}: verified, typed, no-op handler", rates, "handlers", least=0.8),
    ]


def _bare(server: StorageStub) -> Program:
    string = server.connection_string
    return bare("bare_storage_queue", "{queue}", "--deletes", str(_DELETES), BENCH_CONNECTION_STRING=string)


def _ours(what: str, server: StorageStub) -> Program:
    string = server.connection_string
    return ours(what, max_in_flight=_IN_FLIGHT, kind="storage_queue", connection_string=string, queue="{queue}")


def _against_sdk(what: str, rates: dict[str, float], name: str, *, least: float) -> Result:
    against = f"bare SDK, {_DELETES} deletes at once"
    return Result(what=what, ours=rates[name], reference=rates["bare"], unit="msg/s", least=least, against=against)
