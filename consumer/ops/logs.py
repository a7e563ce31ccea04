"""Logging: structlog, JSON for machines and colours for people; ids and reasons, no health data."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

__all__ = ["configure_logging", "report_stray"]

_NOISY = ("botocore", "aiobotocore", "aioboto3", "aiosqlite", "sqlalchemy", "consumer.database", "aiohttp", "asyncio")
"""Whose debug lines hold whole messages, or only say what a connection pool does."""
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logging(*, level: str = "info", form: Literal["auto", "json", "console"] = "auto") -> None:
    """Send every log line to standard error, those of libraries included.

    Tracebacks are reduced to class names and places: an exception's text may carry what a handler was given.
    """
    threshold = _LEVELS[level]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _reduce_exception,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if console
        else structlog.processors.JSONRenderer(default=_type_name)
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for noisy in (
        "botocore",
        "aiobotocore",
        "aioboto3",
        "aiosqlite",
        "sqlalchemy",
        "consumer.database",
        "aiohttp.access",
        "asyncio",
    ):
        # Their debug lines hold whole messages.
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))


def report_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited or caught; an event loop's exception handler.

    The loop's own words hold the exception's text and the arguments of callbacks, so they are left out.
    """
    from consumer.failures import describe  # noqa: PLC0415 - only when there is one

    error = context.get("exception")
    if isinstance(error, BaseException):
        structlog.get_logger("worker").error("stray_failure", error=describe(error))
    else:
        structlog.get_logger("worker").error("stray_failure", message=str(context.get("message", ""))[:100])


def _reduce_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace a traceback by what may be said of it."""
    from consumer.failures import describe  # noqa: PLC0415 - only when there is one

    info = event.pop("exc_info", None)
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    if info and error is not None:
        event["error"] = describe(error)
    return event


def _type_name(value: object) -> str:
    """Stands for what a handler logged and JSON cannot hold: its text might say more than it should."""
    return f"<{type(value).__name__}>"
