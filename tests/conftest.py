"""What every test can ask for. Servers are started when first asked for, once for each process of the run."""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.servers.fixtures", "tests.servers.fixtures_azure", "tests.servers.fixtures_database"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark by which a quick run can leave tests out: `pytest -m "not thorough"`."""
    config.addinivalue_line("markers", "thorough: says again, on another server or otherwise, what another test says")
