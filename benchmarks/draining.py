"""How fast a program empties a queue, seen from outside."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import say
from benchmarks.programs import Program
from benchmarks.queues import ENVIRONMENT, ROOT, QueueServer

__all__ = ["Drained", "cpu_seconds", "drain", "resident_bytes", "stop", "turn"]

_LOOK_EVERY = 0.02
_FROM, _TO = 0.10, 0.95
"""The share of a queue over which speed is taken: after starting up, and before the last stragglers."""
_LIMIT = 90.0
_STOP_LIMIT = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain came to."""

    rate: float
    """Messages a second."""
    cpu: float
    """Microseconds of the program's own CPU for each message; of its first process only."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    settled: int
    cpu: float


def turn(server: QueueServer, bodies: Sequence[str], program: Program) -> Callable[[], float]:
    """A contestant's turn: messages a second while it empties a queue of these."""

    def take() -> float:
        drained = drain(server, bodies, program)
        say(f"    {drained.cpu:,.0f} us of CPU each")
        return drained.rate

    return take


def drain(server: QueueServer, bodies: Sequence[str], program: Program, *, copies: int = 1) -> Drained:
    """Fill a new queue, start a program on it, once or more often, and watch the queue."""
    queue = server.filled(bodies)
    made = program.on(queue)
    running: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as log:
        try:
            running.extend(
                subprocess.Popen(
                    made.command,
                    cwd=ROOT,
                    env={**ENVIRONMENT, **made.env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
                for _ in range(copies)
            )
            looks = _watch(server, queue, len(bodies), running)
        finally:
            for one in running:
                stop(one)
        if looks is None:
            log.seek(0)
            raise RuntimeError(f"{made.command!r} did not finish\n{log.read()[-2000:].decode(errors='replace')}")
    return _between(looks, len(bodies))


def _watch(
    server: QueueServer, url: str, count: int, programs: Sequence[subprocess.Popen[bytes]]
) -> list[_Look] | None:
    deadline = time.monotonic() + _LIMIT
    looks = []
    while time.monotonic() < deadline and all(one.poll() is None for one in programs):
        settled = count - server.left(url)
        looks.append(_Look(time.perf_counter(), settled, sum(cpu_seconds(one.pid) for one in programs)))
        if settled >= count:
            return looks
        time.sleep(_LOOK_EVERY)
    return None


def _between(looks: Sequence[_Look], count: int) -> Drained:
    first = next(look for look in looks if look.settled >= count * _FROM)
    last = next(look for look in looks if look.settled >= count * _TO)
    settled = last.settled - first.settled
    if not settled or last.at <= first.at:
        raise RuntimeError("too few messages to measure with")
    return Drained(settled / (last.at - first.at), (last.cpu - first.cpu) / settled * 1e6)


def stop(program: subprocess.Popen[bytes]) -> None:
    """Ask a program to end, and end it if it does not."""
    program.terminate()
    try:
        program.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time a process has used, 0 when it is gone. Linux."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int) -> int:
    """Memory a process has in RAM. Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
