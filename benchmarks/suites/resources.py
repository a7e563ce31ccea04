"""What the program costs when it does nothing, when it starts, and with a million messages waiting."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.draining import cpu_seconds, resident_bytes, stop
from benchmarks.material import SECRET
from benchmarks.measuring import Plan, Result, say
from benchmarks.queues import ENVIRONMENT, ROOT, stub

__all__ = ["idle", "memory", "startup"]

_MIB = 1 << 20
_SETTLE = 4.0
"""Seconds after a start before a process counts as idle."""
_HANDLERS = """
from consumer import DispatchTable
from consumer.events import ProgramEvent

table = DispatchTable()


@table.on(ProgramEvent)
async def nothing(event, context):
    pass
"""


def startup(plan: Plan) -> list[Result]:
    """`consumer --help`, from the shell's point of view."""
    times = []
    for _ in range(5 if plan.quick else 10):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "consumer", "--help"],
            cwd=ROOT,
            env=ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        times.append((time.perf_counter() - begun) * 1e3)
    return [Result(what="consumer --help", ours=statistics.median(times), unit="ms", most=250)]


def idle(plan: Plan) -> list[Result]:
    """CPU of a worker that waits for messages, as a share of one core."""
    with _worker({"KIND": "local", "PATH": "queue.db"}) as pid:
        local = _cpu_share(pid, plan)
    with stub() as server, _worker({"KIND": "sqs", "QUEUE_URL": server.filled([])}) as pid:
        sqs = _cpu_share(pid, plan)
    return [
        Result(what=f"idle CPU, {kind}", ours=share, unit="% of a core", most=1, note="consumer run")
        for kind, share in (("local", local), ("sqs", sqs))
    ]


def memory(plan: Plan) -> list[Result]:
    """Memory of a worker that drains a queue of a million, all of it switched on."""
    count = 100_000 if plan.quick else 1_000_000
    seconds = 10.0 if plan.quick else 30.0
    say(f"  filling a queue with {count:,} messages")
    with stub(module="benchmarks.backlog", options=["--count", str(count)]) as server:
        url = f"{server.endpoint}/000000000000/backlog"
        with _worker({"KIND": "sqs", "QUEUE_URL": url}) as pid:
            time.sleep(_SETTLE)
            sizes = _samples(pid, seconds)
            left = server.left(url)
    third = len(sizes) // 3
    growth = statistics.mean(sizes[-third:]) - statistics.mean(sizes[third : 2 * third])
    note = f"{count - left:,} of {count:,} drained meanwhile"
    return [
        Result(what="resident memory while draining, most", ours=max(sizes) / _MIB, unit="MiB", most=120, note=note),
        Result(what="resident memory, growth in the last third", ours=growth / _MIB, unit="MiB", most=2, note=note),
    ]


def _samples(pid: int, seconds: float) -> list[int]:
    until = time.monotonic() + seconds
    sizes = []
    while time.monotonic() < until:
        sizes.append(resident_bytes(pid))
        time.sleep(0.1)
    return sizes


def _cpu_share(pid: int, plan: Plan) -> float:
    time.sleep(_SETTLE)
    seconds = 8.0 if plan.quick else 20.0
    begun, used = time.monotonic(), cpu_seconds(pid)
    time.sleep(seconds)
    return (cpu_seconds(pid) - used) / (time.monotonic() - begun) * 100


@contextlib.contextmanager
def _worker(source: Mapping[str, str]) -> Iterator[int]:
    """`consumer run` in a folder of its own; yields its pid."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "handlers.py").write_text(_HANDLERS, encoding="utf-8")
        env = {
            **ENVIRONMENT,
            **{f"CONSUMER_SOURCES__LABS__{key}": value for key, value in source.items()},
            "CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRET,
            "CONSUMER_HEALTH__PORT": "0",
            "CONSUMER_LOG__LEVEL": "warning",
        }
        command = [sys.executable, "-m", "consumer", "run"]
        with subprocess.Popen(command, cwd=folder, env=env, stdin=subprocess.DEVNULL) as worker:
            try:
                yield worker.pid
                if worker.poll() is not None:
                    raise RuntimeError(f"consumer run ended with {worker.returncode}")
            finally:
                stop(worker)
