"""The programs that are measured: how each is started, and what it is told of its queue."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Program", "bare", "ours"]


@dataclass(frozen=True, slots=True)
class Program:
    """A command and its environment; `{queue}` in either stands for the queue it is to empty."""

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def on(self, queue: str) -> Program:
        """The same for this queue."""
        return Program(
            [part.replace("{queue}", queue) for part in self.command],
            {name: value.replace("{queue}", queue) for name, value in self.env.items()},
        )


def bare(module: str, *arguments: str, **env: str) -> Program:
    """The least that empties a queue of some kind; see the module."""
    return Program([sys.executable, "-m", f"benchmarks.contestants.{module}", *arguments], env)


def ours(what: str, *arguments: str, max_in_flight: int, progress: str = "", **source: str) -> Program:
    """This package's worker with so much of it switched on, and these settings of its source."""
    settings = {f"CONSUMER_SOURCES__LABS__{name.upper()}": value for name, value in source.items()}
    command = [sys.executable, "-m", "benchmarks.contestants.ours", "--what", what, *arguments]
    return Program(command, {**settings, "CONSUMER_MAX_IN_FLIGHT": str(max_in_flight), "BENCH_PROGRESS": progress})
