"""What the exceptions of azure-eventhub, azure-core and azure-identity mean to the worker.

Told apart by class name and AMQP condition, so that nothing of Azure is imported here. A service's text is never
passed on, only its condition or code.
"""

from __future__ import annotations

import re
from typing import Any, Final

from consumer.errors import SourceError, SourceRefused, SourceUnavailable

__all__ = ["PartitionTaken", "condition_of", "hub_trouble", "store_trouble"]

_NAME: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_MISSING: Final = frozenset({"not-found", "entity-not-found"})
_DENIED: Final = frozenset({"unauthorized-access", "auth-failed"})
_DISABLED: Final = frozenset({"entity-disabled", "not-allowed"})
_STOLEN: Final = "link:stolen"
_UNREACHED: Final = "socket-error"
_STORE_DENIED: Final = frozenset({401, 403})


class PartitionTaken(SourceUnavailable):
    """Another consumer reads the partition now."""


def _lineage(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def condition_of(error: BaseException) -> str:
    """The AMQP condition an exception came with, or the name of its class; never a text of the service's.

    Without what stands before the first colon (`amqp:`, `com.microsoft:`), as the SDK gives it.
    """
    for one in (error, *(part for part in (getattr(error, "details", None),) if isinstance(part, Exception))):
        found: Any = getattr(one, "error", None) or getattr(one, "condition", None)
        text = found.decode("utf-8", "replace") if isinstance(found, bytes) else getattr(found, "value", found)
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        if isinstance(text, str) and _NAME.fullmatch(text):
            return text.removeprefix("amqp:").removeprefix("com.microsoft:")
    return type(error).__name__


def hub_trouble(name: str, operation: str, error: BaseException, *, group: str | None = None) -> SourceError:
    """What an exception of azure-eventhub means, as one line; `group` is the consumer group that was asked for."""
    if isinstance(error, SourceError):
        return error
    condition = condition_of(error)
    where = f"source {name}: {operation}"
    refused = _refused(condition, _lineage(error), group)
    if refused is not None:
        return SourceRefused(f"{where}: {refused} ({condition})")
    if condition == _STOLEN:
        return PartitionTaken(f"{where}: another consumer took the partition ({condition})")
    advice = ": see its connection_string or namespace, and the network" if condition == _UNREACHED else ""
    return SourceUnavailable(f"{where}: {condition}{advice}")


def _refused(condition: str, kinds: set[str], group: str | None) -> str | None:
    """What a person has to do something about; None: trying again may help."""
    if condition in _MISSING:
        return (
            "there is no such event hub" if group is None else f"there is no such event hub or consumer group {group}"
        )
    if condition in _DISABLED:
        return "the hub does not allow it"
    if kinds & {"AuthenticationError", "AuthenticationException"} or condition in _DENIED:
        return "access denied: see the key, its rights, or the role assignment"
    if "ClientAuthenticationError" in kinds:
        return "no Azure credential works here"
    return None


def store_trouble(name: str, container: str, error: BaseException) -> SourceError:
    """What an exception of the checkpoints' storage means, as one line."""
    kinds = _lineage(error)
    code = getattr(error, "error_code", None)
    code = getattr(code, "value", code)
    status = getattr(error, "status_code", None)
    what = code if isinstance(code, str) and _NAME.fullmatch(code) else type(error).__name__
    where = f"source {name}: checkpoints"
    if "ResourceNotFoundError" in kinds:
        return SourceRefused(f"{where}: there is no container {container} ({what}): make it")
    if "ClientAuthenticationError" in kinds and status is None:
        return SourceRefused(f"{where}: no Azure credential works here ({what}): see DefaultAzureCredential")
    if status in _STORE_DENIED:
        return SourceRefused(
            f"{where}: access to container {container} denied ({what}): allow reading and writing blobs"
        )
    advice = ": see checkpoints.connection_string or account_url" if "ServiceRequestError" in kinds else ""
    return SourceUnavailable(f"{where}: {what}{advice}")
