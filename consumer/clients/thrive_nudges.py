"""What the coach wants of members: nudge cards and health actions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

from consumer.clients.thrive_calls import ThriveCalls, changed, day_text, time_text
from consumer.models.thrive import HealthAction, NudgeCard

__all__ = ["INTERACTIONS", "Cards", "HealthActions", "allowed"]

INTERACTIONS: Final = ("pending", "opened", "completed", "dismissed")
_NEXT: Final = MappingProxyType({"pending": {"opened", "dismissed"}, "opened": {"completed", "dismissed"}})

_CARDS = "/v1/users/{user_id}/cards"
_ACTIONS = "/v1/users/{user_id}/health-actions"


def allowed(current: str, new: str) -> bool:
    """Whether a card may go from one interaction status to another, as `ref/get_card` and its neighbours say.

    pending -> opened -> completed or dismissed; pending -> dismissed; to the same, which changes nothing. What a
    status this release does not know leads to, only the platform can say: then this is True.
    """
    return current == new or current not in INTERACTIONS or new in _NEXT.get(current, ())


class Cards:
    """`thrive.cards`: nudge cards, and reporting what members did with them."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def list(
        self, user_id: str, *, interaction_status: str | None = None, limit: int | None = None
    ) -> AsyncIterator[NudgeCard]:
        """A member's cards; at most `limit`."""
        return self._calls.pages(
            NudgeCard, user_id, _CARDS, query=[("interaction_status", interaction_status)], most=limit
        )

    async def get(self, user_id: str, card_item_id: str) -> NudgeCard:
        """A card. Raises `NotFound` for an unknown one, or another member's."""
        return await self._calls.read(
            NudgeCard, user_id, f"{_CARDS}/{{card_item_id}}", path={"card_item_id": card_item_id}
        )

    async def report(self, user_id: str, card_item_id: str, status: str, *, current: str | None = None) -> None:
        """Report a card's new interaction status.

        Raises `ValueError`, before anything is sent, for a status that is none or, where the `current` one is given,
        cannot follow it; `ApiError` (422) where the platform finds that it does not follow.
        """
        if status not in INTERACTIONS:
            raise ValueError(f"status: expected one of {', '.join(INTERACTIONS)}")
        if current is not None and not allowed(current, status):
            raise ValueError(f"status: a card cannot go from {current} to {status}")
        # The same report twice changes nothing the second time, so it may be repeated.
        await self._calls.as_member(
            user_id,
            "PATCH",
            f"{_CARDS}/{{card_item_id}}",
            path={"card_item_id": card_item_id},
            json={"interaction_status": status},
            repeatable=True,
        )


class HealthActions:
    """`thrive.health_actions`: what members planned to do."""

    def __init__(self, calls: ThriveCalls) -> None:
        self._calls = calls

    def list(
        self,
        user_id: str,
        *,
        status: str | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[HealthAction]:
        """A member's health actions, the earliest `scheduled_at` first unless sorted otherwise; at most `limit`."""
        query = [
            ("status", status),
            ("start_date", day_text(start_date)),
            ("end_date", day_text(end_date)),
            ("sort_by", sort_by),
            ("sort_order", sort_order),
        ]
        return self._calls.pages(HealthAction, user_id, _ACTIONS, query=query, most=limit)

    async def get(self, user_id: str, health_action_id: str) -> HealthAction:
        """A health action. Raises `NotFound` for an unknown one."""
        return await self._calls.read(
            HealthAction, user_id, f"{_ACTIONS}/{{health_action_id}}", path={"health_action_id": health_action_id}
        )

    async def create(
        self,
        user_id: str,
        title: str,
        description: str,
        scheduled_at: datetime,
        *,
        idempotency_key: str | None = None,
    ) -> HealthAction:
        """Plan an action for a member; `scheduled_at` has an offset (`ValueError` otherwise)."""
        fields = {"title": title, "description": description, "scheduled_at": time_text(scheduled_at)}
        return await self._calls.create(HealthAction, user_id, _ACTIONS, json=fields, idempotency_key=idempotency_key)

    async def update(self, user_id: str, health_action_id: str, **changes: Any) -> None:
        """Change a health action; which fields can be changed is not published."""
        await self._calls.as_member(
            user_id,
            "PATCH",
            f"{_ACTIONS}/{{health_action_id}}",
            path={"health_action_id": health_action_id},
            json=changed(changes),
        )
