"""What the sources on Azure share: DefaultAzureCredential where there is no connection string, and a quiet SDK."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Any

from consumer.errors import SettingsError

__all__ = ["azure_credential", "missing_extra", "quieten_azure"]


def missing_extra(name: str, kind: str) -> SettingsError:
    """The error for a source whose SDK is not installed."""
    extra = kind.replace("_", "-")
    return SettingsError(f"source {name} is {kind}: pip install 'health-event-consumer[{extra}]'")


@contextlib.asynccontextmanager
async def azure_credential(*, name: str, kind: str) -> AsyncIterator[Any]:
    """DefaultAzureCredential for the source `name`, closed at the end. Nothing is asked of Azure before its first use.

    Raises SettingsError if azure-identity is not installed.
    """
    try:
        identity = import_module("azure.identity.aio")
    except ImportError:
        raise missing_extra(name, kind) from None
    credential = identity.DefaultAzureCredential()
    try:
        yield credential
    finally:
        with contextlib.suppress(Exception):
            await credential.close()


def quieten_azure() -> None:
    """Keep the SDKs' lines out of the log, unless somebody has chosen a level for them.

    What they say of requests and failures is said by the sources, in one line each; some of theirs bring a traceback.
    """
    logger = logging.getLogger("azure")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL + 1)
