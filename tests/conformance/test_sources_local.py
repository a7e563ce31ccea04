"""The local queue keeps the contract of a source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from consumer.settings import SourceSettings
from consumer.sources.local import LocalSource
from consumer.testing.conformance import OpenAgain, SourceConformance


class TestLocal(SourceConformance):
    """One SQLite file."""

    ordered = True
    binary = True
    empty_bodies = True

    @pytest.fixture
    async def open_again(self, tmp_path: Path) -> AsyncIterator[OpenAgain]:
        """Sources on one file."""
        settings = SourceSettings(
            name="labs",
            kind="local",
            path=tmp_path / "queue",
            visibility_timeout=self.visibility_timeout,
            poll_wait=0.5,
        )
        async with AsyncExitStack() as stack:

            async def make() -> LocalSource:
                source = LocalSource(settings)
                stack.push_async_callback(source.close)
                await source.open()
                return source

            yield make
