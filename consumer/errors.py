"""Every exception this package raises on purpose, in one tree.

    ConsumerError
    ├── SettingsError            a setting is missing, wrong or contradicts another (exit code 2)
    │   └── NotConfigured        something needs a setting that was not given
    ├── VerificationError        a message that must not reach a handler
    │   ├── Unsigned             it carries no signature
    │   ├── BadSignature         it carries one, by nobody we know
    │   ├── Stale                authentic, but signed too long ago or in the future
    │   └── Unreadable           no envelope can be read from it, or only an ambiguous one
    ├── InvalidEvent             authentic, but the body is not what its event type says
    ├── SourceError              a queue did something it should not
    │   ├── SourceUnavailable    it may work again later: network, throttling, a server error
    │   └── SourceRefused        it will not work until a person acts: queue gone, access denied
    ├── ApiError                 a platform's REST API refused a request, or answered what cannot be read
    │   ├── CredentialsRefused   it does not accept our own credentials: a wrong, revoked or foreign key
    │   └── NotFound             what was asked for is not there (404, 410), or not for these credentials
    ├── DeadLetterError          the dead-letter store could not keep or read a record
    └── DatabaseError            the database cannot be used
        ├── DatabaseUnavailable  it is gone, full or overloaded; not the event's fault
        └── DatabaseConflict     a deadlock, a serialization failure, a lock or a commit in doubt: do it again

`Retry`, `Reject` and `Unavailable` are a handler's way to speak, not failures of this package: see
`consumer.outcomes`.

No message of these exceptions holds a byte of a message's body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

__all__ = [
    "ApiError",
    "ApiErrorDetail",
    "BadSignature",
    "ConsumerError",
    "CredentialsRefused",
    "DatabaseConflict",
    "DatabaseError",
    "DatabaseUnavailable",
    "DeadLetterError",
    "InvalidEvent",
    "NotConfigured",
    "NotFound",
    "SettingsError",
    "SourceError",
    "SourceRefused",
    "SourceUnavailable",
    "Stale",
    "Unreadable",
    "Unsigned",
    "VerificationError",
]


class ConsumerError(Exception):
    """Base of every exception raised on purpose by this package."""


class SettingsError(ConsumerError):
    """A setting is missing, wrong or contradicts another; the text is one line that names it."""


class NotConfigured(SettingsError):
    """Something was used that needs a setting which was not given; the text names the setting."""


class VerificationError(ConsumerError):
    """A message that must not reach a handler; `reason` is the dead-letter reason."""

    reason = "unreadable"
    proven = False
    """Whether one of the secrets signed the message all the same."""


class Unsigned(VerificationError):
    """The message carries no signature."""

    reason = "unsigned"


class BadSignature(VerificationError):
    """The message carries a signature that no configured secret made."""

    reason = "bad_signature"


class Stale(VerificationError):
    """The message is authentic, but was signed too long before, or after, the queue accepted it."""

    reason = "stale"
    proven = True


class Unreadable(VerificationError):
    """No envelope can be read from the message, or more than one way to read it exists."""

    reason = "unreadable"

    def __init__(self, text: str, *, proven: bool = False) -> None:
        super().__init__(text)
        self.proven = proven


class InvalidEvent(ConsumerError):
    """The body is authentic, but does not have the shape of its event type.

    The text names fields and what was expected of them, never their values.
    """


class SourceError(ConsumerError):
    """A source could not do what was asked of it."""


class SourceUnavailable(SourceError):
    """The queue does not answer, throttles or fails inside; trying again later may help."""


class SourceRefused(SourceError):
    """The queue refuses: it does not exist, or the credentials do not allow the call.

    Trying again helps only after somebody has changed something; the worker keeps trying, slowly, and says so.
    """


@dataclass(frozen=True, slots=True)
class ApiErrorDetail:
    """One complaint of a platform about one part of a request."""

    where: str | None
    """Dotted path of the field, or the parameter's name."""
    code: str | None
    message: str | None = field(repr=False)
    """In words; may repeat what was sent."""


class ApiError(ConsumerError):
    """A platform's REST API refused a request, or answered with something that cannot be read.

    The text says which call, the status, the platform's code and its request id. `message` and `details` are the
    platform's own words: they may repeat what was sent, so they are for the eyes of whoever made the call, and never
    part of the text.
    """

    def __init__(
        self,
        call: str,
        *,
        status: int | None,
        code: str | None = None,
        message: str | None = None,
        details: Sequence[ApiErrorDetail] = (),
        request_id: str | None = None,
    ) -> None:
        facts = [
            f"HTTP {status}" if status is not None else None,
            code,
            f"request {request_id}" if request_id else None,
        ]
        super().__init__(f"{call}: {', '.join(fact for fact in facts if fact) or 'the answer cannot be read'}")
        self.call = call
        """Method and path template, such as `GET /v1/users/{user_id}/labs`; without ids."""
        self.status = status
        """The HTTP status; None when there was none to speak of."""
        self.code = code
        """The platform's own code, as `queue_not_configured`, or one of ours for an answer that cannot be read."""
        self.message = message
        self.details = tuple(details)
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        # How exceptions are copied and pickled otherwise knows positional arguments only.
        facts = ("status", "code", "message", "details", "request_id")
        return partial(type(self), self.call, **{fact: getattr(self, fact) for fact in facts}), ()


class CredentialsRefused(ApiError):
    """The platform does not accept our own credentials: no event is to blame, and all that need them would fail."""

    answered: Callable[[], int] | None = None
    """How often the same call was done for others; see `consumer.outcomes.Unavailable`."""

    @classmethod
    def of(cls, error: ApiError, *, answered: Callable[[], int]) -> CredentialsRefused:
        """The same refusal, known to be about credentials."""
        refused = cls(
            error.call,
            status=error.status,
            code=error.code,
            message=error.message,
            details=error.details,
            request_id=error.request_id,
        )
        refused.answered = answered
        return refused


class NotFound(ApiError):
    """What was asked for is not there, or not for these credentials (404, 410)."""


class DeadLetterError(ConsumerError):
    """The dead-letter store could not keep, or could not read, a record."""


class DatabaseError(ConsumerError):
    """The database cannot be used as asked."""


class DatabaseUnavailable(DatabaseError):
    """The database is gone, full or overloaded: own trouble, no event is to blame for it."""


class DatabaseConflict(DatabaseError):
    """Two transactions met, or a commit's outcome is unknown: start again from reading the inbox."""
