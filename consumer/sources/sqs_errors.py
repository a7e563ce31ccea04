"""What the error codes of SQS, and the exceptions of botocore, mean to the worker.

Codes are compared without their namespace (`AWS.SimpleQueueService.NonExistentQueue` is `NonExistentQueue`): which
spelling arrives depends on the client's age. Exceptions are told apart by code and class name, so that nothing of
boto is imported here. A server's text is never passed on, only its code.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from consumer.errors import SettingsError, SourceError, SourceRefused, SourceUnavailable

__all__ = ["HANDLE_CODES", "NONSENSE_CODES", "code_of", "fate_of_entry", "is_denied", "trouble"]

_PASSING: Final = frozenset(
    {
        "BandwidthLimitExceeded",
        "InternalError",
        "InternalFailure",
        "KmsThrottled",
        "LimitExceededException",
        "OverLimit",
        "PriorRequestNotComplete",
        "PurgeQueueInProgress",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "Throttling",
        "ThrottledException",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
HANDLE_CODES: Final = frozenset({"InvalidParameterValue", "MessageNotInflight", "ReceiptHandleIsInvalid"})
"""How SQS says that a receipt handle is not, or no longer, good for what was asked."""
NONSENSE_CODES: Final = HANDLE_CODES | {"EmptyBatchRequest"}
"""How SQS refuses what nobody could be given, to those who may ask."""
# botocore gives the status for a code where an answer has none, such as a proxy's or an endpoint policy's.
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "InvalidSecurity", "UnauthorizedOperation", "403"})
_NO_QUEUE: Final = frozenset({"NonExistentQueue", "QueueDeletedRecently", "QueueDoesNotExist"})
_EXPIRED: Final = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"})
_CREDENTIALS: Final = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_ADVICE: Final = (
    (_NO_QUEUE, "the queue does not exist ({code}): see its queue_url and region"),
    (_DENIED, "access denied ({code}): allow sqs:{operation} on this queue"),
    (_EXPIRED, "the AWS credentials have expired ({code}): renew them"),
    (_CREDENTIALS, "the AWS credentials are wrong ({code}): see what provides them"),
)
"""Failures that only a person can end, and what to do."""
_LOCAL: Final = {
    "NoCredentialsError": "no AWS credentials found: give them in any way boto3 knows",
    "PartialCredentialsError": "the AWS credentials are incomplete: key and secret belong together",
    "CredentialRetrievalError": "the AWS credentials could not be fetched: see what provides them",
    "TokenRetrievalError": "the AWS SSO session has ended: log in again",
    "SSOTokenLoadError": "the AWS SSO session has ended: log in again",
    "UnauthorizedSSOTokenError": "the AWS SSO session has ended: log in again",
    "ProfileNotFound": "the AWS profile does not exist: see AWS_PROFILE",
    "ConfigParseError": "the AWS configuration file cannot be read",
    "InvalidConfigError": "the AWS configuration is wrong",
    "InvalidEndpointConfigurationError": "the endpoint is not usable: see the source's endpoint_url",
    "ParamValidationError": "boto refused the request as malformed",
}
"""Failures before a request is sent that only a person can end, by botocore's class names."""
_REGION: Final = {
    "NoRegionError": "missing, since the queue's URL names none: set it, or AWS_DEFAULT_REGION",
    "InvalidRegionError": "expected a region such as us-east-1 (it may come from AWS_DEFAULT_REGION)",
}
"""Of these, the ones that a setting ends."""

_SERVER_FAULT: Final = 500
_TOO_MANY: Final = 429


def code_of(error: BaseException) -> str:
    """The service's error code without its namespace; empty for anything the service did not say."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    return _bare(str(response.get("Error", {}).get("Code", "")))


def _bare(code: str) -> str:
    return code.rpartition(".")[2].rpartition("#")[2]


def _status(error: BaseException) -> int:
    response: dict[str, Any] = getattr(error, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def is_denied(code: str) -> bool:
    """Whether this code says that the credentials do not allow the call."""
    return code in _DENIED


def fate_of_entry(code: str, *, sender_fault: bool) -> Literal["again", "gone", "refused"]:
    """What becomes of one entry of a settling batch that failed with this code.

    `InvalidParameterValue` is how SQS speaks of a receipt handle that has expired, and of a renewal beyond the 12
    hours a message may be in flight: both mean that the lease cannot be kept.
    """
    bare = _bare(code)
    if bare in _PASSING or not sender_fault:
        return "again"
    return "gone" if bare in HANDLE_CODES else "refused"


def trouble(name: str, operation: str, error: BaseException) -> SourceError | SettingsError:
    """The error to raise for what went wrong in one call; one line that names the source and what to do.

    A `SettingsError` only for what a client refuses when it is made.
    """
    code = code_of(error)
    if not code:
        return _without_code(name, operation, error)
    for codes, advice in _ADVICE:
        if code in codes:
            return SourceRefused(f"source {name}: {advice.format(code=code, operation=operation)}")
    status = _status(error)
    if code in _PASSING or status >= _SERVER_FAULT or status == _TOO_MANY:
        return SourceUnavailable(f"source {name}: SQS {operation} failed for now: {code}")
    return SourceRefused(f"source {name}: SQS {operation} was refused: {code}")


def _without_code(name: str, operation: str, error: BaseException) -> SourceError | SettingsError:
    kind = type(error).__name__
    if kind in _REGION:
        return SettingsError(f"sources.{name}.region: {_REGION[kind]}")
    if kind in _LOCAL:
        return SourceRefused(f"source {name}: {_LOCAL[kind]}")
    if isinstance(error, TimeoutError):
        return SourceUnavailable(f"source {name}: SQS {operation} failed for now: no answer in time")
    if isinstance(error, ValueError) and not isinstance(error, UnicodeError):
        # botocore checks endpoints with plain ValueErrors.
        return SourceRefused(f"source {name}: SQS {operation} cannot be asked: see its queue_url and endpoint_url")
    hint = " (see its queue_url, region and endpoint_url)" if kind == "EndpointConnectionError" else ""
    return SourceUnavailable(f"source {name}: SQS {operation} failed for now: {kind}{hint}")
