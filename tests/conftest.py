"""What every test can ask for. Servers are started when first asked for, once for the whole run."""

from __future__ import annotations

pytest_plugins = ["tests.servers.fixtures", "tests.servers.fixtures_database"]
