"""What an operator may ask of a running worker: look, pause, resume, skip.

Answers hold names of sources, and ids and types of events; no user, no lane (which may be one), no health data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from consumer import __version__
from consumer.errors import DatabaseError, SourceError
from consumer.ops.control import Refused
from consumer.sources.base import Hastening

if TYPE_CHECKING:
    from consumer.intake import Intake
    from consumer.retrying import Waiting
    from consumer.worker import Worker

__all__ = ["Operator"]

_log = structlog.get_logger("control")

_LONGEST_REASON: Final = 200
_LONGEST_ID: Final = 512
_MOST_SHOWN: Final = 100
"""Retrying events in one answer."""


class Operator:
    """Does to a worker what requests ask for. A request is `{"command": ..., ...}`, as `execute` says."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def execute(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer `status`; `pause` and `resume` with `source` (and `reason`); `skip` with `source` and `event_id`.

        Every answer but that of `status` has `say`, a sentence for people. Raises `Refused`.
        """
        command = request.get("command")
        if command == "status":
            return self._status()
        if command == "pause":
            return self._pause(self._intake(request), _text(request, "reason", _LONGEST_REASON, empty=True))
        if command == "resume":
            return self._resume(self._intake(request))
        if command == "skip":
            return await self._skip(self._intake(request), _text(request, "event_id", _LONGEST_ID))
        raise Refused("expected the command status, pause, resume or skip", wrong=True)

    # Looking

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "version": __version__,
            "not_live": self._worker.not_live(),
            "not_ready": self._worker.not_ready(),
            "sources": [self._source(intake) for intake in self._worker.intakes],
        }

    def _source(self, intake: Intake) -> dict[str, Any]:
        waiting = intake.retrying.all()
        state, why = self._state(intake)
        return {
            "name": intake.source.name,
            "kind": intake.source.kind,
            "state": state,
            "why": why,
            "in_hand": len(intake.held),
            "oldest_age": round(intake.oldest_age(), 1),
            "lanes_blocked": len({one.lane for one in waiting if one.lane is not None}),
            "retrying_count": len(waiting),
            "retrying": [_waiting(one) for one in waiting[:_MOST_SHOWN]],
            "to_skip": intake.route.skips.waiting[:_MOST_SHOWN],
        }

    def _state(self, intake: Intake) -> tuple[str, str | None]:
        if self._worker.stopping:
            return "stopping", None
        if intake.pauses.by_operator is not None:
            return "paused by an operator", intake.pauses.by_operator or None
        if not intake.breaker.closed:
            return "paused", intake.breaker.reason
        if intake.receiver.error is not None:
            return "unreachable", str(intake.receiver.error)
        return "receiving" if intake.receiver.connected else "connecting", None

    # Doing

    def _pause(self, intake: Intake, reason: str) -> dict[str, Any]:
        if self._worker.stopping:
            raise Refused("the worker is stopping")
        intake.pause_by_operator(reason)
        in_hand = sum(not held.concluded for held in intake.held)
        ending = f"; {in_hand} in hand may finish" if in_hand else ""
        return {
            "in_hand": in_hand,
            "say": f"{intake.source.name} is paused{ending}. It lasts until `consumer resume {intake.source.name}`, or "
            "until this worker ends.",
        }

    def _resume(self, intake: Intake) -> dict[str, Any]:
        ended = intake.resume_by_operator()
        name, why = intake.source.name, intake.pauses.why
        say = f"{name} receives again" if ended else f"{name} was not paused by an operator"
        still = f"; it is still {why}, and goes on by itself once that is over" if why else ""
        return {"resumed": ended, "say": f"{say}{still}."}

    async def _skip(self, intake: Intake, identity: str) -> dict[str, Any]:
        if not intake.route.skips.add(identity):
            raise Refused("as many events as are remembered wait to be skipped already: see `consumer status`")
        waiting = intake.retrying.find(identity)
        in_hand = _in_hand(intake, identity)
        hastened = not in_hand and await _hasten(intake, waiting.message_id if waiting is not None else identity)
        _log.warning(
            "skip_asked_for", source=intake.source.name, event_id=identity, known=in_hand or hastened or bool(waiting)
        )
        if in_hand:
            say = "is in hand: it is put aside at its next attempt, unless this one succeeds"
        elif hastened:
            say = "comes now, and is put aside"
        elif waiting is not None:
            say = f"is put aside when it comes next, in about {max(0.0, waiting.due - time.monotonic()):.0f} s"
        else:
            say = "is not held by this worker; should it come here within a day, it is put aside"
        paused = " (the source is paused: once it is resumed)" if intake.paused.is_set() else ""
        return {"held": in_hand or hastened or waiting is not None, "say": f"{identity} {say}{paused}."}

    def _intake(self, request: Mapping[str, Any]) -> Intake:
        name = _text(request, "source", _LONGEST_ID)
        for intake in self._worker.intakes:
            if intake.source.name == name:
                return intake
        names = ", ".join(intake.source.name for intake in self._worker.intakes)
        raise Refused(f"{name!a} is not a source of this worker; there is {names}", wrong=True)


def _text(request: Mapping[str, Any], key: str, longest: int, *, empty: bool = False) -> str:
    value = request.get(key)
    if empty and value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable() or not (value or empty):
        raise Refused(f"{key}: expected a text of at most {longest} characters in one line", wrong=True)
    return value


def _in_hand(intake: Intake, identity: str) -> bool:
    return any(
        identity in (item.event_id, held.message.message_id)
        for held in intake.held
        if not held.concluded
        for item in held.items
        if item.proven
    )


async def _hasten(intake: Intake, message_id: str) -> bool:
    """Have a message that waits for its next attempt come now, where its source can do that."""
    if not isinstance(intake.source, Hastening):
        return False
    try:
        return await intake.source.hasten(message_id)
    except (SourceError, DatabaseError):
        return False


def _short(text: str | None) -> str | None:
    """None for what is too long to be shown or asked for: it comes from outside, and answers have a limit."""
    return text if text is not None and len(text) <= _LONGEST_ID else None


def _waiting(one: Waiting) -> dict[str, Any]:
    return {
        "event_id": _short(one.event_id),
        "event_type": _short(one.event_type),
        "message_id": one.message_id,
        "failed_attempts": one.failed_attempts,
        "due_in": round(max(0.0, one.due - time.monotonic()), 1),
    }
