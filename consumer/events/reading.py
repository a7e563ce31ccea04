"""From a verified body to a typed event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from consumer.errors import InvalidEvent, SettingsError
from consumer.events.base import Event, UnknownEvent
from consumer.events.invalid import describe
from consumer.events.patterns import PatternTable
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent
from consumer.signatures import Opened

__all__ = ["EVENT_CLASSES", "FIELDS", "ThriveReader"]

EVENT_CLASSES: Final[Mapping[str, type[ThriveEvent[Any]]]] = {
    "lab_result": LabResultEvent,
    "daily_device": DailyDeviceEvent,
    "nudge": NudgeEvent,
    "program": ProgramEvent,
}
"""The shipped classes, by their names in the settings."""

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "event_type": ("event_type", "type", "event"),
    "user_id": ("user_id", "target.user_id", "data.user_id"),
    "target_id": (
        "target.id",
        "target.card_item_id",
        "target.health_action_id",
        "card_item_id",
        "health_action_id",
        "data.card_item_id",
        "data.health_action_id",
        "data.lab_result_id",
    ),
    "occurred_at": ("occurred_at", "created_at", "timestamp"),
}
"""Where values the platform does not name are looked for, as dotted paths; the first that is present wins."""

_NO_EXTRAS: Final[Mapping[str, Any]] = {}

_Paths = tuple[tuple[str, str, tuple[str, ...]], ...]


class ThriveReader:
    """Reads Thrive's event bodies.

    `event_types` replaces the patterns of shipped classes (keys of `EVENT_CLASSES`), `fields` the places of values
    (keys of `FIELDS`); None leaves the built-in ones. `classes` adds a partner's own. What is found by its place is
    set under the event's own name (`user_id`, `target.id`, ...) and stays where it was found, too: `model_extra` is
    what the body says besides the declared fields. Null is absent.

    Raises `SettingsError` for patterns that leave the class of some name undecided, and for places that are none.
    """

    def __init__(
        self,
        *,
        event_types: Mapping[str, Sequence[str] | None] | None = None,
        fields: Mapping[str, Sequence[str] | None] | None = None,
        classes: Iterable[type[ThriveEvent[Any]]] = (),
    ) -> None:
        self._table = PatternTable(_patterns(_given(event_types), classes))
        places = {name: _paths(name, where) for name, where in {**FIELDS, **_given(fields)}.items()}
        if not places["event_type"]:
            raise SettingsError("thrive.fields.event_type: expected at least one path")
        self._event_type = places["event_type"]
        self._user_id = places["user_id"]
        self._target_id = places["target_id"]
        self._occurred_at = places["occurred_at"]

    def class_for(self, event_type: str) -> type[Event]:
        """The class an event type means; `UnknownEvent` when no pattern matches it."""
        return self._table.find(event_type) or UnknownEvent

    def facts(self, opened: Opened) -> tuple[str | None, str | None]:
        """The event id and type a verified body states, each None if it states none; raises nothing."""
        event_id = opened.content.get("event_id")
        try:
            event_type = _text(opened.content, self._event_type)
        except InvalidEvent:
            event_type = None
        return event_id if isinstance(event_id, str) else None, event_type

    def read(self, opened: Opened) -> Event:
        """The typed event in a verified body; raises as `read_body`."""
        return self.read_body(opened.content)

    def read_body(self, content: Mapping[str, Any]) -> Event:
        """The typed event in a body, read as JSON.

        Raises `InvalidEvent` when `event_id` or the event type is missing, or a field the class knows has another
        type; the text names fields and never holds a value.
        """
        if not isinstance(content, Mapping):
            raise InvalidEvent("body: expected an object")
        event_id = content.get("event_id")
        if not isinstance(event_id, str) or not is_text(event_id):
            # A number is refused, too: 1 and "1" would be one event for some and two for others.
            raise InvalidEvent("event_id: expected text that is not empty")
        event_type = _text(content, self._event_type)
        if event_type is None:
            raise InvalidEvent(f"{self._event_type[0][0]}: expected an event type")
        values = {
            **content,
            "provider": "thrive",
            "event_type": event_type,
            "user_id": _text(content, self._user_id),
            "occurred_at": _first(content, self._occurred_at),
        }
        target_id = _text(content, self._target_id)
        if target_id is not None:
            _set_target_id(values, target_id)
        # A body may have a field of the name that says who sent it; it is the body's, so it is an extra.
        extras = {"provider": content["provider"]} if "provider" in content else _NO_EXTRAS
        return validated(self.class_for(event_type), values, extras)


def _given(setting: Mapping[str, Sequence[str] | None] | None) -> dict[str, Sequence[str]]:
    return {name: value for name, value in (setting or {}).items() if value is not None}


def _patterns(
    event_types: Mapping[str, Sequence[str]], classes: Iterable[type[ThriveEvent[Any]]]
) -> dict[type[Event], Sequence[str]]:
    unknown = next((name for name in event_types if name not in EVENT_CLASSES), None)
    if unknown is not None:
        raise SettingsError(f"thrive.event_types.{unknown}: expected one of {', '.join(EVENT_CLASSES)}")
    patterns: dict[type[Event], Sequence[str]] = {
        cls: event_types.get(name, cls.event_types) for name, cls in EVENT_CLASSES.items()
    }
    for cls in classes:
        if isinstance(cls.event_types, str) or not cls.event_types:
            raise SettingsError(f"{cls.__name__}.event_types: expected a tuple of names or patterns")
        patterns.setdefault(cls, cls.event_types)
    return patterns


def _paths(name: str, where: Sequence[str]) -> _Paths:
    if name not in FIELDS:
        raise SettingsError(f"thrive.fields.{name}: expected one of {', '.join(FIELDS)}")
    if isinstance(where, str):
        raise SettingsError(f"thrive.fields.{name}: expected a list of dotted paths")
    for path in where:
        if not all(path.split(".")):
            raise SettingsError(f"thrive.fields.{name}: expected dotted paths such as target.id")
    return tuple((path, path.partition(".")[0], tuple(path.split(".")[1:])) for path in where)


def _first(content: Mapping[str, Any], paths: _Paths) -> Any:
    """The first value that is present, or None."""
    for _, head, rest in paths:
        value = content.get(head)
        for key in rest:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _text(content: Mapping[str, Any], paths: _Paths) -> str | None:
    """The first value that is present, or None; raises `InvalidEvent` when it is not text."""
    for path, head, rest in paths:
        value = content.get(head)
        for key in rest:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            if isinstance(value, str) and is_text(value):
                return value
            raise InvalidEvent(f"{path}: expected text that is not empty")
    return None


def is_text(value: str) -> bool:
    """Whether it is text that is not empty and that a hash, a database and a log can take."""
    if value.isascii():
        return bool(value)
    try:
        value.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which JSON can spell: no hash, database or log could take it.
        return False
    return True


def _set_target_id(values: dict[str, Any], target_id: str) -> None:
    target = values.get("target")
    if target is None:
        values["target"] = {"id": target_id}
    elif isinstance(target, dict) and target.get("id") != target_id:
        values["target"] = {**target, "id": target_id}


def validated(
    cls: type[Event], values: dict[str, Any], extras: Mapping[str, Any], *, by_name: bool | None = None
) -> Event:
    """The event with these values; `extras` are added to `model_extra` whatever their names.

    `by_name` is pydantic's: False takes values by their aliases only. Raises `InvalidEvent`, without a value in it.
    """
    event, problem = None, ""
    try:
        event = cls.model_validate(values, by_name=by_name)
    except ValidationError as error:
        problem = describe(cls, error)
    except Exception as error:  # noqa: BLE001  # a partner's validators may raise anything, with values in its text
        problem = f"{cls.__name__}: its validators raised {type(error).__name__}"
    if event is None:
        # Outside of the except clause, so that the error, which holds the input, is not carried along as a context.
        raise InvalidEvent(problem)
    if extras and event.model_extra is not None:
        event.model_extra.update(extras)
    return event
