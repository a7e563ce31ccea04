"""Other Python consumers of SQS, each in a virtual environment of its own, so that their pins do not meet ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import say
from benchmarks.queues import ROOT

__all__ = ["PEERS", "Peer"]

_TOOLS = ROOT / ".tools"
_INSTALL_LIMIT = 600


@dataclass(frozen=True, slots=True)
class Peer:
    """A program by others: what to install, how to start it, and the message that its own sender would have sent."""

    name: str
    requirements: tuple[str, ...]
    arguments: tuple[str, ...]
    message: Callable[[int, str], str]

    @property
    def version(self) -> str:
        """What was measured."""
        return ", ".join(self.requirements)

    def command(self) -> Sequence[str]:
        """What starts it, with the queue's URL in `BENCH_QUEUE_URL`. Installs it first if need be.

        Raises `subprocess.SubprocessError` when it cannot be installed.
        """
        return [str(self._environment() / "bin" / self.arguments[0]), *self.arguments[1:]]

    def _environment(self) -> Path:
        home = _TOOLS / f"bench-{self.name}"
        done = home / ".installed"
        if not done.exists() or done.read_text(encoding="utf-8") != self.version:
            say(f"installing {self.version}")
            _run([sys.executable, "-m", "venv", "--clear", str(home)])
            _run([str(home / "bin" / "pip"), "install", "--quiet", *self.requirements])
            done.write_text(self.version, encoding="utf-8")
        return home


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, timeout=_INSTALL_LIMIT, stdout=subprocess.DEVNULL)


def _taskiq_message(number: int, body: str) -> str:
    task = {"task_id": f"{number:032x}", "task_name": "nothing", "labels": {}, "labels_types": {}, "args": [body]}
    return json.dumps({**task, "kwargs": {}})


PEERS = (
    Peer(
        name="taskiq",
        requirements=("taskiq==0.13.0", "taskiq-aio-sqs==2.1.1"),
        arguments=(
            "taskiq",
            "worker",
            "benchmarks.contestants.peer_taskiq:broker",
            *("--workers", "1", "--max-async-tasks", "100", "--max-prefetch", "100"),
        ),
        message=_taskiq_message,
    ),
    Peer(
        name="tomodachi",
        requirements=("tomodachi==0.29.0", "aiobotocore==2.25.1"),
        arguments=("tomodachi", "run", "benchmarks/contestants/peer_tomodachi.py", "--log-level", "warning"),
        message=lambda _, body: body,
    ),
)
