"""What every event is, whichever platform sent it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from consumer.models.base import PlatformModel, Timestamp

__all__ = ["Event", "Target", "UnknownEvent"]


class Event(PlatformModel):
    """Something a platform reported about a member.

    Frozen; fields of the body it does not declare are kept in `model_extra`. `repr` and `str` show the type and the
    id only. `model_dump` gives the body's shape, so `provider`, which no body says, is not in it.
    """

    provider: SkipJsonSchema[str] = Field(exclude=True)
    """The platform: `thrive` or `sahha`."""
    event_id: str = Field(min_length=1)
    """What makes the event unique; the same for every delivery of it."""
    event_type: str = Field(min_length=1)
    """The platform's name for what happened."""
    user_id: str | None = None
    """The member, as the partner knows them."""
    occurred_at: Timestamp | None = None
    """When it happened, by the platform's clock."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [("event_type", self.event_type), ("event_id", self.event_id)]


class Target(PlatformModel):
    """What an event is about: a kind of resource, and which one."""

    type: str | None = None
    """`card` or `health_action` for nudges (documented); open."""
    id: str | None = None
    """The resource's id, for fetching it."""


class UnknownEvent(Event):
    """An authentic event of a type no class is named for.

    `data` is the JSON value as it came; of Sahha's, which have none, all of the body is in `model_extra`.
    """

    target: Target | None = None
    data: Any = None
