"""Thrive's nudges and program: cards, health actions, priorities, recommendations."""

from __future__ import annotations

from datetime import date
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import Field

from consumer.sandbox.answers import Refusal, data, invalid, no_content
from consumer.sandbox.members import Member, text_of
from consumer.sandbox.requests import Moment, Page, Shape, body_of, found, listed, query_of
from consumer.sandbox.thrive_state import Thrive

__all__ = ["TRANSITIONS", "coaching_routes"]

TRANSITIONS: Final = {
    "pending": ("opened", "dismissed"),
    "opened": ("completed", "dismissed"),
    "completed": (),
    "dismissed": (),
}
"""What may be reported of a card after what (`/docs/nudges`); the same again is a no-op."""


class _CardPage(Page):
    interaction_status: Literal["pending", "opened", "completed", "dismissed"] | None = None


class _Interaction(Shape):
    interaction_status: Literal["pending", "opened", "completed", "dismissed"]


class _ActionPage(Page):
    status: str | None = None
    start_date: date | None = None
    end_date: date | None = None
    sort_by: Literal["scheduled_at", "title", "status"] = "scheduled_at"
    sort_order: Literal["asc", "desc"] = "asc"


class _NewAction(Shape):
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(max_length=2000)
    scheduled_at: Moment


class _ActionChanges(Shape):
    """Neither the body nor the statuses are published: any snake_case word is taken."""

    status: str | None = Field(None, pattern="^[a-z_]{1,50}$")
    title: str | None = Field(None, min_length=1, max_length=200)
    description: str | None = Field(None, max_length=2000)
    scheduled_at: Moment | None = None


class _PriorityPage(Page):
    status: Literal["active", "dismissed", "completed", "outdated"] = "active"


class _Coaching:
    """The handlers."""

    def __init__(self, thrive: Thrive) -> None:
        self._thrive = thrive
        self._clock = thrive.parts.clock

    async def cards(self, request: web.Request, member: Member) -> web.StreamResponse:
        page = query_of(request, _CardPage)
        wanted = page.interaction_status
        rows = [row for row in reversed(member.cards.all()) if wanted in (None, row["interaction_status"])]
        return listed(rows, page)

    async def card(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.cards.get(request.match_info["card_item_id"]), "card"))

    async def report(self, request: web.Request, member: Member) -> web.StreamResponse:
        card = found(member.cards.get(request.match_info["card_item_id"]), "card")
        new, current = (await body_of(request, _Interaction)).interaction_status, card["interaction_status"]
        if new == current:
            return no_content()
        if new not in TRANSITIONS[current]:
            raise invalid("interaction_status", f"{current} cannot become {new}")
        card.update(interaction_status=new, updated_at=text_of(self._clock.now()))
        return no_content()

    async def actions(self, request: web.Request, member: Member) -> web.StreamResponse:
        page = query_of(request, _ActionPage)
        first = page.start_date.isoformat() if page.start_date else ""
        last = page.end_date.isoformat() if page.end_date else "9999-12-31"
        rows = [
            row
            for row in member.health_actions.all()
            if page.status in (None, row["status"]) and first <= row["scheduled_at"][:10] <= last
        ]
        rows.sort(key=lambda row: str(row[page.sort_by]), reverse=page.sort_order == "desc")
        return listed(rows, page)

    async def action(self, request: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.health_actions.get(request.match_info["health_action_id"]), "health action"))

    async def new_action(self, request: web.Request, member: Member) -> web.StreamResponse:
        given = await body_of(request, _NewAction)
        row: dict[str, Any] = {
            "health_action_id": self._thrive.new_id(),
            "title": given.title,
            "description": given.description,
            "status": "pending",
            "scheduled_at": text_of(given.scheduled_at),
            "execution_options": {},
        }
        return data(member.health_actions.put(row["health_action_id"], row), status=201)

    async def change_action(self, request: web.Request, member: Member) -> web.StreamResponse:
        row = found(member.health_actions.get(request.match_info["health_action_id"]), "health action")
        given = await body_of(request, _ActionChanges)
        changes = given.model_dump(exclude_none=True)
        if not changes:
            raise Refusal(422, "There is nothing to change")
        if given.scheduled_at is not None:
            changes["scheduled_at"] = text_of(given.scheduled_at)
        row.update(changes)
        return no_content()

    async def program(self, _: web.Request, member: Member) -> web.StreamResponse:
        return data(found(member.program, "program"))

    async def priorities(self, request: web.Request, member: Member) -> web.StreamResponse:
        page = query_of(request, _PriorityPage)
        rows = [row for row in member.priorities.all() if row["status"] == page.status]
        return listed(sorted(rows, key=lambda row: int(row["rank"])), page)

    async def accept(self, request: web.Request, member: Member) -> web.StreamResponse:
        """A recommendation becomes a focus action, which is readable as a health action."""
        row = found(member.recommendations.get(request.match_info["recommendation_id"]), "recommendation")
        now = text_of(self._clock.now())
        if "focus_action_id" not in row:
            action_id = self._thrive.new_id()
            action = {
                "health_action_id": action_id,
                "title": row["title"],
                "description": row["description"],
                "status": "pending",
                "scheduled_at": now,
                "execution_options": {},
            }
            member.health_actions.put(action_id, action)
            accepted = {**row, "focus_action_id": action_id, "accepted_at": now}
            row = member.recommendations.put(row["recommendation_id"], accepted)
            self._thrive.traffic.program_updated(member)
        return data({name: row[name] for name in ("recommendation_id", "focus_action_id", "accepted_at")})


def coaching_routes(thrive: Thrive) -> list[web.RouteDef]:
    """The routes of cards, health actions, program, priorities and recommendations."""
    here, member = _Coaching(thrive), thrive.access.member
    user = "/v1/users/{user_id}"
    card, action = user + "/cards/{card_item_id}", user + "/health-actions/{health_action_id}"
    return [
        web.get(f"{user}/cards", member(here.cards)),
        web.get(card, member(here.card)),
        web.patch(card, member(here.report)),
        web.get(f"{user}/health-actions", member(here.actions)),
        web.post(f"{user}/health-actions", member(thrive.once.of_member(here.new_action))),
        web.get(action, member(here.action)),
        web.patch(action, member(here.change_action)),
        web.get(f"{user}/program", member(here.program)),
        web.get(f"{user}/priorities", member(here.priorities)),
        web.post(user + "/recommended-actions/{recommendation_id}/accept", member(thrive.once.of_member(here.accept))),
    ]
