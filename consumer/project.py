"""Writing out a new partner project: the shipped handlers, settings, a test, a Dockerfile."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from consumer import __version__
from consumer.errors import ConsumerError

__all__ = ["Written", "shipped_handlers", "write_project"]

_HERE = Path(__file__).parent
_TEMPLATES = _HERE / "_project"

_FILES = {
    "README.md": "README.md",
    "consumer.toml": "consumer.toml",
    "Dockerfile": "Dockerfile",
    "dockerignore.txt": ".dockerignore",
    "gitignore.txt": ".gitignore",
    "requirements.txt": "requirements.txt",
    "requirements-dev.txt": "requirements-dev.txt",
    "pytest.ini": "pytest.ini",
    "lab-result.json": "samples/lab-result.json",
}
"""Where each template goes. Some have other names here, because tools would take them for this project's own."""

_SECRET = "secrets/thrive"  # noqa: S105 - the name of a file
_SAHHA_SECRET = "secrets/sahha"  # noqa: S105 - as above
_PRIVATE = 0o600
_SAHHA_BLOCK = re.compile(r"^# \[sources\.webhooks\]\n(?:# .+\n)+", re.MULTILINE)
"""The second source in the settings' template."""
_TEST = "tests/test_handlers.py"


@dataclass(slots=True)
class Written:
    """What `write_project` did; paths within the project, in the order they were looked at."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What was there before, and was left as it is."""


def shipped_handlers() -> Path:
    """The folder of the shipped handlers: in an installed package within it, in a checkout beside it.

    Raises `ConsumerError` when it is in neither place.
    """
    for folder in (_TEMPLATES / "handlers", _HERE.parent / "handlers"):
        if (folder / "__init__.py").is_file():
            return folder
    raise ConsumerError("the shipped handlers are not there: the installation is not complete")


def write_project(folder: Path, *, sahha: bool = False) -> Written:
    """Write a project into a folder, which is made if it does not exist. Overwrites nothing.

    Its source is one of Thrive's; with `sahha` there is one of Sahha's too, which else is a comment in its settings.
    Handlers that exist are kept as a whole, and then no test is written for them. Secrets are random and readable by
    their owner alone. Raises `ConsumerError` when a file cannot be written.
    """
    result = Written()
    try:
        for template, name in _FILES.items():
            text = _template(template)
            _write(folder, name, _SAHHA_BLOCK.sub(_uncommented, text) if sahha else text, result)
        _write_handlers(folder, result)
        for name in (_SECRET, _SAHHA_SECRET) if sahha else (_SECRET,):
            _write(folder, name, f"{secrets.token_hex(32)}\n", result, mode=_PRIVATE)
    except OSError as error:
        raise ConsumerError(f"{error.filename or folder}: {error.strerror}") from None
    return result


def _write_handlers(folder: Path, result: Written) -> None:
    if (folder / "handlers.py").exists() or (folder / "handlers").exists():
        result.kept.append("handlers")
        return
    for name, text in _sources(shipped_handlers()):
        _write(folder, f"handlers/{name}", text, result)
    _write(folder, _TEST, _template("test_handlers.txt"), result)


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def _uncommented(block: re.Match[str]) -> str:
    return re.sub("^# ", "", block[0], flags=re.MULTILINE)


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8").replace("@VERSION@", __version__)


def _write(folder: Path, name: str, text: str, result: Written, *, mode: int = 0o666) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if mode == _PRIVATE else 0o777)
    try:
        # O_EXCL: what appears meanwhile is not overwritten either, nor what a dangling link points to.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    except FileExistsError:
        result.kept.append(name)
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    result.written.append(name)
