"""The queues registered with a sandbox, kept in a file over a restart: with their secrets, so for its owner alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from consumer.sandbox.kept import write_private

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
    write_private(file, _KEPT.dump_json(dict(registered), indent=2))
