"""What the demo puts on its queue of Thrive's events: honest ones, and one of everything that can be wrong.

`consumer.demo_traffic_sahha` does the same for Sahha.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from consumer.events import DailyDeviceEvent, Event, LabResultEvent, NudgeEvent, ProgramEvent
from consumer.signatures import ThriveSignature
from consumer.testing.samples import sample_body

__all__ = ["FEWEST", "FIRST_HONEST", "MEMBERS", "Traffic", "make_traffic"]

FEWEST = 40
"""Fewest honest events: enough for each kind of trouble to have one to itself."""

MEMBERS = [f"member-{number:02d}" for number in range(1, 13)]
"""Whose events they are, on both platforms."""
_KINDS: list[tuple[type[Event], int]] = [(LabResultEvent, 4), (DailyDeviceEvent, 3), (NudgeEvent, 2), (ProgramEvent, 1)]
_BASIC_SHARE = 0.15
FIRST_HONEST = 12
"""How many honest events come first: a source whose first signatures are all bad is paused, and rightly so."""


@dataclass(slots=True)
class Traffic:
    """Messages in the order they go on the queue, and the ids of events that the demo's handler stumbles over."""

    messages: list[bytes] = field(default_factory=list)
    failing: frozenset[str] = frozenset()
    """The handler fails on these, however often it tries."""
    flaky: frozenset[str] = frozenset()
    """These are not ready at the first attempt."""


def make_traffic(signature: ThriveSignature, *, events: int, seed: int, now: datetime) -> Traffic:
    """Traffic of that many honest events; the same seed gives the same events."""
    draw = Random(seed)  # noqa: S311 - invented data, no secrets
    bodies = [_honest(draw) for _ in range(events)]
    messages = [
        signature.sign(json.dumps(body), signed_at=now - timedelta(seconds=events - i)) for i, body in enumerate(bodies)
    ]
    labs = [body["event_id"] for body in bodies if body["event_type"] == "lab.result.ready"]
    chosen = draw.sample(labs, k=min(len(labs), 10))
    later = messages[FIRST_HONEST:] + _odd_ones(signature, draw, now)
    draw.shuffle(later)
    again = draw.sample(messages, k=max(3, events // 30))
    return Traffic(
        messages=messages[:FIRST_HONEST] + later + again + _conflicting(signature, bodies, chosen, draw),
        failing=frozenset(chosen[:4]),
        flaky=frozenset(chosen[4:]),
    )


def _honest(draw: Random, **changes: Any) -> dict[str, Any]:
    classes, weights = zip(*_KINDS, strict=True)
    (event_class,) = draw.choices(classes, weights)
    inline = draw.random() >= _BASIC_SHARE
    changes = {"user_id": draw.choice(MEMBERS), **changes}
    return sample_body(event_class, inline=inline, seed=draw.getrandbits(64), **changes)


def _odd_ones(signature: ThriveSignature, draw: Random, now: datetime) -> list[bytes]:
    """What must not reach a handler, and what none can handle."""

    def sign(body: dict[str, Any], *, age: timedelta = timedelta()) -> bytes:
        return signature.sign(json.dumps(body), signed_at=now - age)

    def without(name: str) -> dict[str, Any]:
        return {key: value for key, value in _honest(draw).items() if key != name}

    unsigned = {"signed_at": now.isoformat(), "body": json.dumps(_honest(draw))}
    stranger = ThriveSignature(secrets=["a guess"])
    return [
        b"<event>not what was agreed</event>",
        json.dumps(unsigned).encode(),
        *(stranger.sign(json.dumps(_honest(draw)), signed_at=now) for _ in range(2)),
        sign(_honest(draw, user_id="member-01")).replace(b"member-01", b"member-99"),
        *(sign(_honest(draw), age=age) for age in (timedelta(days=30), timedelta(days=4), -timedelta(hours=2))),
        sign(without("event_id")),
        sign(without("user_id")),
        *(sign(_honest(draw, event_type="coach.journey.milestone_reached")) for _ in range(2)),
    ]


def _conflicting(signature: ThriveSignature, bodies: list[dict[str, Any]], but: list[str], draw: Random) -> list[bytes]:
    """Events under an id that another body has had before."""
    chosen = draw.sample([body["event_id"] for body in bodies if body["event_id"] not in but], k=2)
    return [signature.sign(json.dumps(_honest(draw, event_id=event_id))) for event_id in chosen]
