"""What the demo puts on its queue of Sahha's webhooks: honest ones, and one of everything that can be wrong.

Each is a neutral envelope, as `consumer relay` makes it of a request. What Sahha created lies a day back at a fixed
hour, so that the same seed gives the same results whatever the time of day.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from random import Random
from typing import Any, Final

from consumer.demo_traffic import FIRST_HONEST, MEMBERS, Traffic
from consumer.envelope import wrap_neutral
from consumer.events import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from consumer.events.sahha_reading import event_id_of
from consumer.signatures import SahhaSignature
from consumer.testing import synthetic_sahha
from consumer.testing.synthetic_sahha import Person

__all__ = ["make_sahha_traffic"]

_KINDS: Final[Sequence[tuple[type[SahhaEvent], int]]] = [
    (ScoreEvent, 4),
    (BiomarkerEvent, 5),
    (ArchetypeEvent, 1),
    (DataLogEvent, 2),
]
_DAYS: Final = 7
_HOUR: Final = time(12)
_TOO_OLD: Final = timedelta(days=90)


@dataclass(slots=True)
class _Webhooks:
    """Makes messages of bodies."""

    signature: SahhaSignature
    now: datetime

    def message(self, cls: type[SahhaEvent], body: dict[str, Any], **changes: str | None) -> bytes:
        """A signed request as the relay puts it on a queue; `changes` are made to its headers, None takes one out."""
        raw = json.dumps(body, separators=(",", ":")).encode()
        headers = self.signature.sign(raw, external_id=body["externalId"], event_type=cls.event_types[0])
        return self.wrapped(raw, headers, **changes)

    def wrapped(self, raw: bytes, headers: dict[str, str], **changes: str | None) -> bytes:
        """Those bytes with those headers, changed by names with underscores."""
        changed = {name.replace("_", "-"): value for name, value in changes.items()}
        names = {name.lower(): value for name, value in headers.items()} | changed
        kept = {name: value for name, value in names.items() if value is not None}
        return wrap_neutral(provider="sahha", body=raw, headers=kept, received_at=self.now)


def make_sahha_traffic(signature: SahhaSignature, *, events: int, seed: int, now: datetime) -> Traffic:
    """Traffic of that many honest events; the same seed gives the same events, but for their dates."""
    draw = Random(seed)  # noqa: S311 - invented data, no secrets
    hooks = _Webhooks(signature, now)
    people = [synthetic_sahha.person(draw, member) for member in MEMBERS]
    noon = datetime.combine(now.date() - timedelta(days=1), _HOUR, now.tzinfo)
    honest = [_honest(draw, people, n, noon - timedelta(seconds=events - n)) for n in range(events)]
    messages = [hooks.message(cls, body) for cls, body in honest]
    scores = [body for cls, body in honest if cls is ScoreEvent]
    chosen = draw.sample(scores, k=min(len(scores), 5))
    later = messages[FIRST_HONEST:] + _odd_ones(hooks, draw, people, noon)
    update, first = _computed_again(draw, people[0], noon)
    later.append(hooks.message(ScoreEvent, update))
    draw.shuffle(later)
    again = draw.sample(messages, k=max(2, events // 30))
    conflicting = {**draw.choice([body for cls, body in honest if cls is ArchetypeEvent]), "value": "something else"}
    last = [hooks.message(ScoreEvent, first), hooks.message(ArchetypeEvent, conflicting)]
    ids = [event_id_of(ScoreEvent, body, b"") for body in chosen]
    return Traffic(
        messages=messages[:FIRST_HONEST] + later + again + last,
        failing=frozenset(ids[:1]),
        flaky=frozenset(ids[1:]),
    )


def _honest(
    draw: Random, people: list[Person], number: int, created: datetime
) -> tuple[type[SahhaEvent], dict[str, Any]]:
    """An event; the first few are one of each class."""
    classes, weights = zip(*_KINDS, strict=True)
    cls = classes[number] if number < len(classes) else draw.choices(classes, weights)[0]
    return cls, _body(cls, draw, draw.choice(people), created)


def _body(cls: type[SahhaEvent], draw: Random, who: Person, created: datetime) -> dict[str, Any]:
    day = created.date() - timedelta(days=draw.randint(1, _DAYS))
    make: dict[type[SahhaEvent], Callable[[], dict[str, Any]]] = {
        ScoreEvent: lambda: synthetic_sahha.score(draw, who, day=day, created=created),
        BiomarkerEvent: lambda: synthetic_sahha.biomarker(draw, who, day=day, created=created),
        ArchetypeEvent: lambda: synthetic_sahha.archetype(draw, who, created=created),
        DataLogEvent: lambda: synthetic_sahha.data_log(draw, who, received=created),
    }
    return make[cls]()


def _computed_again(draw: Random, who: Person, noon: datetime) -> tuple[dict[str, Any], dict[str, Any]]:
    """A score and what it was an hour before; the newest of all scores, so that it is one of those shown."""
    newest, before = noon + timedelta(hours=2), noon + timedelta(hours=1)
    update, first = (
        synthetic_sahha.score(draw, who, "sleep", day=noon.date(), created=created) for created in (newest, before)
    )
    return {**update, "score": 0.82, "state": "high"}, {**first, "score": 0.41, "state": "low"}


def _odd_ones(hooks: _Webhooks, draw: Random, people: list[Person], noon: datetime) -> list[bytes]:
    """What must not reach a handler, and what none can handle."""

    def body(cls: type[SahhaEvent], *, created: datetime = noon, **changes: Any) -> dict[str, Any]:
        return {**_body(cls, draw, draw.choice(people), created), **changes}

    stranger = _Webhooks(SahhaSignature(secrets=["a guess"]), hooks.now)
    nobody = body(BiomarkerEvent)
    del nobody["profileId"]
    changed = body(ScoreEvent)
    raw = json.dumps(changed).encode()
    headers = hooks.signature.sign(raw, external_id=changed["externalId"], event_type=ScoreEvent.event_types[0])
    return [
        b"<webhook>not what was agreed</webhook>",
        hooks.message(ScoreEvent, body(ScoreEvent), x_signature=None),
        stranger.message(BiomarkerEvent, body(BiomarkerEvent)),
        hooks.wrapped(raw.replace(b'"state"', b'"State"'), headers),
        # Neither of these two headers is signed: only what the body says of itself counts.
        hooks.message(ScoreEvent, body(ScoreEvent), x_external_id="member-99"),
        hooks.message(ScoreEvent, body(ScoreEvent), x_event_type=ArchetypeEvent.event_types[0]),
        hooks.message(BiomarkerEvent, body(BiomarkerEvent, created=noon - _TOO_OLD)),
        hooks.message(ScoreEvent, body(ScoreEvent, score="high")),
        hooks.message(BiomarkerEvent, nobody),
        *(hooks.message(ScoreEvent, body(ScoreEvent), x_event_type="InsightCreatedIntegrationEvent") for _ in range(2)),
    ]
