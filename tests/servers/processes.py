"""Starting a server process and stopping it again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["ServerError", "free_port", "serving"]

_START_LIMIT = 60.0
_STOP_LIMIT = 10.0
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ServerError(RuntimeError):
    """A server that tests need could not be installed or started; the text says what its log said last."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(command: Sequence[str], url: str, *, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server, wait until it answers HTTP at `url`, yield that, and stop it by its pid at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        try:
            _wait(process, url)
            yield url
        except ServerError as error:
            log.seek(0)
            tail = log.read()[-2000:].decode(errors="replace")
            raise ServerError(f"{error}\n{tail}") from None
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"{process.args!r} ended with {process.returncode} before it served")
        try:
            with _DIRECT.open(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # It speaks HTTP: whatever it thinks of this request, it is up.
        except OSError:
            time.sleep(0.05)
    raise ServerError(f"{process.args!r} did not serve within {_START_LIMIT:g} s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
