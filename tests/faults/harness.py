"""Workers as processes of their own, and the SQS stub as one, with its faults steered from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tests.conformance.rig import Rig, eventually
from tests.servers.forked import fork
from tests.servers.processes import free_port, serving

__all__ = ["Stub", "WorkerProcess", "sqs_rig", "stub_process"]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).resolve().parent / "project"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class WorkerProcess:
    """`python -m consumer run` on a rig; kills what it started, and nothing else."""

    def __init__(self, rig: Rig, *arguments: str, **changes: str) -> None:
        self.log = rig.folder / f"worker-{len(list(rig.folder.glob('worker-*.log')))}.log"
        plain = {name: value for name, value in changes.items() if name.startswith("HANDLER_")}
        settings = {name: value for name, value in changes.items() if name not in plain}
        environment = {
            **os.environ,
            **rig.environment(**{"LOG__FORMAT": "json", "HANDLERS": "effects", **settings}),
            **plain,
        }
        command = ["run", "--app-dir", str(PROJECT), *arguments]
        self.process = fork(command, env=environment, cwd=rig.folder, out=self.log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of this name."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if record.get("event") == name:
                    found.append(record)
        return found

    async def logged(self, name: str, count: int = 1, *, within: float = 30.0) -> dict[str, Any]:
        """Wait for a log line."""

        def there() -> bool:
            if self.process.poll() is not None and len(self.events(name)) < count:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.text[-3000:]}")
            return len(self.events(name)) >= count

        await eventually(there, within=within, what=f"{name} in the log:\n{self.text[-3000:]}")
        return self.events(name)[count - 1]

    @property
    def text(self) -> str:
        """The whole log."""
        return self.log.read_text()

    def send(self, number: signal.Signals) -> None:
        """Signal it."""
        self.process.send_signal(number)

    async def ended(self, *, within: float = 30.0) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        await eventually(lambda: self.process.poll() is not None, within=within, what=f"its end:\n{self.text[-3000:]}")
        return self.process.wait()

    async def ready(self) -> tuple[int, str]:
        """What /readyz says."""
        port = (await self.logged("health_server"))["port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/readyz")


def _get(url: str) -> tuple[int, str]:
    try:
        with _DIRECT.open(url, timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Stub:
    """An SQS stub in a process of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _ask(self, method: str, path: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(payload or {}).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)
        with _DIRECT.open(request, timeout=10) as reply:
            result: dict[str, Any] = json.loads(reply.read())
        return result

    def create_queue(self, name: str, **attributes: str) -> str:
        """Make a queue; its URL."""
        return str(self._ask("POST", "/_stub/queues", {"name": name, "attributes": attributes})["url"])

    def fault(self, kind: str, **options: Any) -> None:
        """Put a fault in force."""
        self._ask("POST", "/_stub/faults", {"kind": kind, **options})

    def heal(self) -> None:
        """No faults from now on."""
        self._ask("DELETE", "/_stub/faults")

    def counts(self, name: str) -> dict[str, int]:
        """What a queue holds: `ready`, `delayed`, `in_flight`."""
        counts: dict[str, int] = self._ask("GET", "/_stub/stats")["queues"][name]
        return counts

    def calls(self) -> dict[str, int]:
        """How often each action was asked for."""
        calls: dict[str, int] = self._ask("GET", "/_stub/stats")["calls"]
        return calls


@contextlib.contextmanager
def stub_process() -> Iterator[Stub]:
    """Run the stub."""
    port = free_port()
    command = [sys.executable, "-m", "tests.emulators.sqs_stub", "--port", str(port)]
    with serving(command, f"http://127.0.0.1:{port}", env={**os.environ, "PYTHONPATH": str(ROOT)}) as url:
        yield Stub(url)


def sqs_rig(folder: Path, stub: Stub, queue: str, *, visibility_timeout: float = 30.0) -> Rig:
    """A rig on a queue of the stub."""
    source = {
        "KIND": "sqs",
        "QUEUE_URL": f"{stub.url}/000000000000/{queue}",
        "ENDPOINT_URL": stub.url,
        "REGION": "us-east-1",
        "VISIBILITY_TIMEOUT": f"{visibility_timeout:g}s",
        "POLL_WAIT": "1",
    }
    return Rig(folder, source)
