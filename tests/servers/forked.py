"""The command line, run in processes of its own that do not each wait for their imports.

One process imports the program and forks itself for every run. What a run does to its environment, its folder, its
signals and its event loop ends with it, as in a process that was started afresh; it is stopped and killed by its pid.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Forked", "fork"]

_ROOT = Path(__file__).resolve().parents[2]
_LOOK_EVERY = 0.01

_SERVER = """
import json, os, sys, tempfile
import aioboto3, asyncpg, azure.eventhub.aio, azure.storage.queue.aio, pyrage
import consumer.app, consumer.cli.relay, consumer.cli.run, consumer.cli.service, consumer.demo
import consumer.sources.event_hubs, consumer.sources.local, consumer.sources.sqs, consumer.sources.storage_queue
from consumer.cli import main

def run(job):
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    tempfile.tempdir = None
    sys.path[0] = job["cwd"]
    sys.argv = ["consumer", *job["arguments"]]
    main()

for line in sys.stdin:
    asked = json.loads(line)
    if "pid" in asked:
        pid, status = os.waitpid(asked["pid"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
        answer = os.fork()
        if not answer:
            run(asked)
    print(json.dumps(answer), flush=True)
"""


class Forked:
    """A run; as much of `subprocess.Popen` as tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = _ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end. Raises TimeoutError."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError
            time.sleep(_LOOK_EVERY)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def fork(arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, out: Path, err: Path | None = None) -> Forked:
    """Run `consumer` with these arguments; what it prints is added to the files."""
    for path in (out, err or out):
        path.touch(0o600)
    pid = _ask(
        arguments=list(arguments), env=dict(env), cwd=str(cwd), out=str(out.resolve()), err=str((err or out).resolve())
    )
    assert pid is not None
    return Forked(pid)


def _ask(**question: object) -> int | None:
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(question) + "\n")
    server.stdin.flush()
    answer: int | None = json.loads(server.stdout.readline())
    return answer


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process that forks, one for each process that runs tests."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
