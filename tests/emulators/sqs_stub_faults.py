"""Faults an SQS stub can be told to have: which, on which action, how often."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.emulators.sqs_stub_actions import Partial, no_queue
from tests.emulators.sqs_stub_queue import StubError

__all__ = ["ERRORS", "KINDS", "Fault", "Faults"]

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

KINDS = (*ERRORS, "no_queue", "reset", "reset_after", "hang", "latency", "partial", "bad_json")
"""reset: the connection breaks, nothing was done. reset_after: it was done, and the reply is lost. hang: no reply
ever. latency: the reply comes `seconds` late. partial: batch entries fail. bad_json: the reply is cut in half."""


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong; `action` is a name such as ReceiveMessage, or * for all."""

    kind: str
    action: str = "*"
    probability: float = 1.0
    count: int | None = None
    """How many requests it hits; None: all of them until it is cleared."""
    seconds: float = 0.0
    entries: tuple[int, ...] | None = None
    """partial: positions that fail; None: every entry."""
    code: str = "InternalError"
    sender_fault: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {', '.join(KINDS)}")
        self.action = self.action.lower()
        self.entries = None if self.entries is None else tuple(self.entries)

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


class Faults:
    """The faults in force, in order; the same seed gives the same course."""

    def __init__(self, seed: int = 0) -> None:
        self.active: list[Fault] = []
        self._random = random.Random(seed)

    def add(self, kind: str, **options: Any) -> Fault:
        """Put a fault in force; see `Fault` for the options."""
        fault = Fault(kind, **options)
        self.active.append(fault)
        return fault

    def clear(self) -> None:
        """No faults from now on."""
        self.active.clear()

    def draw(self, action: str) -> list[Fault]:
        """The faults that hit this request, each used up by one."""
        hits: list[Fault] = []
        for fault in list(self.active):
            if fault.action not in {"*", action} or self._random.random() >= fault.probability:
                continue
            hits.append(fault)
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    self.active.remove(fault)
        return hits
