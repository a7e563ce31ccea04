"""Tries out a built image as a cluster would run it: by an OCI runtime (crun), its own user as process 1, read-only.

Called by image-test.sh, as root: `image_test.py image|project FOLDER IMAGE`. FOLDER has buildah's storage. Prints a
line for each thing that holds; the first that does not is told on standard error, and the exit code is 1. `image`
leaves what `consumer init` writes in FOLDER/project, and `project` tries an image that was built from there.
"""
# ruff: noqa: INP001, T201 - a script, which talks to its caller

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from image_test_container import Container, Failed, Image, hold, mounted, until

UID: Final = 10001
"""Of the user and of the group that the image runs as."""
EVENTS: Final = 300
"""Of each of two lots."""
DRAIN_TIMEOUT: Final = 25.0
"""The default of the setting, in seconds."""

EXTRAS: Final = (
    "aioboto3, asyncpg, azure.eventhub, azure.eventhub.extensions.checkpointstoreblobaio, azure.identity.aio,"
    "azure.storage.blob.aio, azure.storage.queue.aio, opentelemetry.exporter.otlp.proto.grpc.trace_exporter,"
    "opentelemetry.exporter.otlp.proto.http.trace_exporter, opentelemetry.sdk.trace, pyrage, uvloop"
)
"""A module of each package that an extra brings."""

COMPILER: Final = re.compile(r".*bin/([^/]+-)?(pip|uv|cc|gcc|c\+\+|g\+\+|clang|ld)[0-9.-]*")
INSTALLER: Final = re.compile(r".*/python3[^/]*/(.*/)?(pip|ensurepip|setuptools|hatchling)(-[^/]+\.dist-info)?")
"""Paths of what would build or install something."""

WHAT_IT_MAY: Final = """
import json, os
def writable(folder):
    try:
        path = os.path.join(folder, "written")
        open(path, "w").close()
        os.unlink(path)
        return True
    except OSError:
        return False
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
folders = ("/", "/app", "/app/packages", "/opt/consumer", "/etc", "/var/tmp", "/tmp", "/data")
print(json.dumps({
    "ids": [os.getpid(), os.getuid(), os.getgid()],
    "may": int(status["CapEff"], 16),
    "writable": [folder for folder in folders if writable(folder)],
}))
"""


def owned_folder(path: Path, *, owner: int, mode: int) -> Path:
    """An empty folder of group 10001, as a volume is."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    os.chown(path, owner, UID)
    path.chmod(mode)
    return path


def try_image(folder: Path, image: Image) -> None:
    """The consumer's own image."""
    state = folder / "state"
    shutil.rmtree(state, ignore_errors=True)
    data = owned_folder(folder / "data", owner=UID, mode=0o700)
    _look_at_config(image)
    _look_at_files(image)
    looked = Container(image, state, data, entrypoint=("python", "-c", WHAT_IT_MAY)).to_the_end()
    expected = {"ids": [1, UID, UID], "may": 0, "writable": ["/tmp", "/data"]}  # noqa: S108 - a list of what is
    hold(json.loads(looked.out) == expected, f"process, user, group and folders: {looked.out}")
    print("ok: process 1, user and group 10001, no capabilities, writes to /tmp and /data only")

    Container(image, state, data, entrypoint=("python", "-W", "error", "-c", f"import {EXTRAS}")).to_the_end()
    print("ok: every extra can be imported")

    started = time.monotonic()
    demo = Container(image, state, data, arguments=("demo", "--json")).to_the_end()
    hold(json.loads(demo.out), "demo: shows nothing")
    print(f"ok: demo, in {time.monotonic() - started:.1f} s")

    bare = Container(image, state, data)
    with bare.running():
        code = bare.exit_code()
    hold(code == 2 and "Traceback" not in bare.err, f"without handlers: exit code {code}\n{bare.err}")  # noqa: PLR2004
    print(f"ok: without handlers it says {bare.err.splitlines()[-1]!r}")

    Container(image, state, data, arguments=("init", "/data/project")).to_the_end()
    shutil.rmtree(folder / "project", ignore_errors=True)
    shutil.copytree(data / "project", folder / "project")


def _look_at_config(image: Image) -> None:
    config = image.config
    hold(config["User"] == f"{UID}:{UID}", f"user: {config['User']}")
    hold((config["Entrypoint"], config["Cmd"]) == (["consumer"], ["run"]), "what it starts")
    hold(config.get("StopSignal") == "SIGTERM", "stop signal")


def _look_at_files(image: Image) -> None:
    paths = {f"/{path.relative_to(image.root)}": path.lstat() for path in image.root.rglob("*")}
    unwanted = [path for path in paths if COMPILER.fullmatch(path) or INSTALLER.fullmatch(path)]
    hold(not unwanted, f"would install or build something: {unwanted}")
    print("ok: neither pip nor a compiler")
    privileged = [path for path, found in paths.items() if UID in {found.st_uid, found.st_gid}]
    hold(privileged == ["/data"], f"belong to the user: {privileged}")
    print("ok: only /data belongs to the user")
    (package,) = image.root.glob("opt/consumer/lib/python3.*/site-packages/consumer")
    sources = {path.stem for path in package.glob("*.py")}
    compiled = {path.name.partition(".")[0]: path for path in package.glob("__pycache__/*.pyc")}
    hold(sources == set(compiled), f"without byte code: {sorted(sources - set(compiled))}")
    # PEP 552: 1 in the flags is by content, not by time; without 2 nobody compares it with the source.
    hold(all(path.read_bytes()[4] == 1 for path in compiled.values()), "byte code that goes by the time of its source")
    print("ok: byte code that needs no clock")


def try_project(folder: Path, image: Image) -> None:
    """A partner's image: its worker against the embedded queue."""
    # Volumes as a cluster mounts them: root's, with group 10001 let in.
    data = owned_folder(folder / "data", owner=0, mode=0o2770)
    secrets = owned_folder(folder / "secrets", owner=0, mode=0o2750)
    shutil.copy(folder / "project" / "secrets" / "thrive", secrets)
    os.chown(secrets / "thrive", 0, UID)
    (secrets / "thrive").chmod(0o440)
    env = {
        "CONSUMER_SOURCES__EVENTS__PATH": "/data/queue/events.db",
        "CONSUMER_SOURCES__WEBHOOKS__KIND": "local",
        "CONSUMER_SOURCES__WEBHOOKS__PROVIDER": "sahha",
        "CONSUMER_SOURCES__WEBHOOKS__PATH": "/data/queue/webhooks.db",
        "CONSUMER_SAHHA__SIGNATURE__SECRETS": "a secret of the image's test",
    }

    def container(*arguments: str) -> Container:
        return Container(image, folder / "state", data, secrets=secrets, env=env, arguments=arguments)

    template = json.loads((folder / "project" / "samples" / "lab-result.json").read_text())
    for name in ("first", "second"):
        bodies = [json.dumps(_another(template)) for _ in range(EVENTS)]
        (data / f"{name}.jsonl").write_text("\n".join(bodies))
    _work(container())
    _finish(container("run", "--until-idle"), data)
    _relay(container("relay"))
    _stop_at_once(container("run", "--config", "/data/settings.toml"), data / "settings.toml")


def _work(worker: Container) -> None:
    """Handle one lot, pause and resume, and be told to stop with the second lot in hand."""
    with worker.running():
        took = until(lambda: worker.fetch("readyz"), "ready", worker)
        print(f"ok: ready after {took:.1f} s")
        hold(worker.fetch("livez"), "not live")
        _command(worker, "publish", "events", "/data/first.jsonl")
        until(lambda: _handled(worker) == EVENTS, f"{EVENTS} events handled", worker)
        print(f"ok: {EVENTS} events handled")
        _command(worker, "pause", "events")
        until(lambda: worker.fetch("readyz") is None, "not ready while it is paused", worker)
        _command(worker, "resume", "events")
        until(lambda: worker.fetch("readyz"), "ready again", worker)
        print("ok: pauses and resumes when it is told to in the container")
        _command(worker, "publish", "events", "/data/second.jsonl")
        code, took = _told_to_stop(worker)
    hold(code == 0 and took < DRAIN_TIMEOUT, f"exit code {code} after {took:.1f} s\n{worker.err}")
    hold([json.loads(line) for line in worker.err.splitlines()], "logs nothing")
    print(f"ok: exits with 0, {took:.2f} s after the stop signal to process 1")


def _finish(worker: Container, data: Path) -> None:
    """Handle what the one before left, so that nothing is lost."""
    worker.to_the_end()
    with contextlib.closing(sqlite3.connect(data / "consumer.db")) as database:
        (kept,) = database.execute("SELECT count(*) FROM lab_results").fetchone()
    hold(kept == 2 * EVENTS, f"{kept} of {2 * EVENTS} events took effect")
    hold(not any(data.glob("dead-letters/*.jsonl")), "dead letters")
    print(f"ok: all {kept} events took effect, and none is a dead letter")


def _relay(relay: Container) -> None:
    with relay.running():
        until(lambda: relay.fetch("readyz", port=8082), "the relay ready", relay)
        code, took = _told_to_stop(relay)
    hold(code == 0, f"relay: exit code {code} after {took:.1f} s\n{relay.err}")
    print("ok: the relay starts and stops")


def _stop_at_once(starting: Container, settings: Path) -> None:
    """A stop signal before the worker listens for any: its settings are a FIFO that nobody writes to."""
    os.mkfifo(settings)
    with starting.running():
        until(lambda: _is_read(settings), "settings read", starting)
        code, took = _told_to_stop(starting)
    hold(code == 128 + signal.SIGTERM, f"exit code {code} after {took:.1f} s\n{starting.err}")
    print(f"ok: stops while it starts too, after {took:.2f} s")


def _told_to_stop(container: Container) -> tuple[int, float]:
    """Send the image's stop signal. The exit code, and the seconds until then."""
    told = time.monotonic()
    container.signal(container.image.config["StopSignal"])
    return container.exit_code(), time.monotonic() - told


def _another(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same event about another result."""
    other = str(uuid.uuid4())
    return {
        **body,
        "event_id": str(uuid.uuid4()),
        "target": {**body["target"], "id": other},
        "data": {**body["data"], "lab_result_id": other},
    }


def _is_read(fifo: Path) -> bool:
    try:
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)  # and left open, so that who reads it waits for more
    except OSError:
        return False
    return True


def _command(worker: Container, *arguments: str) -> None:
    result = worker.execute("consumer", *arguments)
    hold(result.returncode == 0, f"{arguments}: exit code {result.returncode}\n{result.stderr}")


def _handled(worker: Container) -> int:
    lines = (worker.fetch("metrics") or "").splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("health_consumer_handled_total{"))


def main() -> None:
    """Try one image out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("image", "project"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    given = parser.parse_args()
    try:
        with mounted(given.folder, given.name) as image:
            {"image": try_image, "project": try_project}[given.what](given.folder, image)
    except (Failed, subprocess.SubprocessError) as error:
        sys.exit(f"image-test: {error}")


if __name__ == "__main__":
    main()
