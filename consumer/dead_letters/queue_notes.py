"""The note that goes with a dead letter onto an SQS queue, as one message attribute. Pure.

    consumer-dead-letter: {"version": 1, "id", "source", "provider", "reason", "event_type", "attempts",
                           "accepted_at", "first_received_at", "dead_lettered_at", "mac"}

A replay judges a message's age by `accepted_at`, and whoever may send to the queue could write any: an old message,
captured and sent again beside a note that calls it new, would pass for a fresh one. So the note is sealed with a key
made of the source's signing secret, together with the message it belongs to. A note that none of the source's secrets
made is no note: then the queue's own clock counts, which no sender can set.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from consumer.dead_letters.record import DeadLetter

__all__ = ["NOTE", "Note", "read_note", "write_note"]

NOTE: Final = "consumer-dead-letter"
"""The attribute's name."""

_VERSION: Final = 1
_LONGEST: Final = 4096
_PURPOSE: Final = b"health-event-consumer: dead-letter note"
_TIMES: Final = ("accepted_at", "first_received_at", "dead_lettered_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a dead letter's message does not say itself."""

    id: str
    source: str
    provider: str
    reason: str
    event_type: str | None
    attempts: int
    accepted_at: datetime
    first_received_at: datetime
    dead_lettered_at: datetime


def write_note(record: DeadLetter, *, secret: str, headers: Mapping[str, str], group: str | None) -> str:
    """The note of a record whose message is sent with these headers, to this group; sealed with a signing secret."""
    facts: dict[str, Any] = {
        "version": _VERSION,
        "id": record.id,
        "source": record.source,
        "provider": record.provider,
        "reason": record.reason,
        "event_type": record.event_type,
        "attempts": record.attempts,
        **{name: getattr(record, name).astimezone(UTC).isoformat() for name in _TIMES},
    }
    mac = _mac(facts, secret=secret, body=record.message, headers=headers, group=group)
    return _dump({**facts, "mac": mac})


def read_note(
    text: str, *, secrets: Iterable[str], body: bytes, headers: Mapping[str, str], group: str | None
) -> Note | None:
    """The note, if one of the secrets sealed it together with this message; None otherwise. Raises nothing."""
    if len(text) > _LONGEST:
        return None
    try:
        facts = json.loads(text)
        mac = facts.pop("mac")
        made = (_mac(facts, secret=secret, body=body, headers=headers, group=group) for secret in secrets)
        if not any(hmac.compare_digest(mac, one) for one in made):
            return None
        return Note(
            id=facts["id"],
            source=facts["source"],
            provider=facts["provider"],
            reason=facts["reason"],
            event_type=facts["event_type"],
            attempts=facts["attempts"],
            accepted_at=datetime.fromisoformat(facts["accepted_at"]),
            first_received_at=datetime.fromisoformat(facts["first_received_at"]),
            dead_lettered_at=datetime.fromisoformat(facts["dead_lettered_at"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _mac(facts: Mapping[str, Any], *, secret: str, body: bytes, headers: Mapping[str, str], group: str | None) -> str:
    """An HMAC under a key that is used for nothing else, over everything with its length."""
    key = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    parts = (_dump(facts).encode(), body, _dump(dict(headers)).encode(), (group or "").encode())
    return hmac.new(key, b"".join(len(part).to_bytes(8, "big") + part for part in parts), hashlib.sha256).hexdigest()


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
