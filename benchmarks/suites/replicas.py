"""What a second worker adds: one queue, one PostgreSQL inbox, every commit durable, all of it on the same cores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from benchmarks.draining import drain
from benchmarks.material import signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved, say
from benchmarks.programs import Program, ours
from benchmarks.queues import QueueServer, stub
from consumer.database import Database
from consumer.migrations import migrate
from tests.servers.postgres import PostgresServer, postgres_server

__all__ = ["run"]

_EFFECTS = "CREATE TABLE bench_effects (event_id TEXT, user_id TEXT)"
"""Here, since two workers that make it at once get in each other's way."""
_WAITING = 1_200
_WAITING_IN_FLIGHT = 20
"""Deliveries a worker holds at once: with 0.2 s each, no more than 100 a second."""
_BUSY = 12_000
_BUSY_IN_FLIGHT = 200


def run(plan: Plan) -> list[Result]:
    """One worker against two: with handlers that wait for somebody else, and with handlers that do not."""
    bodies = signed_lab_results(plan.size(max(_WAITING, _BUSY)))
    waiting, busy = bodies[: plan.size(_WAITING)], bodies[: plan.size(_BUSY)]
    with stub() as server, postgres_server(durable=True) as postgres:
        rates = interleaved(
            {
                "waiting": _turn(server, postgres, waiting, "waiting", _WAITING_IN_FLIGHT, copies=1),
                "waiting, two": _turn(server, postgres, waiting, "waiting", _WAITING_IN_FLIGHT, copies=2),
                "busy": _turn(server, postgres, busy, "inbox", _BUSY_IN_FLIGHT, copies=1),
                "busy, two": _turn(server, postgres, busy, "inbox", _BUSY_IN_FLIGHT, copies=2),
            },
            plan.rounds,
        )
    return [
        Result(
            what="two workers: a handler that waits 0.2 s and inserts, 20 at once each",
            ours=rates["waiting, two"],
            reference=rates["waiting"],
            unit="msg/s",
            least=1.8,
            against="one worker",
            note="PostgreSQL, durable",
        ),
        Result(
            what="two workers: a handler that only inserts, 200 at once each",
            ours=rates["busy, two"],
            reference=rates["busy"],
            unit="msg/s",
            against="one worker",
            note="PostgreSQL and the queue's stand-in are on the same cores",
        ),
    ]


def _turn(
    server: QueueServer, postgres: PostgresServer, bodies: Sequence[str], what: str, in_flight: int, *, copies: int
) -> Callable[[], float]:
    async def take() -> float:
        async with postgres.fresh_database() as url:
            database = Database(url)
            try:
                await database.open()
                await migrate(database)
                async with database.engine.begin() as connection:
                    await connection.execute(sa.text(_EFFECTS))
            finally:
                await database.close()
            made = ours(what, max_in_flight=in_flight, kind="sqs", queue_url="{queue}", poll_wait="1s")
            program = Program(made.command, {**made.env, "CONSUMER_DATABASE__URL": url})
            drained = await asyncio.to_thread(drain, server, bodies, program, copies=copies)
        say(f"    {drained.cpu:,.0f} us of CPU each")
        return drained.rate

    return lambda: asyncio.run(take())
