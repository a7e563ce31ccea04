"""How many webhooks a second `consumer relay` puts on a local queue, each on disk before its 200, and how fast."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.draining import stop
from benchmarks.material import SECRET
from benchmarks.measuring import Plan, Result, say
from benchmarks.queues import ENVIRONMENT, ROOT

__all__ = ["run"]

_CONNECTIONS = 32
_SECONDS = 10.0
_QUICK = 4.0
_START_LIMIT = 30.0


def run(plan: Plan) -> list[Result]:
    """The relay and the sender, each a process of its own, on the default loop, unverified and verified."""
    return [result for verify in (False, True) for result in _measured(plan, verify=verify)]


def _measured(plan: Plan, *, verify: bool) -> list[Result]:
    figures = []
    for number in range(plan.rounds):
        with _relay(verify=verify) as port:
            figures.append(_sent(port, _QUICK if plan.quick else _SECONDS))
        said = ", ".join(f"{name} {value:,.1f}" for name, value in figures[-1].items())
        say(f"  round {number + 1}/{plan.rounds}  verify={verify}: {said}")
    what = f"relay, local queue, {'verified' if verify else 'as it is'}"
    rate, p99 = (median(figure[name] for figure in figures) for name in ("rate", "p99"))
    note = f"1.2 KB, {_CONNECTIONS} connections, as fast as they are answered"
    return [
        Result(what=f"{what}: webhooks", ours=rate, unit="/s", least=2_000, note=note),
        Result(what=f"{what}: 99 of 100 answered within", ours=p99, unit="ms", most=50, note="at that rate"),
    ]


@contextlib.contextmanager
def _relay(*, verify: bool) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as name:
        settings = {
            "SOURCES__SCORES__KIND": "local",
            "SOURCES__SCORES__PATH": f"{name}/queue",
            "SOURCES__SCORES__PROVIDER": "sahha",
            "SAHHA__SIGNATURE__SECRETS": SECRET,
            "RELAY__VERIFY": str(verify).lower(),
            "RELAY__PORT": "0",
            "HEALTH__ENABLED": "false",
            "LOG__FORMAT": "json",
        }
        environment = {**ENVIRONMENT, **{f"CONSUMER_{key}": value for key, value in settings.items()}}
        log = Path(name) / "log"
        with log.open("wb") as file:
            command = [sys.executable, "-m", "consumer", "relay"]
            process = subprocess.Popen(command, env=environment, cwd=name, stdout=file, stderr=file)
        try:
            yield _port(process, log)
        finally:
            stop(process)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"event": "listening"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.02)
    raise RuntimeError(f"the relay does not listen:\n{log.read_text()[-2000:]}")


def _sent(port: int, seconds: float) -> dict[str, float]:
    module = "benchmarks.contestants.webhooks"
    command = [sys.executable, "-m", module, "--port", str(port), "--connections", str(_CONNECTIONS)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
