"""Names that no other test of the run uses."""

from __future__ import annotations

import itertools
import os

__all__ = ["fresh_name"]

_numbers = itertools.count(1)


def fresh_name(prefix: str = "test") -> str:
    """A new name, good for a queue or a database."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"
