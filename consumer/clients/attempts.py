"""One request's attempts: why one failed, whether and when another follows, and the log line that says so."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import structlog
from aiohttp.http_exceptions import ContentEncodingError
from stamina.instrumentation import (
    LoggingOnRetryHook,
    RetryDetails,
    StructlogOnRetryHook,
    get_on_retry_hooks,
    set_on_retry_hooks,
)
from stamina.typing import RetryHook

from consumer.errors import ApiError
from consumer.retry import backoff

__all__ = ["UNREADABLE", "AttemptFailed", "Waits", "translated"]

UNREADABLE: Final = "unreadable_answer"
"""`ApiError.code` for an answer that is not what the call promises."""

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 4.0
_CAUSES: Final[Sequence[tuple[type[Exception], str]]] = (
    (aiohttp.ClientConnectorCertificateError, "the server's certificate is not valid"),
    (aiohttp.ClientSSLError, "no TLS of 1.2 or later is spoken there"),
    (aiohttp.ClientConnectorDNSError, "the name is not known"),
    (TimeoutError, "no answer in time"),
)
"""The first that fits: some of the classes are among those of later ones."""
_LOGGING = frozenset(factory.hook_factory.__module__ for factory in (StructlogOnRetryHook, LoggingOnRetryHook))
"""Where stamina's hooks that log come from."""


class AttemptFailed(Exception):
    """One attempt failed for a reason that may pass. Its text is no more than method, template and cause."""

    def __init__(self, call: str, cause: str, *, again: bool, retry_after: float | None = None) -> None:
        super().__init__(f"{call}: {cause}")
        self.call = call
        self.cause = cause
        """In a few words, as `connection refused` or `HTTP 503`."""
        self.again = again
        self.retry_after = retry_after


class Waits:
    """Decides, for stamina, whether and when to try again: within the budget, before the end, as the server asks."""

    def __init__(self, budget: float, *, attempts: int, ends: float) -> None:
        self._left = budget
        self._attempts = attempts
        self._ends = ends
        self._failures = 0

    def after(self, error: Exception) -> bool | float:
        """The seconds to wait after this failure; False when it was the last attempt."""
        if not isinstance(error, AttemptFailed) or not error.again:
            return False
        self._failures += 1
        if self._failures >= self._attempts:
            return False
        wait = error.retry_after
        if wait is None:
            wait = backoff(self._failures, base=_FIRST_WAIT, cap=_LONGEST_WAIT)
        if wait > self._left or time.monotonic() + wait >= self._ends:
            return False
        self._left -= wait
        _log_repeat(error, wait)
        return wait


def translated(call: str, error: Exception, *, proxied: bool) -> Exception:
    """What to raise for an error of aiohttp's or the system's; no word of it is used, they hold addresses."""
    undecodable = isinstance(error, aiohttp.ClientPayloadError) and isinstance(error.__cause__, ContentEncodingError)
    unreadable = isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError)
    if undecodable or unreadable or isinstance(error, aiohttp.InvalidURL):
        return ApiError(call, status=None, code=UNREADABLE)
    untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
    return AttemptFailed(call, _cause(error, proxied=proxied), again=not untrusted)


def _cause(error: Exception, *, proxied: bool) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused, HTTP {error.status}"
    if proxied and isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        return "the proxy cannot be reached"
    if isinstance(error, OSError) and error.errno == errno.ECONNREFUSED:
        return "connection refused"
    return next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "no connection")


def _log_repeat(failed: AttemptFailed, wait: float) -> None:
    """Say that there is another attempt, in place of stamina's own line, which knows neither call nor status."""
    hooks = get_on_retry_hooks()
    if any(_logs(hook) for hook in hooks):
        set_on_retry_hooks([_Others(hook) if _logs(hook) else hook for hook in hooks])
    # structlog prints to standard output until it is configured: there, a library is to be silent.
    if structlog.is_configured():
        structlog.get_logger("clients").info(
            "request_repeated", call=failed.call, why=failed.cause, wait=round(wait, 2)
        )


def _logs(hook: RetryHook) -> bool:
    return getattr(hook, "__module__", None) in _LOGGING


class _Others:
    """One of stamina's hooks that log, for all repeats but those of requests made here."""

    def __init__(self, hook: RetryHook) -> None:
        self._hook = hook

    def __call__(self, details: RetryDetails) -> Any:
        return None if isinstance(details.caused_by, AttemptFailed) else self._hook(details)
