"""What is measured with: signed lab results of 1.4 KB, and what opens them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from consumer import DispatchTable
from consumer.events import LabResultEvent, ProgramEvent
from consumer.events.reading import ThriveReader
from consumer.guard import Guard
from consumer.route import Route
from consumer.signatures import ThriveSignature
from consumer.testing.samples import sample_body

__all__ = ["SECRET", "lab_result", "new_route", "new_signature", "signed_lab_results", "signed_programs"]

SECRET = "benchmark-secret"
_SEEDS = 400
_BODY_BYTES = 1_400
_MAX_AGE = 72 * 3600.0


def lab_result() -> dict[str, Any]:
    """The sample lab result whose JSON comes closest to 1.4 KB; always the same."""
    candidates = (sample_body(LabResultEvent, seed=seed) for seed in range(_SEEDS))
    return min(candidates, key=lambda body: abs(len(json.dumps(body)) - _BODY_BYTES))


def new_signature() -> ThriveSignature:
    """The default scheme, ages judged."""
    return ThriveSignature(secrets=[SECRET], max_age=_MAX_AGE, max_future_skew=300.0)


def new_route(table: DispatchTable, *, source: str = "labs") -> Route:
    """How the benchmark's messages are opened."""
    return Route(
        source=source,
        provider="thrive",
        namespace="",
        signature=new_signature(),
        reader=ThriveReader(),
        table=table,
        guard=Guard(),
    )


def signed_lab_results(count: int) -> list[str]:
    """Messages as the platform would put them on the queue, each another event."""
    return [message.decode() for message in _signed(lab_result(), count)]


def signed_programs(count: int) -> Iterable[str]:
    """The same with the smallest of events, made as they are asked for: for a backlog of a million."""
    return (message.decode() for message in _signed(sample_body(ProgramEvent, seed=1, inline=False), count))


def _signed(body: dict[str, Any], count: int) -> Iterable[bytes]:
    signature, now = new_signature(), datetime.now(UTC)
    before, _, after = json.dumps({**body, "event_id": "{n}"}).partition("{n}")
    return (signature.sign(f"{before}{number:08d}{after}", signed_at=now) for number in range(count))
