"""From a message's bytes to typed events: size, split, verify, read, route. Pure but for the clock."""

from __future__ import annotations

from consumer.deliveries import Held, Item
from consumer.envelope import split, unwrap_neutral
from consumer.errors import InvalidEvent, Unreadable, VerificationError
from consumer.events import UnknownEvent
from consumer.inbox import body_hash, event_key
from consumer.outcomes import DeadLettered, Handled
from consumer.route import Route
from consumer.signatures import Opened

__all__ = ["open_message"]

_OBJECT = b"{"
"""What nearly every message begins with; only others may be an array of envelopes."""


def open_message(held: Held, route: Route) -> list[Item]:
    """Open a delivery into its envelopes, in order; each has an event and handlers, or a verdict already.

    An array in which no envelope is proven is one item: as a dead letter each, `[{},{},...]` would cost its forger
    three bytes and us hundreds. Never raises for anything the bytes hold.
    """
    raw = held.message.body
    if len(raw) > route.max_message_bytes:
        route.guard.signature_bad()
        return [_refused(Item(held, route, 0, raw), "unreadable", f"larger than {route.max_message_bytes} bytes")]
    try:
        whole = raw[:1] == _OBJECT or route.signature.signs_whole(held.message.headers)
        envelopes = [raw] if whole else split(raw)
    except VerificationError as error:
        route.guard.signature_bad()
        return [_refused(Item(held, route, 0, raw), error.reason, str(error))]
    items = [_open_envelope(held, route, index, envelope) for index, envelope in enumerate(envelopes)]
    proven = any(item.proven for item in items)
    if proven:
        route.guard.signature_good()
    else:
        # Once a message: one with a thousand forged members is one forgery.
        route.guard.signature_bad()
    if proven or len(items) == 1:
        return items
    first = items[0].verdict
    reason = first.reason if isinstance(first, DeadLettered) else "unreadable"
    return [_refused(Item(held, route, 0, raw), reason, f"an array of {len(items)}, none of them proven")]


def _open_envelope(held: Held, route: Route, index: int, raw: bytes) -> Item:
    item = Item(held, route, index, raw)
    try:
        opened = _verify(item)
    except VerificationError as error:
        item.proven = error.proven
        return _refused(item, error.reason, str(error))
    item.proven = True
    item.signed_at = opened.signed_at
    try:
        event = route.reader.read(opened)
    except VerificationError as error:
        item.proven = error.proven
        return _refused(item, error.reason, str(error))
    except InvalidEvent as error:
        item.verdict = DeadLettered("invalid_event", str(error))
        item.event_id, item.event_type = route.reader.facts(opened)
        return item
    item.event = event
    item.event_id, item.event_type, item.user_id = event.event_id, event.event_type, event.user_id
    item.key = event_key(route.namespace, route.provider, event.event_id)
    item.body_hash = body_hash(opened.body)
    kind = type(event)
    item.handlers = route.table.handlers_for(kind)
    if not item.handlers:
        item.verdict = _without_handlers(route, kind)
    return item


def _verify(item: Item) -> Opened:
    raw, route, message = item.raw, item.route, item.held.message
    headers = message.headers
    neutral = unwrap_neutral(raw)
    if neutral is not None:
        if neutral.provider != route.provider:
            raise Unreadable("the envelope names a provider that this source is not for")
        raw, headers = neutral.body, neutral.headers
        item.headers = {**message.headers, **headers}
    return route.signature.verify(raw, headers, accepted_at=message.accepted_at, any_age=route.any_age)


def _without_handlers(route: Route, kind: type[object]) -> Handled | DeadLettered:
    if kind is UnknownEvent:
        if route.unknown_events == "ack" or route.table.ignores(UnknownEvent):
            return Handled()
        return DeadLettered("unknown_event", "no event type has this name")
    if route.table.ignores(kind):  # type: ignore[arg-type] # a reader only makes event classes
        return Handled()
    return DeadLettered("unhandled", "the dispatch table has no handler for this type")


def _refused(item: Item, reason: str, detail: str) -> Item:
    item.verdict = DeadLettered(reason, detail)
    return item
