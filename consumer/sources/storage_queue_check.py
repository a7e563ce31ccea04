"""What `consumer check` says of a Storage Queue. Pure: facts in, findings out."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from consumer.durations import format_duration
from consumer.sources.base import Finding, Message

__all__ = ["describe", "message_limit", "oldest"]

_NEAR_EXPIRY: Final = 0.5
_HOUR: Final = 3600


def describe(count: int) -> Finding:
    """That the queue answers, and how much it holds, invisible messages included."""
    return Finding("queue", ok=True, detail=f"reachable; about {count} messages; no order")


def message_limit(largest: int) -> Finding:
    """What the service carries, beside what the worker reads."""
    return Finding("message size", ok=True, detail=f"{largest // 1024} KiB at most, a quarter less as base64")


def oldest(message: Message | None, *, now: datetime) -> Finding:
    """How old the first message is, and whether the queue may delete it before anybody handles it."""
    if message is None:
        return Finding("oldest", ok=True, detail="nothing is waiting")
    age = max(0, round((now - message.accepted_at).total_seconds()))
    said = f"the first message has waited {format_duration(age if age < _HOUR else age - age % 60)}"
    if message.expires_at is None:
        return Finding("oldest", ok=True, detail=f"{said}; it never expires")
    life = round((message.expires_at - message.accepted_at).total_seconds())
    detail = f"{said} of the {format_duration(life)} after which the queue deletes it"
    return Finding("oldest", ok=age < life * _NEAR_EXPIRY, warning=True, detail=detail)
