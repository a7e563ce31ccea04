"""Putting secrets that changed in their files to use, without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from consumer.context import Platforms
from consumer.providers import build_signature
from consumer.secret_files import read_secret_file, watch_secret_files
from consumer.settings import Settings, SourceSettings
from consumer.settings_loading import Loaded

if TYPE_CHECKING:
    from consumer.intake import Intake

__all__ = ["watch_secrets"]

_log = structlog.get_logger("worker")

_KEYS: Final = ("signature.secrets", "thrive.tenant_key", "sahha.client_secret")
"""What the settings that may change while a worker runs end with."""


async def watch_secrets(
    loaded: Loaded,
    reload: Callable[[], Loaded],
    intakes: Mapping[str, Intake],
    platforms: Platforms,
    *,
    on_read: Callable[[Literal["done", "failed"]], None] | None = None,
    renewed: Callable[[SourceSettings], None] | None = None,
) -> None:
    """Read secrets again when their files change; what cannot be read or used changes nothing. Never returns.

    Signing secrets go to the sources that use them, by the sources' names; keys of the REST APIs to `platforms`.
    `on_read` is told when what has changed was put to use, or could not be; `renewed` the settings of each source with
    new secrets.
    """
    stop = asyncio.Event()
    watched = [path for key, path in loaded.secret_files.items() if key.endswith(_KEYS)]
    in_use = _signatures(loaded.settings, intakes)
    keys = _keys(loaded.settings)

    def tell(result: Literal["done", "failed"]) -> None:
        if on_read is not None:
            on_read(result)

    def changed(path: Path) -> None:
        read_secret_file(path)
        fresh = reload().settings
        sources = [name for name, scheme in _signatures(fresh, intakes).items() if scheme != in_use[name]]
        for name in sources:
            chosen = fresh.source(name)
            intakes[name].route.signature = build_signature(chosen)
            intakes[name].secrets_changed()
            in_use[name] = chosen.signature
            if renewed is not None:
                renewed(chosen)
        clients = _replace_keys(platforms, keys, _keys(fresh))
        for intake in intakes.values() if clients else ():
            intake.hurry("CredentialsRefused", "NotConfigured")
        if sources or clients:
            _log.info("secrets_reloaded", file=path.name, sources=sorted(sources), clients=clients)
            tell("done")

    await watch_secret_files(
        watched, stop=stop, on_change=changed, tell_first=True, on_unusable=lambda _: tell("failed")
    )
    # Nothing to watch: live as long as the worker does all the same.
    await stop.wait()


def _signatures(settings: Settings, names: Mapping[str, object]) -> dict[str, Any]:
    return {name: settings.source(name).signature for name in names}


def _keys(settings: Settings) -> dict[str, str]:
    """The keys of the REST APIs that are set, by platform."""
    keys = {"thrive": settings.thrive.tenant_key, "sahha": settings.sahha.client_secret}
    return {name: key.get_secret_value() for name, key in keys.items() if key is not None}


def _replace_keys(platforms: Platforms, in_use: dict[str, str], fresh: Mapping[str, str]) -> list[str]:
    """Give the clients what is new, and note it in `in_use`; the names of the clients concerned."""
    new = sorted(name for name, key in fresh.items() if key != in_use.get(name))
    for name in new:
        if name == "thrive" and platforms.thrive is not None:
            platforms.thrive.replace_tenant_key(fresh[name])
        elif name == "sahha" and platforms.sahha is not None:
            platforms.sahha.replace_client_secret(fresh[name])
        in_use[name] = fresh[name]
    return new
