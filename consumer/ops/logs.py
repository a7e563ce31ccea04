"""Logging: structlog, JSON for machines and colours for people; ids and reasons, no health data."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from consumer.failures import describe

__all__ = ["configure_logging", "report_stray", "strays_reported"]

_NOISY = ("botocore", "aiobotocore", "aioboto3", "aiosqlite", "sqlalchemy", "consumer.database", "aiohttp", "asyncio")
"""Whose debug lines hold whole messages, or only say what a connection pool does."""
_LONGEST = 2000
"""Characters of one text: ids and event types come from outside, and one may be as long as a message."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def configure_logging(*, level: str = "info", form: Literal["auto", "json", "console"] = "auto") -> None:
    """Send every log line to standard error, those of libraries included.

    Exceptions are reduced to class names and places: an exception's text may carry what a handler was given.
    """
    threshold = _LEVELS[level]
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _reduce_exception,
        _tame,
        _add_trace,
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
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([_plain] if console else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(threshold, logging.WARNING))
    # In debug mode its warnings show the results of slow tasks and the arguments of slow callbacks.
    logging.getLogger("asyncio").setLevel(max(threshold, logging.ERROR))


def report_stray(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody awaited or caught; an event loop's exception handler.

    The loop's own words hold the exception's text and the arguments of callbacks, so they are left out.
    """
    error = context.get("exception")
    if isinstance(error, BaseException):
        structlog.get_logger("worker").error("stray_failure", error=describe(error))
    else:
        structlog.get_logger("worker").error("stray_failure", message=str(context.get("message", ""))[:100])


@contextlib.contextmanager
def strays_reported() -> Iterator[None]:
    """Meanwhile, reduce what Python itself would print to standard error, texts and all: log places only.

    That is what a thread or a `__del__` raised and nobody caught, and warnings.
    """
    hooks = threading.excepthook, sys.unraisablehook, warnings.showwarning
    threading.excepthook = sys.unraisablehook = _report_unraisable
    warnings.showwarning = _report_warning  # type: ignore[assignment] # mypy asks for names Python does not use
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks


def _report_unraisable(args: Any) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        structlog.get_logger("worker").error("stray_failure", error=describe(args.exc_value))


def _report_warning(_: Warning | str, category: type[Warning], filename: str, lineno: int, *__: Any) -> None:
    structlog.get_logger("worker").warning("python_warning", type=category.__name__, at=f"{filename}:{lineno}")


class _Handler(logging.StreamHandler[TextIO]):
    """Where a line cannot be written down, logging itself would print the arguments; this says only whose it was."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        kind = getattr(sys.exc_info()[0], "__name__", "")
        with contextlib.suppress(Exception):
            self.stream.write(
                json.dumps({"event": "log_line_lost", "level": "error", "logger": record.name, "error": kind}) + "\n"
            )


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say of which trace and span a line is, by the names OpenTelemetry has for both in logs."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = format_trace_id(context.trace_id)
        event["span_id"] = format_span_id(context.span_id)
    return event


def _tame(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut what is too long, spell out control characters, and leave of an exception among the values only its class."""
    for key, value in event.items():
        if isinstance(value, str):
            text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
            event[key] = text if text.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
        elif isinstance(value, BaseException):
            event[key] = _type_name(value)
    return event


def _plain(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What JSON would keep of each value, so that a terminal shows no more than a log file."""
    for key, value in event.items():
        if not isinstance(value, str | int | float | None):
            event[key] = json.loads(json.dumps(value, default=_type_name))
    return event


def _reduce_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace a traceback by what may be said of it."""
    info = event.pop("exc_info", None)
    error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else sys.exc_info()[1]
    if info and error is not None:
        event["error"] = describe(error)
    return event


def _type_name(value: object) -> str:
    """Stands for what a handler logged and JSON cannot hold: its text might say more than it should."""
    return f"<{type(value).__name__}>"
