"""Faults an SQS stub can be told to have, beside those of every emulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tests.emulators.faults import BROKEN, Fault
from tests.emulators.sqs_stub_actions import Partial, no_queue
from tests.emulators.sqs_stub_queue import StubError

__all__ = ["ERRORS", "SqsFault"]

ERRORS: Mapping[str, tuple[str, str, bool, int]] = {
    "throttle": ("RequestThrottled", "RequestThrottled", True, 400),
    "internal": ("InternalFailure", "InternalError", False, 500),
    "unavailable": ("ServiceUnavailable", "ServiceUnavailable", False, 503),
    "expired": ("ExpiredTokenException", "ExpiredToken", True, 403),
    "bad_token": ("UnrecognizedClientException", "InvalidClientTokenId", True, 403),
    "denied": ("AccessDeniedException", "AccessDenied", True, 403),
    "bad_signature": ("InvalidSignatureException", "SignatureDoesNotMatch", True, 403),
}
"""Kinds that answer with an error: its JSON code, its older code, whose fault, the HTTP status."""


@dataclass(slots=True)
class SqsFault(Fault):
    """One thing that goes wrong; `action` is a name such as ReceiveMessage. partial: batch entries fail."""

    kinds: ClassVar[tuple[str, ...]] = (*ERRORS, *BROKEN, "no_queue", "partial")

    entries: tuple[int, ...] | None = None
    """partial: positions that fail; None: every entry."""
    code: str = "InternalError"
    sender_fault: bool = False

    def error(self) -> StubError | None:
        """The error it answers with, if that is its kind."""
        if self.kind == "no_queue":
            return no_queue()
        if self.kind not in ERRORS:
            return None
        code, query, sender, status = ERRORS[self.kind]
        return StubError(code, f"{code} on demand", query=query, sender=sender, status=status)

    def partial(self) -> Partial:
        """Which entries of a batch fail, and how."""

        def fail(position: int) -> StubError | None:
            hit = self.entries is None or position in self.entries
            return StubError(self.code, "on demand", sender=self.sender_fault) if hit else None

        return fail
