"""Sample events and event bodies: synthetic, but shaped like the platform's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from consumer.events import (
    BiomarkerEvent,
    DailyDeviceEvent,
    Event,
    LabResultEvent,
    NudgeEvent,
    ProgramEvent,
    SahhaEvent,
    ThriveEvent,
)
from consumer.events.patterns import PatternTable
from consumer.testing import synthetic
from consumer.testing.samples_sahha import sahha_body, sahha_sample

__all__ = ["sample", "sample_body"]

E = TypeVar("E", bound=Event)


class _Kind(NamedTuple):
    """How to make up the body of one shipped class."""

    event_type: str
    target_type: str
    id_field: str | None
    """The field of `data` that says the target's id; None: it says none."""
    data: Callable[[Random], dict[str, Any]]


_CARD = _Kind("coach.nudge.created", "card", "card_item_id", synthetic.nudge_card)
_HEALTH_ACTION = _Kind("coach.nudge.created", "health_action", "health_action_id", synthetic.health_action)
_KINDS: Mapping[type[Event], tuple[_Kind, ...]] = {
    LabResultEvent: (_Kind("lab.result.ready", "lab_result", "lab_result_id", synthetic.lab_result),),
    DailyDeviceEvent: (_Kind("daily.device_data.created", "daily_summary", None, synthetic.daily_summary),),
    NudgeEvent: (_CARD, _CARD, _HEALTH_ACTION),
    ProgramEvent: (_Kind("program.updated", "program", "program_id", synthetic.program),),
}


def sample(event_class: type[E], /, **changes: Any) -> E:
    """A realistic event of a class, with a fresh id; `changes` are values of its attributes.

        sample(LabResultEvent, user_id="u1")
        sample(NudgeEvent, data=HealthAction(health_action_id="a1", title="Walk"))
        sample(LabResultEvent, data=None)      as under the platform's basic contract

    A partner's own class gets `data` only if it is derived from a shipped one, or if you give it. Of Sahha's events
    `user_id` and `external_id` are always equal, and so are `occurred_at` and the body's time. Raises `TypeError` for a
    name that is no attribute of the class, `pydantic.ValidationError` for a value that does not fit.
    """
    names = {*event_class.model_fields, *({"value"} if issubclass(event_class, BiomarkerEvent) else ())}
    wrong = next((name for name in changes if name not in names), None)
    if wrong is not None:
        raise TypeError(f"{event_class.__name__} has no attribute {wrong!r}")
    if issubclass(event_class, SahhaEvent):
        return sahha_sample(event_class, changes)
    values: dict[str, Any] = {"provider": "thrive", **_body(event_class, Random(), target=changes.get("target"))}  # noqa: S311  # no secrets
    if "data" in changes and "target" not in changes:
        values["target"] = _target_of(changes["data"]) or values.get("target")
    return event_class.model_validate(values | changes)


def sample_body(
    event_class: type[Event], /, *, inline: bool = True, seed: int | None = None, **changes: Any
) -> dict[str, Any]:
    """The body of such an event as the platform would send it, ready for `json.dumps` and signing.

    `inline=False` leaves `data` out, as the basic contract does. The same `seed` gives the same body, ids included.
    `changes` are top-level fields of the body: JSON values, or models.
    """
    if issubclass(event_class, SahhaEvent):
        return sahha_body(event_class, Random(seed), {name: _as_json(value) for name, value in changes.items()})  # noqa: S311  # no secrets
    body = _body(event_class, Random(seed), target=changes.get("target"))  # noqa: S311  # no secrets
    if not inline:
        body.pop("data", None)
    body.update({name: _as_json(value) for name, value in changes.items()})
    return body


def _body(event_class: type[Event], random: Random, *, target: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "event_id": synthetic.identifier(random),
        "event_type": _event_type(event_class),
        "user_id": synthetic.identifier(random),
        "occurred_at": synthetic.moment(random).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    kinds = next((_KINDS[cls] for cls in event_class.__mro__ if cls in _KINDS), None)
    if kinds is None:
        return body
    kind = random.choice([kind for kind in kinds if kind.target_type == _part(target, "type")] or kinds)
    data = kind.data(random)
    if kind.id_field is None:
        target_id = synthetic.identifier(random)
    else:
        target_id = data[kind.id_field] = _part(target, "id") or data[kind.id_field]
    return body | {"target": {"type": kind.target_type, "id": target_id}, "data": data}


def _event_type(event_class: type[Event]) -> str:
    if not issubclass(event_class, ThriveEvent):
        return "sample.unknown.created"
    table = PatternTable({event_class: event_class.event_types})
    usual = next((_KINDS[cls][0].event_type for cls in event_class.__mro__ if cls in _KINDS), None)
    if usual is not None and table.find(usual):
        return usual
    names = [pattern.replace("*", "sample").replace("?", "x") for pattern in event_class.event_types]
    exact = [name for name, pattern in zip(names, event_class.event_types, strict=True) if name == pattern]
    return next(iter(exact + names), "sample.created")


def _target_of(data: Any) -> dict[str, Any] | None:
    """The target that belongs to a resource, if it is one that has an id."""
    for kind in (kind for kinds in _KINDS.values() for kind in kinds):
        found = _part(data, kind.id_field) if kind.id_field else None
        if found is not None:
            return {"type": kind.target_type, "id": found}
    return None


def _part(thing: Any, name: str) -> Any:
    """A part of a model or of the JSON object it is made from."""
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _as_json(value: Any) -> Any:
    return json.loads(value.model_dump_json()) if isinstance(value, BaseModel) else value
