"""A consumer of signed health events: you write handlers, it does the rest.

The names below are the public ones; they are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "BadSignature": "consumer.errors",
    "ConsumerError": "consumer.errors",
    "Context": "consumer.context",
    "Delivery": "consumer.context",
    "DispatchTable": "consumer.dispatch",
    "Member": "consumer.member",
    "NotConfigured": "consumer.errors",
    "Opened": "consumer.signatures",
    "Reject": "consumer.outcomes",
    "Retry": "consumer.outcomes",
    "SahhaSignature": "consumer.signatures",
    "Stale": "consumer.errors",
    "ThriveSignature": "consumer.signatures",
    "Unavailable": "consumer.outcomes",
    "Unreadable": "consumer.errors",
    "Unsigned": "consumer.errors",
    "VerificationError": "consumer.errors",
}

__all__ = [
    "BadSignature",
    "ConsumerError",
    "Context",
    "Delivery",
    "DispatchTable",
    "Member",
    "NotConfigured",
    "Opened",
    "Reject",
    "Retry",
    "SahhaSignature",
    "Stale",
    "ThriveSignature",
    "Unavailable",
    "Unreadable",
    "Unsigned",
    "VerificationError",
    "__version__",
]

if TYPE_CHECKING:
    from consumer.context import Context, Delivery
    from consumer.dispatch import DispatchTable
    from consumer.errors import (
        BadSignature,
        ConsumerError,
        NotConfigured,
        Stale,
        Unreadable,
        Unsigned,
        VerificationError,
    )
    from consumer.member import Member
    from consumer.outcomes import Reject, Retry, Unavailable
    from consumer.signatures import Opened, SahhaSignature, ThriveSignature


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
