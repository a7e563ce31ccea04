"""What may be kept of an exception: class names and places in the code, never its words."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

__all__ = ["describe", "places"]

_OUTSIDE = ("site-packages", "dist-packages", f"{sys.base_prefix}/lib", "<frozen")
_MOST = 12


def describe(error: BaseException, handler: str | None = None) -> dict[str, Any]:
    """The `error` of a dead letter: `type` (class), `handler`, `at` (innermost last, `file:line:function`).

    Messages, arguments and chained exceptions are left out: an `IntegrityError` carries parameters, PostgreSQL's
    DETAIL carries rows, and a `KeyError` may carry a value.
    """
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return {"type": name, "handler": handler, "at": places(error.__traceback__)}


def places(traceback: TracebackType | None) -> list[str]:
    """Frames of our code and the handlers', as `file:line:function`; frames of libraries are left out."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not any(part in code.co_filename for part in _OUTSIDE):
            found.append(f"{_short(code.co_filename)}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return found[-_MOST:]


def _short(filename: str) -> str:
    return "/".join(filename.rsplit("/", 2)[-2:])
