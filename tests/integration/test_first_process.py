"""The command as process 1 of a container, for which the kernel has no default of what a signal does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import consumer

ROOT = Path(consumer.__file__).parent.parent

AS_FIRST = """
import os, signal, sys
from consumer.cli import main

signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what the kernel makes of no handler, for process 1
os.getpid = lambda: 1
sys.argv = ["consumer", "run", "--config", "settings.toml"]
main()
"""


def test_sigterm_while_it_starts(tmp_path: Path) -> None:
    """Before the worker listens for signals itself, SIGTERM ends it as it would end any other process."""
    settings = tmp_path / "settings.toml"
    os.mkfifo(settings)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    env |= {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", AS_FIRST], cwd=tmp_path, env=env) as process:
        try:
            writing = opened_by_a_reader(settings, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
            os.close(writing)
        finally:
            process.kill()


def opened_by_a_reader(fifo: Path, process: subprocess.Popen[bytes]) -> int:
    """Our end of a FIFO, once the process has opened the other; it waits for more as long as ours is open."""
    while process.poll() is None:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"ended with {process.returncode} before it read its settings")
