"""Typed events: what handlers receive."""

from __future__ import annotations

from consumer.events.base import Event, Target, UnknownEvent
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent

__all__ = [
    "DailyDeviceEvent",
    "Event",
    "LabResultEvent",
    "NudgeEvent",
    "ProgramEvent",
    "Target",
    "ThriveEvent",
    "UnknownEvent",
]
