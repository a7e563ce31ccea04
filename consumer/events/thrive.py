"""Thrive AI Health's events, and the class partners extend with types of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import Field, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from consumer.events.base import Event, Target
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Program

__all__ = ["DailyDeviceEvent", "LabResultEvent", "NudgeEvent", "ProgramEvent", "ThriveEvent"]

D = TypeVar("D")


class ThriveEvent(Event, Generic[D]):
    """An event of Thrive's, carrying a resource of type `D`.

    `data` is None under the platform's basic contract: then `target` says what to fetch. Subclass it, with
    `event_types`, for types this package does not ship:

        class JourneyEvent(ThriveEvent[Journey]):
            event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)
    """

    event_types: ClassVar[tuple[str, ...]] = ()
    """The names that mean this class; `*` and `?` stand for any characters and any one character."""

    provider: SkipJsonSchema[str] = Field(default="thrive", exclude=True)
    target: Target | None = None
    data: D | None = None


class LabResultEvent(ThriveEvent[LabResult]):
    """A lab result was added or changed; see `data.status` for whether it is ready.

    Thrive does not publish the type's name; this default is provisional.
    """

    event_types: ClassVar[tuple[str, ...]] = ("lab.*",)


class DailyDeviceEvent(ThriveEvent[DailySummary]):
    """A day of device data arrived.

    Thrive does not publish the type's name; these defaults are provisional.
    """

    event_types: ClassVar[tuple[str, ...]] = ("daily.*", "device.*")


class NudgeEvent(ThriveEvent[NudgeCard | HealthAction]):
    """The coach nudges a member: with a card, or by reminding of a health action (documented).

    `target.type` says which; when it says neither, the id in `data` does.
    """

    event_types: ClassVar[tuple[str, ...]] = ("coach.nudge.created",)

    @property
    def is_card(self) -> bool:
        """Whether it is a card, also when `data` must be fetched."""
        return isinstance(self.data, NudgeCard) or (self.target is not None and self.target.type == "card")

    @property
    def is_health_action(self) -> bool:
        """Whether it is about a health action, also when `data` must be fetched."""
        return isinstance(self.data, HealthAction) or (self.target is not None and self.target.type == "health_action")

    @field_validator("data", mode="before")
    @classmethod
    def _card_or_health_action(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or isinstance(value, (NudgeCard, HealthAction)):
            return value
        if isinstance(value, Mapping):
            target = info.data.get("target")
            kind = target.type if target is not None else None
            if kind == "card":
                return NudgeCard.model_validate(value)
            if kind == "health_action":
                return HealthAction.model_validate(value)
            if value.get("card_item_id") is not None:
                return NudgeCard.model_validate(value)
            if value.get("health_action_id") is not None:
                return HealthAction.model_validate(value)
        raise PydanticCustomError("nudge_data", "Input should be a card or a health action")


class ProgramEvent(ThriveEvent[Program]):
    """A member's program or priorities may have changed: fetch them again (documented)."""

    event_types: ClassVar[tuple[str, ...]] = ("program.updated",)
