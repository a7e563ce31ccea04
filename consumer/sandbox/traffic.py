"""Events that the sandbox makes up: each about something that its API then really has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from consumer.sandbox.members import Member, day_of, text_of
from consumer.sandbox.options import Contract
from consumer.sandbox.parts import Parts
from consumer.sandbox.publishing import Publisher
from consumer.sandbox.streams import STREAMS
from consumer.testing import synthetic

__all__ = ["NoMember", "Traffic"]

_WEIGHTS: Final = (3, 3, 3, 1)
"""How often each of `STREAMS` has an event."""
_CARD_SHARE: Final = 0.7
_DAYS_BACK: Final = 3
_SOON: Final = timedelta(hours=1)
"""A reminder comes an hour before its action (`/docs/nudges`)."""


class NoMember(Exception):
    """There is nobody an event could be about."""


class Traffic:
    """Makes events and hands them to the publisher. Everything about them but the times follows the seed."""

    def __init__(self, parts: Parts, publisher: Publisher) -> None:
        self._parts = parts
        self._publisher = publisher
        self._random = parts.world.draw_anew("traffic")

    async def run(self) -> None:
        """Make events at the rate of the options, after the burst."""
        options = self._parts.options
        if options.burst and self._parts.world.members:
            self.make(options.burst)
        while options.rate > 0:
            await asyncio.sleep(1 / options.rate)
            if self._parts.world.members:
                self.make(1)

    def make(
        self,
        count: int,
        *,
        stream: str | None = None,
        contract: Contract | None = None,
        user_id: str | None = None,
        unknown: bool = False,
        forged: bool = False,
        stale: bool = False,
    ) -> list[str]:
        """Make events, of any stream and member unless said otherwise; returns their ids. Raises `NoMember`."""
        ids = []
        for _ in range(count):
            chosen = stream or self._random.choices(STREAMS, _WEIGHTS)[0]
            member = self._member(user_id)
            body = self._unknown(member) if unknown else self._event(chosen, member, contract)
            self._publisher.publish(chosen, body, forged=forged, stale=stale)
            ids.append(body["event_id"])
        return ids

    def lab_result(self, member: Member, lab: dict[str, Any], contract: Contract | None = None) -> str:
        """Announce a lab result of a member's; returns the event's id."""
        body = self._body("lab.result.ready", member, "lab_result", lab["lab_result_id"])
        return self._publish("lab-results", self._with(body, lab, contract))

    def program_updated(self, member: Member) -> str:
        """Announce that a member's program or priorities changed; returns the event's id."""
        target_id = (member.program or {}).get("program_id") or synthetic.identifier(self._random)
        return self._publish("program-updates", self._body("program.updated", member, "program", target_id))

    def _publish(self, stream: str, body: dict[str, Any]) -> str:
        self._publisher.publish(stream, body)
        return str(body["event_id"])

    def _member(self, user_id: str | None) -> Member:
        members = self._parts.world.members
        member = self._parts.world.find(user_id or self._random.choice(members)) if members else None
        if member is None:
            raise NoMember
        return member

    def _event(self, stream: str, member: Member, contract: Contract | None) -> dict[str, Any]:
        made: dict[str, Callable[[Member, Contract | None], dict[str, Any]]] = {
            "lab-results": self._lab,
            "daily-device-data": self._daily,
            "coaching-nudges": self._nudge,
            "program-updates": self._program,
        }
        return made[stream](member, contract)

    def _lab(self, member: Member, contract: Contract | None) -> dict[str, Any]:
        lab = synthetic.lab_result(self._random)
        now = self._parts.clock.now()
        lab["test_date"] = (now - timedelta(days=self._random.randint(1, 5))).date().isoformat()
        member.labs.put(lab["lab_result_id"], {**lab, "created_at": text_of(now)})
        body = self._body("lab.result.ready", member, "lab_result", lab["lab_result_id"])
        return self._with(body, lab, contract)

    def _daily(self, member: Member, contract: Contract | None) -> dict[str, Any]:
        day = (self._parts.clock.now() - timedelta(days=self._random.randint(1, _DAYS_BACK))).date()
        summary = day_of(self._random, day)
        member.days.put(day.isoformat(), summary)
        body = self._body("daily.device_data.created", member, "daily_summary", synthetic.identifier(self._random))
        body["target"]["date"] = day.isoformat()
        return self._with(body, summary, contract)

    def _nudge(self, member: Member, contract: Contract | None) -> dict[str, Any]:
        now = self._parts.clock.now()
        if self._random.random() < _CARD_SHARE:
            card = synthetic.nudge_card(self._random)
            card.update(dict.fromkeys(("item_created_at", "created_at", "updated_at"), text_of(now)))
            member.cards.put(card["card_item_id"], card)
            body = self._body("coach.nudge.created", member, "card", card["card_item_id"])
            return self._with(body, card, contract)
        action = synthetic.health_action(self._random)
        action["scheduled_at"] = text_of(now + _SOON)
        member.health_actions.put(action["health_action_id"], action)
        body = self._body("coach.nudge.created", member, "health_action", action["health_action_id"])
        return self._with(body, action, contract)

    def _program(self, member: Member, contract: Contract | None) -> dict[str, Any]:
        now = text_of(self._parts.clock.now())
        program = {**synthetic.program(self._random), "created_at": now}
        member.program = program
        for row in member.priorities.all():
            row["updated_at"] = now
        return self._with(self._body("program.updated", member, "program", program["program_id"]), program, contract)

    def _unknown(self, member: Member) -> dict[str, Any]:
        target_id = synthetic.identifier(self._random)
        body = self._body("coach.journey.milestone_reached", member, "journey", target_id)
        return {**body, "data": {"journey_id": target_id, "milestone": "first_week"}}

    def _body(self, event_type: str, member: Member, target_type: str, target_id: str) -> dict[str, Any]:
        return {
            "event_id": synthetic.identifier(self._random),
            "event_type": event_type,
            "user_id": member.user_id,
            "occurred_at": text_of(self._parts.clock.now()),
            "target": {"type": target_type, "id": target_id},
        }

    def _with(self, body: dict[str, Any], resource: dict[str, Any], contract: Contract | None) -> dict[str, Any]:
        chosen = contract or self._parts.options.contract
        if chosen == "mixed":
            chosen = self._random.choice(("inline", "basic"))
        return {**body, "data": resource} if chosen == "inline" else body
