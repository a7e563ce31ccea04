"""Typed events: what handlers receive."""

from __future__ import annotations

from consumer.events.base import Event, Target, UnknownEvent
from consumer.events.sahha import ArchetypeEvent, BiomarkerEvent, DataLogEvent, SahhaEvent, ScoreEvent
from consumer.events.thrive import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent, ThriveEvent

__all__ = [
    "ArchetypeEvent",
    "BiomarkerEvent",
    "DailyDeviceEvent",
    "DataLogEvent",
    "Event",
    "LabResultEvent",
    "NudgeEvent",
    "ProgramEvent",
    "SahhaEvent",
    "ScoreEvent",
    "Target",
    "ThriveEvent",
    "UnknownEvent",
]
