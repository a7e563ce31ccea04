"""What opening a message costs, against the least that could be done to prove and read it."""

from __future__ import annotations

import hmac
import json
import time
from datetime import UTC, datetime

from benchmarks.material import SECRET, new_route, signed_lab_results
from benchmarks.measuring import Plan, Result, interleaved
from consumer import Context, DispatchTable
from consumer.deliveries import Held
from consumer.events import LabResultEvent
from consumer.opening import open_message
from consumer.sources.base import Message

__all__ = ["run"]

_MESSAGES = 4_000
_CLOSEST = 5
"""Short turns, many of them: noise of the machine lasts longer than one."""


def run(plan: Plan) -> list[Result]:
    """Split, verify, parse, read and route, against an HMAC, two parses and a validation of the same message."""
    messages = [body.encode() for body in signed_lab_results(plan.size(_MESSAGES))]
    table = DispatchTable()
    table.on(LabResultEvent)(_nothing)
    route, now = new_route(table), datetime.now(UTC)
    key = SECRET.encode()

    def ours() -> float:
        begun = time.perf_counter()
        for raw in messages:
            held = Held(Message(raw, "id", None, now), received_at=0.0)
            (item,) = open_message(held, route)
            assert item.handlers  # else something would be measured that does not work
        return (time.perf_counter() - begun) / len(messages) * 1e6

    def bare() -> float:
        begun = time.perf_counter()
        for raw in messages:
            _least(raw, key)
        return (time.perf_counter() - begun) / len(messages) * 1e6

    medians = interleaved({"bare": bare, "ours": ours}, plan.rounds * _CLOSEST)
    return [
        Result(
            what=f"open a lab result, {len(messages[0]):,} B",
            ours=medians["ours"],
            reference=medians["bare"],
            unit="us",
            most=1.5,
            against="hmac.digest + json.loads + model_validate_json",
        )
    ]


def _least(raw: bytes, key: bytes) -> LabResultEvent:
    envelope = json.loads(raw)
    body = envelope["body"]
    made = hmac.digest(key, f"{envelope['signed_at']}.{body}".encode(), "sha256").hex()
    assert hmac.compare_digest(made, envelope["signature"])
    return LabResultEvent.model_validate_json(body)


async def _nothing(event: LabResultEvent, context: Context) -> None:
    """A handler, so that there is one."""
