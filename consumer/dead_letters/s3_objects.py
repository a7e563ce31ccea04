"""Objects in Amazon S3, or in what speaks as S3 does, through boto3.

Credentials come the way boto3's users expect. Conditional writes (`If-None-Match: *`, `If-Match`) and their answers,
412 and 409, are from the S3 user guide, "Add preconditions to S3 operations with conditional requests".
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Final, TypeVar

from consumer import __version__
from consumer.dead_letters.objects import (
    PIECE_BYTES,
    ListingDenied,
    ObjectArchived,
    ObjectChanged,
    Piece,
    Stat,
    missing_extra,
)
from consumer.errors import DeadLetterError, SettingsError
from consumer.settings_dead_letters import DeadLetterSettings

__all__ = ["S3Objects"]

_T = TypeVar("_T")

_TRIES: Final = 3
_PAUSE: Final = 0.3
_READ_LIMIT: Final = 5.0
_CONNECT_LIMIT: Final = 3.0
"""Seconds; with three tries a store that hangs is noticed within twenty, less than a worker's drain takes."""

_CHANGED: Final = frozenset({"PreconditionFailed", "412"})
_MEANWHILE: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
"""Another conditional write of the same object was under way: S3 says to try again."""
_GONE: Final = frozenset({"NoSuchKey", "404"})
_ARCHIVED: Final = "InvalidObjectState"
_PAST_THE_END: Final = frozenset({"InvalidRange", "416"})
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"})
_KEY: Final = ("KMS.", "Kms")
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")
_ADVICE: Final = (
    (frozenset({"NoSuchBucket"}), "the bucket does not exist: see dead_letters.bucket and dead_letters.region"),
    (
        frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}),
        "the bucket is in another region: see dead_letters.region",
    ),
    (
        frozenset({"ExpiredToken", "RequestExpired", "TokenRefreshRequired"}),
        "the AWS credentials have expired: renew them",
    ),
    (
        frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "UnrecognizedClientException"}),
        "the AWS credentials are wrong: see what provides them",
    ),
    (frozenset({"NotImplemented"}), "this store does not know conditional writes, which are needed"),
)
_LOCAL: Final = {
    "NoCredentialsError": "no AWS credentials found: give them in any way boto3 knows",
    "PartialCredentialsError": "the AWS credentials are incomplete: key and secret belong together",
    "CredentialRetrievalError": "the AWS credentials could not be fetched: see what provides them",
    "EndpointConnectionError": "it cannot be reached: see dead_letters.region and dead_letters.endpoint_url",
    "ConnectTimeoutError": "no connection in time: see dead_letters.region and dead_letters.endpoint_url",
    "ReadTimeoutError": "no answer in time",
}
"""Failures before there is an answer, by botocore's class names."""


class S3Objects:
    """The objects below `bucket`/`prefix`; satisfies `consumer.dead_letters.objects.Objects`.

    Of `settings`, `bucket`, `prefix`, `region`, `endpoint_url` and `sse_kms_key_id` matter here. Nothing is asked of S3
    before the first call. Raises SettingsError: boto3 is not installed, or the region or endpoint is none.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        self._bucket = settings.bucket or ""
        self._folder = settings.prefix.rstrip("/") + "/"
        self._encryption: dict[str, str] = {}
        if settings.sse_kms_key_id is not None:
            self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.sse_kms_key_id}
        self._client = _new_client(settings)

    @property
    def where(self) -> str:
        """The folder, as AWS's tools write it."""
        return f"s3://{self._bucket}/{self._folder}"

    def create(self, name: str, data: bytes) -> None:
        """Put it with `If-None-Match: *`; see `Objects`."""
        self._put(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, *, etag: str) -> None:
        """Put it with `If-Match`; see `Objects`."""
        self._put(name, data, IfMatch=etag)

    def overwrite(self, name: str, data: bytes) -> None:
        """Put it without a condition; see `Objects`."""
        self._put(name, data)

    def read(self, name: str, *, offset: int = 0, etag: str | None = None) -> Piece:
        """Get a range; see `Objects`."""
        arguments = {"Range": f"bytes={offset}-{offset + PIECE_BYTES - 1}"} | ({"IfMatch": etag} if etag else {})

        for left in reversed(range(_TRIES)):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._folder + name, **arguments)
            except Exception as error:  # noqa: BLE001 - boto raises what it likes; the protocol knows three errors
                return self._not_read(error)
            try:
                with contextlib.closing(answer["Body"]) as body:
                    data = body.read()
            except Exception as error:  # noqa: BLE001 - as above
                # Boto repeats requests by itself, but not what breaks off while an answer is being read.
                if not left:
                    raise self._trouble("GetObject", error) from None
                time.sleep(_PAUSE)
            else:
                total = str(answer.get("ContentRange") or f"/{len(data)}").rpartition("/")[2]
                return Piece(data, int(total), answer["ETag"])
        raise AssertionError("unreachable")

    def _not_read(self, error: Exception) -> Piece:
        code = _code(error)
        if code in _PAST_THE_END:
            return Piece(b"", 0, "")
        if code in _GONE:
            raise FileNotFoundError from None
        if code in _CHANGED:
            raise ObjectChanged from None
        if code == _ARCHIVED:
            raise ObjectArchived from None
        raise self._trouble("GetObject", error) from None

    def delete(self, name: str) -> None:
        """Delete it; see `Objects`."""
        self._ask("DeleteObject", lambda: self._client.delete_object(Bucket=self._bucket, Key=self._folder + name))

    def list(self, start: str = "") -> Iterator[Stat]:
        """List it, a page of a thousand at a time; see `Objects`."""
        arguments: dict[str, str] = {"Bucket": self._bucket, "Prefix": self._folder + start}
        while True:
            page = self._ask("ListBucket", lambda: self._client.list_objects_v2(**arguments))
            for found in page.get("Contents", ()):
                yield Stat(found["Key"].removeprefix(self._folder), found["Size"])
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def _put(self, name: str, data: bytes, **condition: str) -> None:
        for left in reversed(range(_TRIES)):
            try:
                self._client.put_object(
                    Bucket=self._bucket, Key=self._folder + name, Body=data, **self._encryption, **condition
                )
            except Exception as error:  # noqa: BLE001 - as above
                code = _code(error)
                if (condition and code in _CHANGED) or ("IfMatch" in condition and code in _GONE):
                    raise ObjectChanged from None
                if code not in _MEANWHILE or not left:
                    raise self._trouble("PutObject", error) from None
                time.sleep(_PAUSE)
            else:
                return

    def _ask(self, action: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - as above
            raise self._trouble(action, error) from None

    def _trouble(self, action: str, error: Exception) -> DeadLetterError:
        """One line that says what to do. A server's text is never passed on, only its code."""
        code = _code(error)
        kind = ListingDenied if action == "ListBucket" and code in _DENIED else DeadLetterError
        return kind(f"dead-letter store {self.where}: {_advice(action, code, error)}")


def _advice(action: str, code: str, error: Exception) -> str:
    if not code:
        name = type(error).__name__
        return _LOCAL.get(name, f"{action} failed for now: {name}")
    if code in _DENIED:
        return f"access denied: allow s3:{action} there, and the use of its KMS key if it has one"
    if code.startswith(_KEY):
        return f"its KMS key cannot be used ({code}): see dead_letters.sse_kms_key_id"
    known = next((advice for codes, advice in _ADVICE if code in codes), None)
    return f"{known} ({code})" if known else f"{action} failed: {code}"


def _code(error: Exception) -> str:
    """The service's error code; empty for anything the service did not say."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return ""
    code = str(response.get("Error", {}).get("Code", ""))
    return code if _CODE.fullmatch(code) else f"HTTP {response.get('ResponseMetadata', {}).get('HTTPStatusCode')}"


def _new_client(settings: DeadLetterSettings) -> Any:
    try:
        boto3, config = import_module("boto3"), import_module("botocore.config")
    except ImportError:
        raise missing_extra("s3", "sqs") from None
    try:
        return boto3.session.Session().client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=config.Config(
                user_agent_extra=f"health-event-consumer/{__version__}",
                retries={"mode": "standard", "total_max_attempts": _TRIES},
                connect_timeout=_CONNECT_LIMIT,
                read_timeout=_READ_LIMIT,
            ),
        )
    except Exception as error:  # noqa: BLE001 - as above
        kind = type(error).__name__
        key = "endpoint_url" if isinstance(error, ValueError) and settings.endpoint_url else "region"
        raise SettingsError(f"dead_letters.{key}: boto3 cannot make a client of it ({kind})") from None
