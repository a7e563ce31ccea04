"""What a type checker must know about Thrive's client; it is enough that this file checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import assert_type

from consumer.clients.thrive import ThriveClient
from consumer.events import DailyDeviceEvent, LabResultEvent, NudgeEvent, ProgramEvent
from consumer.models.thrive import DailySummary, HealthAction, LabResult, NudgeCard, Program
from consumer.models.thrive_api import BioAge, LabSummary


async def check_fetch(
    client: ThriveClient, lab: LabResultEvent, daily: DailyDeviceEvent, nudge: NudgeEvent, program: ProgramEvent
) -> None:
    """What is fetched is typed by the event."""
    assert_type(await client.fetch(lab), LabResult)
    assert_type(await client.fetch(daily), DailySummary)
    assert_type(await client.fetch(nudge, fresh=True), NudgeCard | HealthAction)
    assert_type(await client.fetch(program), Program)


async def check_calls(client: ThriveClient) -> None:
    """Calls and lists know their models."""
    assert_type(client.labs.list("u"), AsyncIterator[LabSummary])
    assert_type(await client.cards.get("u", "c"), NudgeCard)
    assert_type(await client.scores.bio_age("u"), BioAge | None)
