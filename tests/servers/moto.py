"""The moto server: a faithful, slow SQS. It hands a message out twice when several receives meet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from tests.servers.processes import free_port, serving

__all__ = ["moto_server"]


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Run moto on a free port of 127.0.0.1 and yield its endpoint URL."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with serving(command, f"http://127.0.0.1:{port}") as url:
        yield url
