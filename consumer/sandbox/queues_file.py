"""The queues registered with a sandbox, kept in a file over a restart: with their secrets, so for its owner alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

__all__ = ["Registration", "read_registrations", "write_registrations"]


@dataclass(slots=True)
class Registration:
    """A queue, as it was registered."""

    queue_name: str
    kind: str
    block: dict[str, Any] = field(repr=False)
    created_at: str
    updated_at: str


_KEPT = TypeAdapter(dict[str, Registration])


def read_registrations(file: Path) -> dict[str, Registration]:
    """What is registered for each stream; nothing without a file. Raises `ValueError` for one that cannot be read."""
    try:
        return _KEPT.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError):
        raise ValueError(f"{file.name} cannot be read") from None  # what pydantic says quotes the file


def write_registrations(file: Path, registered: Mapping[str, Registration]) -> None:
    """Put these in the place of those in the file. Raises `OSError`."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
        stream.write(_KEPT.dump_json(dict(registered), indent=2))
    fresh.replace(file)
