"""Images from buildah's storage, and containers of them as a cluster would run them, by an OCI runtime (crun)."""
# ruff: noqa: INP001, S603, S607 - a part of a script that runs buildah and crun

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

PATIENCE: Final = 60.0
"""Seconds until something that should have happened by then has failed."""

FETCH: Final = """
import sys, urllib.request, urllib.error
try:
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        print(answer.read().decode())
except (urllib.error.URLError, OSError) as error:
    sys.exit(str(error))
"""


class Failed(Exception):
    """Something does not hold."""


def hold(condition: object, otherwise: str) -> None:
    """Raise `Failed` unless it is so."""
    if not condition:
        raise Failed(otherwise)


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose files can be looked at."""

    config: Mapping[str, Any]
    """As in the image: Entrypoint, Cmd, Env, User, WorkingDir, ..."""
    root: Path
    """Its files, on this machine."""


@contextlib.contextmanager
def mounted(folder: Path, name: str) -> Iterator[Image]:
    """An image by its name, from buildah's storage in the folder."""

    def buildah(*arguments: str) -> str:
        paths = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        return subprocess.run(
            ["buildah", *paths, *arguments], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    config = json.loads(buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    container = buildah("from", name)
    try:
        yield Image(config, Path(buildah("mount", container)))
    finally:
        buildah("rm", container)


@dataclass(slots=True)
class Container:
    """One container: with a network of its own, no rights, a read-only root, and /tmp and /data to write to."""

    image: Image
    state: Path
    """A folder for the runtime's files and for what the container prints."""
    data: Path
    """What is mounted at /data."""
    arguments: Sequence[str] = ()
    """After the entry point; none: the image's own."""
    entrypoint: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Path | None = None
    """What is mounted at /app/secrets, read-only."""
    name: str = field(default_factory=lambda: f"image-test-{uuid.uuid4().hex[:12]}")
    _running: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[Container]:
        """Start it; afterwards it is gone, whatever became of it."""
        bundle = self.state / self.name
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self._config()))
        try:
            with (bundle / "out").open("wb") as out, (bundle / "err").open("wb") as err:
                command = self._crun("run", "--bundle", str(bundle), self.name)
                self._running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            yield self
        finally:
            subprocess.run(self._crun("delete", "--force", self.name), check=False, capture_output=True)
            self.exit_code()

    def to_the_end(self) -> Container:
        """Run it until it exits by itself, which has to be with 0."""
        with self.running():
            code = self.exit_code()
        hold(code == 0, f"{self.arguments or self.entrypoint}: exit code {code}\n{self.err}")
        return self

    def exit_code(self) -> int:
        """Wait for its end."""
        assert self._running is not None  # noqa: S101 - called within `running`
        try:
            return self._running.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end\n{self.err}") from None

    def signal(self, name: str) -> None:
        """Send its process 1 a signal."""
        subprocess.run(self._crun("kill", self.name, name), check=True)

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run another command in it, as its user."""
        config = self.image.config
        full = self._crun("exec", "--user", config["User"], "--cwd", config["WorkingDir"], self.name, *command)
        return subprocess.run(full, check=False, capture_output=True, text=True, timeout=PATIENCE)

    def fetch(self, path: str, *, port: int = 8080) -> str | None:
        """What its health server answers, if it is all right."""
        result = self.execute("python", "-c", FETCH, f"http://127.0.0.1:{port}/{path}")
        return result.stdout if result.returncode == 0 else None

    @property
    def out(self) -> str:
        """Its standard output."""
        return (self.state / self.name / "out").read_text()

    @property
    def err(self) -> str:
        """Its standard error."""
        return (self.state / self.name / "err").read_text()

    def _crun(self, *arguments: str) -> list[str]:
        # crun refuses a machine that has both generations of cgroups, though it is told to use neither: hide them.
        script = 'mount -t tmpfs none /sys/fs/cgroup && exec crun "$@"'
        own = ("--root", str(self.state / "crun"), "--cgroup-manager=disabled")
        return ["unshare", "--mount", "sh", "-c", script, "crun", *own, *arguments]

    def _config(self) -> dict[str, Any]:
        config = self.image.config
        user, group = config["User"].split(":")
        arguments = self.arguments or ([] if self.entrypoint else config["Cmd"])
        private = ["nosuid", "noexec", "nodev"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": [*private, "mode=1777"]},  # noqa: S108
            {"destination": "/data", "type": "bind", "source": str(self.data), "options": ["bind", "rw", *private]},
        ]
        if self.secrets is not None:
            options = ["bind", "ro", *private]
            mounts.append(
                {"destination": "/app/secrets", "type": "bind", "source": str(self.secrets), "options": options}
            )
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": int(user), "gid": int(group)},
                "args": [*(self.entrypoint or config["Entrypoint"]), *arguments],
                "env": [*config["Env"], *(f"{name}={value}" for name, value in self.env.items())],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.image.root), "readonly": True},
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
        }


def until(condition: Callable[[], object], what: str, container: Container) -> float:
    """Ask again and again until it is so; how long that took, in seconds."""
    started = time.monotonic()
    while not condition():
        hold(time.monotonic() - started < PATIENCE, f"{what}: not within {PATIENCE:.0f} s\n{container.err}")
        time.sleep(0.1)
    return time.monotonic() - started
