"""What handlers ask the platform for, before they write anything.

A call takes milliseconds to seconds, and `context.session` begins a transaction when it is first used: on SQLite
nobody else can write meanwhile. So fetch first, then write.

A platform that does not answer raises `Unavailable`: the source pauses, the event comes back, no attempt is counted.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from consumer import Context, NotConfigured, Reject, Retry
from consumer.errors import NotFound, SettingsError
from consumer.events import NudgeEvent, ThriveEvent
from consumer.models.thrive import HealthAction, NudgeCard, Priority
from handlers.store import member_of

__all__ = ["REPORT_CARDS_AS", "Choices", "choices", "fetched", "fetched_nudge", "fetched_priorities"]

D = TypeVar("D")

REPORT_CARDS_AS = "HANDLERS_REPORT_CARDS_AS"
"""The environment variable that says what to report of a card: see `fetched_nudge`."""

_LOOKS = 3
"""How often something must not be there before it counts as gone: an event may be faster than what it is about."""

_STEPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "opened": {"pending": ("opened",)},
    "dismissed": {"pending": ("dismissed",)},
    "completed": {"pending": ("opened", "completed"), "opened": ("completed",)},
}
"""By what is to be reported and what the platform knows: the reports it takes, one after the other. A card that is
only opened is completed too, because an earlier attempt may have ended between its two reports."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the environment says about these handlers; `context.state`."""

    report_cards_as: str | None = None


@asynccontextmanager
async def choices() -> AsyncIterator[Choices]:
    """Read the environment once, when the worker starts. Raises `SettingsError` for a word that is not known."""
    wanted = os.environ.get(REPORT_CARDS_AS) or None
    if wanted is not None and wanted not in _STEPS:
        raise SettingsError(f"{REPORT_CARDS_AS}: expected opened, dismissed or completed, or not to be set")
    yield Choices(report_cards_as=wanted)


async def fetched(context: Context, event: ThriveEvent[D]) -> D | None:
    """What an event is about: its own data, else one call. None when there is neither data nor a tenant key.

    Raises `Reject` when the platform no longer has it or the event does not say what to fetch, `Retry` when it may not
    have it yet, `Unavailable`, `ApiError`.
    """
    with _found(context):
        try:
            resource: D = await context.thrive.fetch(event)
        except NotConfigured:
            return event.data
        return resource


async def fetched_priorities(context: Context, event: ThriveEvent[Any]) -> list[Priority] | None:
    """A member's active priorities, which are in no event. None when there is no tenant key.

    Raises as `fetched` does.
    """
    user_id = member_of(event)
    with _found(context):
        try:
            return [priority async for priority in context.thrive.programs.priorities(user_id)]
        except NotConfigured:
            return None


async def fetched_nudge(context: Context, event: NudgeEvent) -> NudgeCard | HealthAction | None:
    """What the member is to see, as `fetched` has it; a card is reported as seen where that is asked for.

    Telling the platform what became of a card is the partner's duty: its coach goes by that. The right moment is when
    a member has opened, done or dismissed it in your app, and the right place is your app's backend, with
    `context.thrive.cards.report` or the same call of a client of your own. This example has no app, so it says nothing
    unless HANDLERS_REPORT_CARDS_AS is `opened`, `dismissed` or `completed`: good for trying out the way there and back.

    It is reported before anything is written, and may be reported by an attempt that then fails. So the platform is
    asked for the card's status first: what was reported before, by an earlier attempt or by the member, stays.
    """
    with _found(context):
        nudge = await fetched(context, event)
        wanted: str | None = context.state.report_cards_as
        if wanted is None or not isinstance(nudge, NudgeCard) or nudge.interaction_status not in _STEPS[wanted]:
            return nudge
        if event.data is None:
            return await _reported(context, event, nudge, wanted)
        try:
            fresh = await context.thrive.fetch(event, fresh=True)  # what came with the event was so when it was sent
        except NotConfigured:
            context.log.warning("card_not_reported", why="CONSUMER_THRIVE__TENANT_KEY is not set")
            return nudge
        return await _reported(context, event, fresh, wanted) if isinstance(fresh, NudgeCard) else fresh


@contextmanager
def _found(context: Context) -> Iterator[None]:
    """What it means when the platform has not what is asked of it inside: not yet, or no longer."""
    try:
        yield
    except NotFound:
        if context.delivery.attempt < _LOOKS:
            raise Retry from None
        raise Reject("the platform no longer has it") from None


async def _reported(context: Context, event: NudgeEvent, card: NudgeCard, wanted: str) -> NudgeCard:
    card_item_id = card.card_item_id or (event.target.id if event.target else None)
    if card_item_id is None:
        raise Reject("neither the data nor the target of the event has an id")
    now = card.interaction_status
    for step in _STEPS[wanted].get(now or "", ()):
        await context.thrive.cards.report(member_of(event), card_item_id, step, current=now)
        now = step
    return card.model_copy(update={"interaction_status": now})
