"""What the error codes of Azure Storage Queue, and the exceptions of its SDK, mean to the worker.

Exceptions are told apart by the service's code, the HTTP status and the class name, so that nothing of the SDK is
imported here. A server's text is never passed on, only its code. Codes are from the service's reference, "Queue
Storage error codes" and "Common REST API error codes".
"""

from __future__ import annotations

import re
from typing import Final

from consumer.errors import SourceError, SourceRefused, SourceUnavailable

__all__ = ["NOT_FOUND", "RECEIPT_CODES", "code_of", "foreign", "is_denied", "status_of", "trouble", "unread_reply"]

NOT_FOUND: Final = "MessageNotFound"
RECEIPT_CODES: Final = frozenset({NOT_FOUND, "PopReceiptMismatch"})
"""How the service says that a receipt is no longer ours: the message is gone, or was handed out or renewed since."""

_PERMISSION: Final = frozenset(
    {
        "AuthorizationFailure",
        "AuthorizationPermissionMismatch",
        "AuthorizationProtocolMismatch",
        "AuthorizationResourceTypeMismatch",
        "AuthorizationServiceMismatch",
        "AuthorizationSourceIPMismatch",
        "InsufficientAccountPermissions",
        "KeyBasedAuthenticationNotPermitted",
        "AccountIsDisabled",
    }
)
_CREDENTIALS: Final = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"})
_NO_QUEUE: Final = frozenset({"QueueNotFound", "ResourceNotFound"})
_PASSING: Final = frozenset({"QueueBeingDeleted", "ServerBusy", "InternalError", "OperationTimedOut"})
_DENIED: Final = "access denied ({code}): allow {operation} on this queue"
_ADVICE: Final = (
    (_NO_QUEUE, "the queue does not exist ({code}): see its queue and account"),
    (_PERMISSION, _DENIED),
    (_CREDENTIALS, "the Azure credentials are wrong or have expired ({code}): see what provides them"),
)
"""Failures that only a person can end, and what to do."""
_LOCAL: Final = {
    "AzureSigningError": "the account key is not one: see its connection_string",
    "ClientAuthenticationError": "no Azure credentials that work were found: give them in a way DefaultAzureCredential"
    " knows",
    "CredentialUnavailableError": "no Azure credentials were found: give them in a way DefaultAzureCredential knows",
}
"""Failures before a request is sent that only a person can end, by class names of azure-core and azure-identity."""
_UNREACHED: Final = frozenset({"ServiceRequestError", "ServiceRequestTimeoutError"})
_CODE: Final = re.compile(r"[A-Za-z0-9]{1,64}")

_OK: Final = 200
_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429
_REQUEST_TIMEOUT: Final = 408
_DENIED_STATUS: Final = frozenset({401, 403})


def code_of(error: BaseException) -> str:
    """The service's error code; empty for anything the service did not say."""
    code = getattr(error, "error_code", None) or _header(error)
    text = str(getattr(code, "value", code) or "")
    return text if _CODE.fullmatch(text) else ""


def _header(error: BaseException) -> object:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return None if headers is None else headers.get("x-ms-error-code")


def status_of(error: BaseException) -> int:
    """The HTTP status of the reply, 0 without one."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def unread_reply(error: BaseException) -> str | None:
    """The text of a reply that said 200 and that the SDK could not read; None for any other error."""
    response = getattr(error, "response", None)
    return str(response.text()) if response is not None and status_of(error) == _OK else None


def is_denied(error: BaseException) -> bool:
    """Whether this says that the credentials are good but do not allow the call."""
    return code_of(error) in _PERMISSION


def trouble(name: str, operation: str, error: BaseException) -> SourceError:
    """The error to raise for what went wrong in one call; one line that names the source and what to do."""
    if isinstance(error, SourceError):
        return error
    status = status_of(error)
    if not status:
        return _without_reply(name, operation, error)
    code = code_of(error)
    what = code or f"HTTP {status}"
    advice = next((advice for codes, advice in _ADVICE if code in codes), None)
    if advice is None and status in _DENIED_STATUS:
        advice = _DENIED
    if advice is not None:
        return SourceRefused(f"source {name}: {advice.format(code=what, operation=operation)}")
    if code in _PASSING or status >= _SERVER_FAULT or status in {_TOO_MANY, _REQUEST_TIMEOUT}:
        return SourceUnavailable(f"source {name}: Storage Queue {operation} failed for now: {what}")
    if status == _OK:
        return foreign(name, operation)
    return SourceRefused(f"source {name}: Storage Queue {operation} was refused: {what}")


def foreign(name: str, operation: str) -> SourceUnavailable:
    """The error for a reply that nobody of Storage Queue wrote, such as a proxy's page."""
    return SourceUnavailable(f"source {name}: the reply to {operation} is not one of Storage Queue")


def _without_reply(name: str, operation: str, error: BaseException) -> SourceError:
    kind = type(error).__name__
    if kind in _LOCAL:
        return SourceRefused(f"source {name}: {_LOCAL[kind]}")
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"source {name}: Storage Queue {operation} failed for now: no answer in time")
    if kind in {"ParseError", "DecodeError", "DeserializationError"}:
        return foreign(name, operation)
    hint = " (see its connection_string or account_url)" if kind in _UNREACHED else ""
    return SourceUnavailable(f"source {name}: Storage Queue {operation} failed for now: {_cause(error)}{hint}")


def _cause(error: BaseException) -> str:
    """The class of what lies under the SDK's error: aiohttp's says whether it was the name, the port or the line."""
    inner = getattr(error, "inner_exception", None) or error
    return type(inner).__name__
