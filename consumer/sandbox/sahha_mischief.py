"""Webhooks on request: good ones, and each kind that a receiver must not believe."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Literal, get_args

from consumer.sandbox.sahha_profiles import HookEvent
from consumer.sandbox.sahha_webhooks import Delivery, Webhooks, written
from consumer.signatures import SahhaSignature

__all__ = ["KINDS", "Kind", "made"]

Kind = Literal["good", "forged", "replay", "tampered_external_id", "tampered_body", "missing_header", "unknown_type"]
"""What to send.

- `forged`: signed with a secret that nobody has.
- `replay`: the exact bytes and headers of earlier good deliveries.
- `tampered_external_id`: good but for the X-External-Id header, which is not signed.
- `tampered_body`: a body changed after it was signed.
- `missing_header`: each of the three headers is left out in turn.
- `unknown_type`: a good signature under an event type that there is not.
"""
KINDS: tuple[Kind, ...] = get_args(Kind)

_HEADERS = ("X-Signature", "X-External-Id", "X-Event-Type")
_UNKNOWN_TYPE = "InsightCreatedIntegrationEvent"


def made(kind: Kind, events: Sequence[HookEvent], webhooks: Webhooks) -> list[Delivery]:
    """One request of this kind for each event; for replays as many earlier ones, none if nothing was taken yet."""
    if kind == "replay":
        return list(islice(cycle(webhooks.sent), len(events))) if webhooks.sent else []
    return [_made(kind, event, number, webhooks) for number, event in enumerate(events)]


def _made(kind: Kind, event: HookEvent, number: int, webhooks: Webhooks) -> Delivery:
    good = webhooks.signed(event)
    if kind == "forged":
        forger = SahhaSignature(secrets=[secrets.token_urlsafe(32)], encoding=webhooks.target.encoding)
        headers = forger.sign(good.body, external_id=good.external_id, event_type=good.event_type)
        return Delivery(good.event_type, good.external_id, good.body, headers)
    if kind == "tampered_external_id":
        other = f"not-{good.external_id}"
        return Delivery(good.event_type, good.external_id, good.body, {**good.headers, "X-External-Id": other})
    if kind == "tampered_body":
        changed = written(event._replace(body={**event.body, "version": 2}))
        return Delivery(good.event_type, good.external_id, changed, good.headers)
    if kind == "missing_header":
        left_out = _HEADERS[number % len(_HEADERS)]
        headers = {name: text for name, text in good.headers.items() if name != left_out}
        return Delivery(good.event_type, good.external_id, good.body, headers)
    if kind == "unknown_type":
        headers = {**good.headers, "X-Event-Type": _UNKNOWN_TYPE}
        return Delivery(_UNKNOWN_TYPE, good.external_id, good.body, headers)
    return good
