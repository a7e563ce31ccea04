"""Probes and operators' commands, asked of a worker that is a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from consumer.cli import main
from tests.conformance.rig import Rig, eventually, program, signed
from tests.faults.harness import ROOT, WorkerProcess

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_GREEN = (200, "ok")
_STARTING = (503, "starting: entering the handlers' lifespans")


@pytest.fixture
def rig(local_rig: Rig) -> Iterator[Rig]:
    """A worker's settings with the probes and the control socket, which must have a short path."""
    with tempfile.TemporaryDirectory(prefix="hec-") as folder:
        local_rig.changes |= {
            "HANDLERS": "slow_start",
            "HEALTH__ENABLED": "true",
            "HEALTH__PORT": "0",
            "CONTROL__ENABLED": "true",
            "CONTROL__PATH": f"{folder}/control",
        }
        yield local_rig


def _worker(rig: Rig) -> WorkerProcess:
    return WorkerProcess(rig, HANDLERS="slow_start", HANDLER_GATE=str(rig.folder / "gate"))


def _get(url: str, within: float) -> tuple[int, str]:
    try:
        with _DIRECT.open(url, timeout=within) as reply:
            return reply.status, reply.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()


async def _probe(worker: WorkerProcess, path: str, within: float = 5.0) -> tuple[int, str]:
    port = (await worker.logged("health_server"))["port"]
    return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{path}", within)


async def _says(worker: WorkerProcess, path: str, answer: tuple[int, str]) -> None:
    async with asyncio.timeout(20):
        while await _probe(worker, path) != answer:
            await asyncio.sleep(0.05)


async def _command(rig: Rig, *arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments, env=rig.environment())


async def test_a_worker_from_its_start_to_a_standstill(rig: Rig) -> None:
    """One process, since each takes a second: what probes and commands say of it at each stage.

    While it starts it is alive, and neither started nor ready; then all three are green; an operator pauses it, looks,
    skips an event and lets it go on; a handler that blocks the loop keeps a probe from its answer in time.
    """
    with _worker(rig) as worker:
        await _says(worker, "startupz", _STARTING)
        assert await _probe(worker, "readyz") == _STARTING
        assert await _probe(worker, "livez") == _GREEN
        (rig.folder / "gate").touch()
        for path in ("startupz", "livez", "readyz"):
            await _says(worker, path, _GREEN)

        paused = await _command(rig, "pause", "labs", "--reason", "a test")
        assert (paused.exit_code, paused.stderr) == (0, "")
        assert await _probe(worker, "readyz") == (503, "source labs: paused by an operator: a test")
        assert await _probe(worker, "livez") == _GREEN
        await rig.publish([signed(program("e0")), signed(program("e1"))])
        status = json.loads((await _command(rig, "status", "--json")).stdout)
        assert (status["pid"], status["sources"][0]["state"]) == (worker.process.pid, "paused by an operator")
        without_yes = await _command(rig, "skip", "labs", "e0")
        assert (without_yes.exit_code, without_yes.stdout) == (2, "")
        assert (await _command(rig, "skip", "labs", "e0", "--yes")).exit_code == 0
        unknown = await _command(rig, "pause", "nope")
        assert (unknown.exit_code, unknown.stdout) == (2, "")
        assert "'nope' is not a source of this worker; there is labs" in unknown.stderr
        assert rig.effects() == Counter()
        assert (await asyncio.to_thread(_own_process, rig, "resume", "labs")) == "labs receives again.\n"
        await eventually(lambda: rig.effects() == Counter(["e1"]) and rig.reasons() == Counter(skipped=1))
        await _says(worker, "readyz", _GREEN)

        await rig.publish([signed(program("block"))])
        await worker.logged("handler_blocks")
        with pytest.raises((TimeoutError, urllib.error.URLError)):
            await _probe(worker, "livez", within=1.0)
    gone = await _command(rig, "status")
    assert gone.exit_code == 1
    assert gone.stderr.startswith("Error: no worker answers in ")
    assert len(gone.stderr.splitlines()) == 1


async def test_a_start_that_is_given_up(rig: Rig) -> None:
    """A signal ends a start as it ends a worker."""
    with _worker(rig) as worker:
        await _says(worker, "startupz", _STARTING)
        worker.send(signal.SIGTERM)
        assert await worker.ended(within=10) == 0
        assert worker.events("stopped_while_starting")
        assert "Traceback" not in worker.text


def _own_process(rig: Rig, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        env={**os.environ, **rig.environment(), "PYTHONPATH": str(ROOT)},
        cwd=rig.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout
