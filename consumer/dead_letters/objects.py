"""What dead letters need of an object store: the protocol that S3 and Blob Storage satisfy.

Writes are conditional, so that two who change one object at once never lose what the other wrote. Blocking; every call
that hangs ends within some twenty seconds. Several threads may call at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from consumer.dead_letters.reading import SegmentUnreadable
from consumer.errors import DeadLetterError, SettingsError
from consumer.settings_dead_letters import DeadLetterSettings

__all__ = [
    "PIECE_BYTES",
    "ListingDenied",
    "ObjectArchived",
    "ObjectChanged",
    "Objects",
    "Piece",
    "Stat",
    "missing_extra",
    "open_objects",
]

PIECE_BYTES: Final = 4 * 1024 * 1024
"""How much of an object is read at once."""


class ObjectChanged(SegmentUnreadable):
    """The condition did not hold: somebody else made, changed or deleted the object."""

    def __init__(self) -> None:
        super().__init__("it was changed by somebody else meanwhile: try again")


class ObjectArchived(SegmentUnreadable):
    """The object was moved to cold storage."""

    def __init__(self) -> None:
        super().__init__("it is in cold storage: restore it first")


class ListingDenied(DeadLetterError):
    """The credentials do not allow listing."""


@dataclass(frozen=True, slots=True)
class Stat:
    """An object in a listing."""

    name: str
    """Without the store's folder."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an object."""

    data: bytes = field(repr=False)
    total: int
    """How many bytes the object has."""
    etag: str
    """The version of the object."""


class Objects(Protocol):
    """The objects of one folder. Every method raises DeadLetterError, in one line and without a server's text."""

    @property
    def where(self) -> str:
        """The folder, as a person would write it."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write an object that is not there yet. Raises ObjectChanged when it is."""
        ...

    def replace(self, name: str, data: bytes, *, etag: str) -> None:
        """Write over this version of an object. Raises ObjectChanged when it is another one, or gone."""
        ...

    def overwrite(self, name: str, data: bytes) -> None:
        """Write an object, whether it is there or not."""
        ...

    def read(self, name: str, *, offset: int = 0, etag: str | None = None) -> Piece:
        """Read at most `PIECE_BYTES` from a place on, of this version if one is given.

        Raises FileNotFoundError when there is none, ObjectChanged when it is another version.
        """
        ...

    def delete(self, name: str) -> None:
        """Delete an object; none is as good."""
        ...

    def list(self, start: str = "") -> Iterator[Stat]:
        """Yield the objects whose names start so, sorted by name. Raises ListingDenied too."""
        ...

    def close(self) -> None:
        """Let go of connections. May be called twice."""
        ...


def open_objects(settings: DeadLetterSettings) -> Objects:
    """The folder that the settings, of kind s3 or blob, name. Raises SettingsError: the SDK or a region is missing."""
    if settings.kind == "s3":
        from consumer.dead_letters.s3_objects import S3Objects  # noqa: PLC0415 - only what is used is imported

        return S3Objects(settings)
    from consumer.dead_letters.blob_objects import BlobObjects  # noqa: PLC0415 - as above

    return BlobObjects(settings)


def missing_extra(kind: str, *extras: str) -> SettingsError:
    """The error for a store whose SDK is not installed."""
    commands = " or ".join(f"pip install 'health-event-consumer[{extra}]'" for extra in extras)
    return SettingsError(f"dead_letters.kind is {kind}: {commands}")
