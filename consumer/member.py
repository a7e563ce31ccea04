"""Whom a request to be forgotten is about."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Member"]


@dataclass(frozen=True, slots=True)
class Member:
    """A member whose data are to be erased. Its repr leaves out the ids. Raises ValueError for an id that is empty."""

    user_id: str = field(repr=False)
    """Your own id of the member: `user_id` of Thrive's events, the external id of Sahha's."""
    provider: str | None = None
    """The one platform whose data are meant, `thrive` or `sahha`; None: those of every platform."""
    profile_ids: tuple[str, ...] = field(default=(), repr=False)
    """Sahha's own ids of the member, where they were given: for what does not say an external id."""
    dry_run: bool = False
    """Nothing is to be erased, only counted: the transaction is rolled back. What lies outside of it, leave alone."""

    def __post_init__(self) -> None:
        if not self.user_id or not all(self.profile_ids):
            # It would be found in whatever has an empty text somewhere, of whomever that is.
            msg = "user_id and profile_ids: expected texts that are not empty"
            raise ValueError(msg)

    def of(self, provider: str) -> bool:
        """Whether a platform's data are meant."""
        return self.provider in (None, provider)
