"""Whether a dead letter, or an envelope that is parked, is a member's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from consumer.deliveries import Held
from consumer.events.reading import FIELDS
from consumer.mentions import mentions
from consumer.opening import open_message
from consumer.sources.base import Message

if TYPE_CHECKING:
    from consumer.dead_letters.record import DeadLetter
    from consumer.deliveries import Item
    from consumer.member import Member
    from consumer.route import Route

__all__ = ["Ownership", "Share"]

Share = Literal["all", "some", "none"]
"""How much of a message is a member's: of an array some envelopes may be others'."""

_PROFILE_FIELDS: Final = ("profileId", "profile_id")
_SAHHA_FIELDS: Final = ("externalId", "external_id", *_PROFILE_FIELDS)
_ACCOUNT_FIELDS: Final = ("accountId", "account_id")
"""Where no member's id stands, but one that is in everybody's events."""


class Ownership:
    """Knows a member's messages.

    A proven event that names a member is of that member and of nobody else. Anything else, which names none or whose
    sender is not known, counts as the member's when their id stands in it as a value: in the message, in a header or as
    its ordering key. Rather one unreadable message too many is erased than one too few.
    """

    def __init__(
        self,
        member: Member,
        *,
        user_fields: Sequence[str] | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        """`user_fields` are the dotted places of a user's id in Thrive's bodies; None: the built-in ones.

        `routes` are the configured sources', by name: a dead letter that was no event when it was put aside, because it
        was stale say, may be proven now to be somebody else's.
        """
        self._member = member
        self._routes = routes or {}
        paths = FIELDS["user_id"] if user_fields is None else user_fields
        self._number_fields = {path.rpartition(".")[2] for path in paths} | {*_SAHHA_FIELDS}

    def share_of(self, record: DeadLetter) -> Share:
        """How much of a dead letter is the member's."""
        facts = (record.message, record.headers, record.attributes.get("ordering_key"))
        if not self.of_envelope(record.provider, record.user_id, *facts):
            return "none"
        items = [] if record.user_id is not None else self._opened(record)
        mine = [self.of_envelope(record.provider, one.user_id, one.raw, one.headers, facts[2]) for one in items]
        if all(one.user_id is None or own for one, own in zip(items, mine, strict=True)):
            return "all"
        return "some" if any(mine) else "none"

    def _opened(self, record: DeadLetter) -> list[Item]:
        """The envelopes of a dead letter as they would be read today; none if its source is not configured."""
        route = self._routes.get(record.source)
        if route is None:
            return []
        headers = {name: value for name, value in record.headers.items() if isinstance(value, str)}
        message = Message(record.message, record.id, None, record.accepted_at, headers=headers)
        return open_message(Held(message, received_at=0.0), replace(route, any_age=True))

    def of_envelope(
        self,
        provider: str | None,
        user_id: str | None,
        raw: bytes,
        headers: Mapping[str, Any],
        ordering_key: Any = None,
    ) -> bool:
        """Whether an envelope's bytes are about the member; `user_id` is given only if they are proven and name one.

        `provider` None: nobody knows any more whose message it is, so it may be of the platform that is meant.
        """
        member = self._member
        if provider is not None and not member.of(provider):
            return False
        profiles = () if provider == "thrive" else member.profile_ids
        if user_id is not None:
            return user_id == member.user_id or (bool(profiles) and mentions(raw, profiles, only_in=_PROFILE_FIELDS))
        ids = {member.user_id, *profiles}
        # What a line says of them may be anything, a list too.
        if any(isinstance(value, str) and value in ids for value in (ordering_key, *headers.values())):
            return True
        return mentions(raw, ids, number_fields=self._number_fields, not_in=_ACCOUNT_FIELDS)
