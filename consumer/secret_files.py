"""Secrets that live in files: reading them, and noticing when they change."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import cast

from watchfiles import awatch

from consumer.errors import SettingsError

__all__ = ["read_secret_file", "watch_secret_files"]

_log = logging.getLogger(__name__)

_LARGEST = 1024 * 1024
_SETTLE_MS = 200


def read_secret_file(path: Path) -> list[str]:
    """Return the secrets in a file, one a line, verbatim but for the line ends; blank lines are skipped.

    Raises SettingsError when the file cannot be read, is not UTF-8 text, is over 1 MiB, or holds no secret. The text
    does not repeat the path: a secret may have been put where the path belongs.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        problem = None
    except (OSError, ValueError) as error:
        raw, problem = b"", getattr(error, "strerror", None) or "it has no such name"
    # Raised out here: the system's error holds the path.
    if problem is not None:
        raise SettingsError(f"the file cannot be read: {problem}")
    if len(raw) > _LARGEST:
        raise SettingsError("the file is over 1 MiB, expected one secret a line")
    text = _text(raw)
    if text is None:
        raise SettingsError("the file is not UTF-8 text, expected one secret a line")
    # Not str.splitlines: it also cuts at characters that may be part of a secret.
    secrets = [line for line in (line.rstrip("\r") for line in text.split("\n")) if line.strip()]
    if not secrets:
        raise SettingsError("the file is empty, expected one secret a line")
    return secrets


async def watch_secret_files(
    paths: Collection[Path],
    *,
    stop: asyncio.Event,
    on_change: Callable[[Path], Awaitable[None] | None],
    interval: float = 30.0,
    tell_first: bool = False,
    on_unusable: Callable[[Path], None] | None = None,
) -> None:
    """Call `on_change` with each file whose secrets have changed, until `stop` is set.

    Folders are watched rather than files, since Kubernetes replaces a mounted secret by swapping a symbolic link
    beside it. Where the system cannot watch, and for mounts that report nothing, contents are compared every
    `interval` seconds. A file that is gone, broken or empty changes nothing: the secrets in use stay, and a warning
    names the file, and `on_unusable` is told. The same for one that `on_change` cannot use (any exception but
    cancellation): it may be for another file's sake, so it is tried again, silently, at every look.

    What counts as changed is judged from the moment of the call; with `tell_first`, `on_change` is first called with
    every file, for a caller that read them some time ago.
    """
    if not paths:
        return
    seen = await asyncio.to_thread(_fingerprints, paths)
    listener = _Listener(on_change, on_unusable, seen)
    for path in paths if tell_first else ():
        await listener.tell(path, seen[path])
    async with contextlib.aclosing(_ticks({path.parent for path in paths}, stop, interval)) as ticks:
        async for _ in ticks:
            found = await asyncio.to_thread(_fingerprints, paths)
            for path in paths:
                if found[path] is None and seen[path] is not None:
                    listener.unusable(path, "secret file %s cannot be used, the secrets read before stay in use")
                elif found[path] is not None and found[path] != listener.known[path]:
                    await listener.tell(path, found[path])
            seen = found


class _Listener:
    """Who is told of changes, and which contents they have taken."""

    def __init__(
        self,
        on_change: Callable[[Path], Awaitable[None] | None],
        on_unusable: Callable[[Path], None] | None,
        known: Mapping[Path, bytes | None],
    ) -> None:
        self._on_change = on_change
        self._on_unusable = on_unusable
        self._refused: dict[Path, bytes | None] = {}
        self.known = dict(known)
        """Digests of what was taken; None: nothing, or it is to be offered again."""

    async def tell(self, path: Path, digest: bytes | None) -> None:
        """Offer what is in a file."""
        trouble = await _trouble(self._on_change, path)
        self.known[path] = digest if trouble is None else None
        if trouble is None:
            self._refused.pop(path, None)
        elif path not in self._refused or self._refused[path] != digest:
            self._refused[path] = digest
            self.unusable(path, f"secrets in %s cannot be used ({trouble}), those read before stay in use")

    def unusable(self, path: Path, text: str) -> None:
        """Warn of a file."""
        _log.warning(text, path)
        if self._on_unusable is not None:
            self._on_unusable(path)


async def _trouble(on_change: Callable[[Path], Awaitable[None] | None], path: Path) -> str | None:
    """What `on_change` raised, by its class."""
    try:
        told = on_change(path)
        if told is not None:
            await told
    except Exception as error:  # noqa: BLE001  # a secret that cannot be used must not end the watch for the others
        return type(error).__name__
    return None


class _Halt:
    """What a watch ends by: a cancelled `awatch` sets the event it was given, and `stop` is not ours to set."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._cancelled = False

    def is_set(self) -> bool:
        return self._cancelled or self._stop.is_set()

    def set(self) -> None:
        self._cancelled = True


async def _ticks(folders: Collection[Path], stop: asyncio.Event, interval: float) -> AsyncGenerator[None, None]:
    """Yield whenever something in the folders may have changed, at least every `interval` seconds."""
    changes = awatch(
        *folders,
        watch_filter=None,
        stop_event=cast("asyncio.Event", _Halt(stop)),
        recursive=False,
        debounce=_SETTLE_MS,
        step=_SETTLE_MS,
        rust_timeout=max(1, int(interval * 1000)),
        yield_on_timeout=True,
    )
    try:
        async with contextlib.aclosing(changes):
            async for _ in changes:
                yield
    except (OSError, RuntimeError) as error:
        _log.warning("cannot watch folders of secret files (%s), looking every %g s", type(error).__name__, interval)
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), interval)
        if not stop.is_set():
            yield


def _fingerprints(paths: Collection[Path]) -> dict[Path, bytes | None]:
    """A digest of each file's secrets; None for one that cannot be used now."""
    return {path: _fingerprint(path) for path in paths}


def _fingerprint(path: Path) -> bytes | None:
    try:
        secrets = read_secret_file(path)
    except SettingsError:
        return None
    return hashlib.sha256("\n".join(secrets).encode()).digest()


def _text(raw: bytes) -> str | None:
    try:
        # A byte order mark comes from an editor, never from a secret.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
