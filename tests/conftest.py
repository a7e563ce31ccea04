"""What every test can ask for. Servers are started when first asked for, once for each process of the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

pytest_plugins = [
    "tests.servers.fixtures",
    "tests.servers.fixtures_azure",
    "tests.servers.fixtures_database",
    "tests.servers.fixtures_sandbox",
]


# How long an example takes says nothing on a machine that runs several tests at once.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark by which a quick run can leave tests out: `pytest -m "not thorough"`."""
    config.addinivalue_line("markers", "thorough: says again, on another server or otherwise, what another test says")
    # A logger that kept the configuration of an earlier test would be deaf to `capture_logs`.
    configure = structlog.configure
    structlog.configure = lambda **options: configure(**{**options, "cache_logger_on_first_use": False})


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command run inside the process sets up logging for all of it, and the next test may look at what is logged."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
