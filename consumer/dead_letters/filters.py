"""Choosing dead letters: one grammar for every command.

Criteria of different kinds must all hold; of several values of one kind, one must.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from consumer.dead_letters.record import DeadLetter, SealedDeadLetter, open_sealed
from consumer.durations import parse_duration
from consumer.errors import NotConfigured

__all__ = ["Chosen", "Filter", "parse_time"]

Chosen = Callable[[DeadLetter | SealedDeadLetter], bool]
"""Says of a dead letter whether it is meant. May raise DeadLetterError for one it cannot judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters are meant. `since` (from, included) and `until` (to, excluded) are of `dead_lettered_at`."""

    ids: tuple[str, ...] = ()
    """Ids, or what they begin with."""
    reasons: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    """Event types; `*`, `?` and `[...]` as in file names. An unverified message has no type and matches none."""
    sources: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    limit: int | None = None
    """How many at most; for whoever reads, `matches` knows nothing of it."""

    @property
    def empty(self) -> bool:
        """Whether it lets everything through, a limit aside."""
        given = (self.ids, self.reasons, self.types, self.sources, self.providers, self.users)
        return not any(given) and self.since is None and self.until is None

    def matches(self, record: DeadLetter | SealedDeadLetter) -> bool:
        """Whether the record is meant. Of a sealed one the user cannot be seen and is not asked for."""
        return (
            (not self.ids or record.id.startswith(self.ids))
            and (not self.reasons or record.reason in self.reasons)
            and (not self.sources or record.source in self.sources)
            and (not self.providers or record.provider in self.providers)
            and (self.since is None or record.dead_lettered_at >= self.since)
            and (self.until is None or record.dead_lettered_at < self.until)
            and (not self.types or self._has_type(record.event_type))
            and (not self.users or isinstance(record, SealedDeadLetter) or record.user_id in self.users)
        )

    def chooser(self, unseal: Callable[[bytes], bytes] | None = None) -> Chosen:
        """Like `matches`, but sealed ones are opened where the user is asked for.

        What is returned raises NotConfigured when that needs `unseal`, DeadLetterError for one that does not open.
        """

        def chosen(record: DeadLetter | SealedDeadLetter) -> bool:
            if not self.matches(record):
                return False
            if not self.users or isinstance(record, DeadLetter):
                return True
            if unseal is None:
                raise NotConfigured("dead_letters.identity_file: needed to choose sealed dead letters by user")
            return self.matches(open_sealed(record, unseal))

        return chosen

    def _has_type(self, event_type: str | None) -> bool:
        return event_type is not None and any(fnmatch.fnmatchcase(event_type, pattern) for pattern in self.types)


def parse_time(text: str, *, now: datetime) -> datetime:
    """Read a time: ISO 8601, in UTC unless it says otherwise, or a duration such as `2h` for that long ago.

    Raises ValueError.
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        pass
    else:
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        raise ValueError("expected a time such as 2026-03-16, 2026-03-16T08:00Z or, for that long ago, 2h") from None
