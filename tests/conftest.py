"""What every test can ask for. Servers are started when first asked for, once for each process of the run."""

from __future__ import annotations

import pytest
from hypothesis import settings

pytest_plugins = ["tests.servers.fixtures", "tests.servers.fixtures_azure", "tests.servers.fixtures_database"]


# How long an example takes says nothing on a machine that runs several tests at once.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark by which a quick run can leave tests out: `pytest -m "not thorough"`."""
    config.addinivalue_line("markers", "thorough: says again, on another server or otherwise, what another test says")
