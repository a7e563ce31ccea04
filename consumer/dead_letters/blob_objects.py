"""Objects in Azure Blob Storage: block blobs in a container.

With a connection string its credentials are used, with an account URL those of DefaultAzureCredential. Codes are from
the service's reference, "Blob service error codes" and "Common REST API error codes".
"""

from __future__ import annotations

import contextlib
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
from consumer.sources.azure_credentials import quieten_azure
from consumer.sources.storage_queue_errors import code_of, status_of

__all__ = ["BlobObjects"]

_T = TypeVar("_T")

_CONNECT_LIMIT: Final = 3
_READ_LIMIT: Final = 5
"""Seconds; with three tries a store that hangs is noticed within twenty, less than a worker's drain takes."""
_RETRIES: Final = {"retry_total": 2, "initial_backoff": 0, "increment_base": 1, "random_jitter_range": 0.5}
"""Two repetitions, each after half a second to one and a half. The SDK's own wait for a minute and more."""
_SINGLE_PUT: Final = 64 * 1024 * 1024
"""Bytes that go in one request, which is all or nothing; larger ones only a purge of foreign segments writes."""

_PAGE: Final = 500
"""Blobs of a listing that are in memory at once; the SDK takes some KiB for each."""

_MISSING: Final = 404
_EXISTS: Final = "BlobAlreadyExists"
_CHANGED: Final = frozenset({"ConditionNotMet", "TargetConditionNotMet", _EXISTS})
_NO_CONTAINER: Final = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_ARCHIVED: Final = frozenset({"BlobArchived", "BlobBeingRehydrated"})
_PAST_THE_END: Final = "InvalidRange"
_DENIED_STATUS: Final = frozenset({401, 403})
_CREDENTIALS: Final = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"})
_LOCAL: Final = {
    "AzureSigningError": "the account key is not one: see dead_letters.connection_string",
    "ClientAuthenticationError": "no Azure credentials that work were found: give them in a way"
    " DefaultAzureCredential knows",
    "CredentialUnavailableError": "no Azure credentials were found: give them in a way DefaultAzureCredential knows",
    "ServiceRequestError": "it cannot be reached: see its connection string or account URL",
    "ServiceRequestTimeoutError": "no connection in time: see its connection string or account URL",
    "ServiceResponseTimeoutError": "no answer in time",
}
"""Failures before there is an answer, by class names of azure-core and azure-identity."""


class BlobObjects:
    """The blobs below `container`/`prefix`; satisfies `consumer.dead_letters.objects.Objects`.

    Of `settings`, `connection_string` or `account_url`, `container` and `prefix` matter here. Nothing is asked of Azure
    before the first call. Raises SettingsError: the SDK is not installed, or takes the settings for wrong.
    """

    def __init__(self, settings: DeadLetterSettings) -> None:
        self._folder = settings.prefix.rstrip("/") + "/"
        self._stack = contextlib.ExitStack()
        self._container = _new_client(settings, self._stack)
        self._unchanged: Any = import_module("azure.core").MatchConditions.IfNotModified

    @property
    def where(self) -> str:
        """Account, container and folder; never a URL, which may be signed."""
        return f"{self._container.account_name}/{self._container.container_name}/{self._folder}"

    def create(self, name: str, data: bytes) -> None:
        """Upload it with `If-None-Match: *`; see `Objects`."""
        self._put(name, data, overwrite=False)

    def replace(self, name: str, data: bytes, *, etag: str) -> None:
        """Upload it with `If-Match`; see `Objects`."""
        self._put(name, data, overwrite=True, etag=etag, match_condition=self._unchanged)

    def overwrite(self, name: str, data: bytes) -> None:
        """Upload it without a condition; see `Objects`."""
        self._put(name, data, overwrite=True)

    def read(self, name: str, *, offset: int = 0, etag: str | None = None) -> Piece:
        """Download a range; see `Objects`."""
        condition = {"etag": etag, "match_condition": self._unchanged} if etag else {}
        try:
            blob = self._container.download_blob(
                self._folder + name, offset=offset, length=PIECE_BYTES, max_concurrency=1, **condition
            )
            data = blob.readall()
        except Exception as error:  # noqa: BLE001 - the SDK raises what it likes; the protocol knows three errors
            code = code_of(error)
            if code == _PAST_THE_END:
                return Piece(b"", 0, "")
            if status_of(error) == _MISSING and code not in _NO_CONTAINER:
                raise FileNotFoundError from None
            if code in _CHANGED:
                raise ObjectChanged from None
            if code in _ARCHIVED:
                raise ObjectArchived from None
            raise self._trouble("reading", error) from None
        # The SDK puts the length of the range into `size`.
        total = str(blob.properties.content_range or f"/{len(data)}").rpartition("/")[2]
        return Piece(data, int(total), blob.properties.etag)

    def delete(self, name: str) -> None:
        """Delete it, its snapshots too; see `Objects`."""
        try:
            self._container.delete_blob(self._folder + name, delete_snapshots="include")
        except Exception as error:  # noqa: BLE001 - as above
            if status_of(error) == _MISSING and code_of(error) not in _NO_CONTAINER:
                return
            raise self._trouble("deleting", error) from None

    def list(self, start: str = "") -> Iterator[Stat]:
        """List them, a page at a time; see `Objects`."""
        found = self._container.list_blobs(name_starts_with=self._folder + start, results_per_page=_PAGE)
        while (blob := self._ask("listing", lambda: next(found, None))) is not None:
            yield Stat(blob.name.removeprefix(self._folder), blob.size)

    def close(self) -> None:
        """Close the client's connections."""
        self._stack.close()

    def _put(self, name: str, data: bytes, **condition: Any) -> None:
        try:
            self._container.upload_blob(self._folder + name, data, max_concurrency=1, **condition)
        except Exception as error:  # noqa: BLE001 - as above
            code, meant = code_of(error), "etag" in condition
            if code in _CHANGED or (meant and status_of(error) == _MISSING and code not in _NO_CONTAINER):
                raise ObjectChanged from None
            raise self._trouble("writing", error) from None

    def _ask(self, action: str, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - as above
            raise self._trouble(action, error) from None

    def _trouble(self, action: str, error: Exception) -> DeadLetterError:
        """One line that says what to do. A server's text is never passed on, only its code."""
        denied = status_of(error) in _DENIED_STATUS and code_of(error) not in _CREDENTIALS
        kind = ListingDenied if action == "listing" and denied else DeadLetterError
        return kind(f"dead-letter store {self.where}: {_advice(action, error)}")


def _advice(action: str, error: Exception) -> str:
    code, status = code_of(error), status_of(error)
    if not status:
        name = type(error).__name__
        return _LOCAL.get(name, f"{action} failed for now: {name}")
    what = code or f"HTTP {status}"
    if code in _NO_CONTAINER or status == _MISSING:
        return f"the container does not exist ({what}): see dead_letters.container and its account"
    if code in _CREDENTIALS:
        return f"the Azure credentials are wrong or have expired ({what}): see what provides them"
    if status in _DENIED_STATUS:
        return f"access denied ({what}): allow {action} blobs in this container"
    return f"{action} failed: {what}"


def _new_client(settings: DeadLetterSettings, stack: contextlib.ExitStack) -> Any:
    try:
        sdk = import_module("azure.storage.blob")
    except ImportError:
        raise missing_extra("blob", "storage-queue", "event-hubs") from None
    quieten_azure()
    options = {
        **_RETRIES,
        "connection_timeout": _CONNECT_LIMIT,
        "read_timeout": _READ_LIMIT,
        "max_single_put_size": _SINGLE_PUT,
        "max_single_get_size": PIECE_BYTES,
        "user_agent": f"health-event-consumer/{__version__}",
    }
    container = settings.container or ""
    try:
        if settings.connection_string is not None:
            text = settings.connection_string.get_secret_value()
            return stack.enter_context(sdk.ContainerClient.from_connection_string(text, container, **options))
        credential = stack.enter_context(_credential())
        url = settings.account_url or ""
        return stack.enter_context(sdk.ContainerClient(url, container, credential=credential, **options))
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        key = "account_url" if settings.connection_string is None else "connection_string"
        raise SettingsError(f"dead_letters.{key}: the SDK cannot use it ({type(error).__name__})") from None


def _credential() -> Any:
    try:
        identity = import_module("azure.identity")
    except ImportError:
        raise missing_extra("blob", "storage-queue", "event-hubs") from None
    return identity.DefaultAzureCredential()
