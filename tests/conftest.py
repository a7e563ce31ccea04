"""What every test can ask for. Servers are started when first asked for, once for the whole run.

Tests marked `thorough` say again what others say, on another server or with another seed. They are left out unless a
mark expression is given: `pytest -m thorough` runs them, `pytest -m "thorough or not thorough"` runs everything.
"""

from __future__ import annotations

import pytest

pytest_plugins = ["tests.servers.fixtures", "tests.servers.fixtures_database"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark, and leave those tests out unless told otherwise."""
    config.addinivalue_line("markers", "thorough: says again, elsewhere or otherwise, what another test says")
    if not config.option.markexpr:
        config.option.markexpr = "not thorough"
