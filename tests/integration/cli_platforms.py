"""The platforms' command lines in this process, against a server that runs in the test's event loop."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner, Result

from consumer.cli import main

__all__ = ["CommandLine", "command_line"]


class CommandLine:
    """Runs commands with settings from the environment; whatever becomes of one, no secret and no traceback shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env: dict[str, str] = {"CONSUMER_LOG__LEVEL": "critical"}
        self.secrets: list[str] = []
        """What no command may print, unless it is told that it may."""

    async def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        reveals: bool = False,
    ) -> Result:
        """Run a command in a thread, so that the server can answer it. `reveals`: standard output may hold secrets."""
        invoke = CliRunner().invoke
        result = await asyncio.to_thread(invoke, main, arguments, env=self.env | dict(env or {}), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        for text in (result.stderr, "" if reveals else result.stdout):
            assert "Traceback" not in text
            assert not [secret for secret in self.secrets if secret in text]
        return result

    async def json(self, *arguments: str, env: Mapping[str, str] | None = None, reveals: bool = False) -> Any:
        """What a command prints with `--json`; it must succeed."""
        result = await self.run(*arguments, "--json", env=env, reveals=reveals)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    async def failed(self, *arguments: str, code: int = 1, env: Mapping[str, str] | None = None) -> str:
        """What a command that must fail says on standard error; it prints nothing else."""
        result = await self.run(*arguments, env=env)
        assert (result.exit_code, result.stdout) == (code, "")
        return result.stderr


def command_line(tmp_path: Path, monkeypatch: Any) -> Iterator[CommandLine]:
    """A fixture: a command line in a folder of its own; what commands leave in this process is put back afterwards."""
    monkeypatch.chdir(tmp_path)
    handlers = list(logging.getLogger().handlers)
    yield CommandLine(tmp_path)
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()
