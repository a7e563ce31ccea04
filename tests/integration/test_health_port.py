"""The port of the health server, when somebody else has it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.rig import Rig
from tests.faults.harness import ROOT

_HANDLERS = "from consumer import DispatchTable\ntable = DispatchTable()\n"


@contextlib.contextmanager
def _taken(port: int) -> Iterator[int]:
    """A port that somebody listens on: this test, or whoever has it already."""
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        yield port or int(listener.getsockname()[1])


def _run(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    (folder / "handlers.py").write_text(_HANDLERS)
    rig = Rig(folder, {"KIND": "local", "PATH": str(folder / "queue")})
    environment = rig.environment(HEALTH__ENABLED="true", HANDLERS="handlers", APP_DIR=str(folder), **changes)
    return subprocess.run(
        [sys.executable, "-m", "consumer", "run", "--until-idle", "--idle-after", "0.2"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_second_worker_on_a_machine_runs_without_probes(tmp_path: Path) -> None:
    """Nobody chose the port, so the events come first; the log says that nobody can ask for its health."""
    with _taken(8080):
        done = _run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "health_server_off" in done.stderr


def test_a_chosen_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """Somebody will ask there."""
    with _taken(0) as port:
        done = _run(tmp_path, HEALTH__PORT=str(port))
    assert done.returncode == 2
    assert "CONSUMER_HEALTH__PORT: cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
