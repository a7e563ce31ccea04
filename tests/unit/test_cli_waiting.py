"""What a command of the platforms' APIs says while it waits, and when it cannot reach what it asks."""

from __future__ import annotations

import asyncio
import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import click
import pytest

from consumer.cli import api
from consumer.cli.console import progress
from consumer.cli.platform_trouble import Platform
from consumer.outcomes import Unavailable
from consumer.settings import Settings

PLATFORM = Platform("Thrive", "https://api.example.com", "CONSUMER_THRIVE__BASE_URL", "CONSUMER_THRIVE__TENANT_KEY")


class Terminal(io.StringIO):
    """Standard error, as a person has it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[Terminal, io.StringIO], ids=["terminal", "file"])
def stderr(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is to be standard error in a test; patience is short."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(api, "_PATIENCE", 0.02)
    stream: io.StringIO = request.param()
    return stream


async def slow(_: Any) -> int:
    await asyncio.sleep(0.1)
    return 1


async def quick(_: Any) -> int:
    return 1


def test_a_long_wait_is_told_on_a_terminal_only(stderr: io.StringIO) -> None:
    """Nothing of it on standard output, where the answer goes, nor in a file."""

    async def talking(client: Any) -> int:
        await slow(client)
        click.echo("an answer")
        return 1

    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(stderr):
        assert api.ask_thrive(Settings(), talking) == 1
    assert ("waiting for Thrive ..." in stderr.getvalue()) is stderr.isatty()
    assert stderr.isatty() or not stderr.getvalue()
    assert stdout.getvalue() == "an answer\n"


def test_a_short_wait_is_silent(stderr: io.StringIO) -> None:
    """An answer at once leaves no trace, on a terminal either."""
    with redirect_stderr(stderr):
        assert api.ask_sahha(Settings(), quick) == 1
    assert stderr.getvalue() == ""


def test_a_bar_is_not_disturbed(stderr: io.StringIO) -> None:
    """A command that shows how far it is says nothing else."""

    async def with_bar(client: Any) -> int:
        with progress("uploaded", 2):
            return await slow(client)

    with redirect_stderr(stderr):
        assert api.ask_sahha(Settings(), with_bar) == 1
    assert ("uploaded" in stderr.getvalue()) is stderr.isatty()
    assert "waiting" not in stderr.getvalue()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            Unavailable(why="POST /v1/auth/token: the name is not known"),
            "Thrive cannot be reached at https://api.example.com (CONSUMER_THRIVE__BASE_URL): the name is not known",
        ),
        (
            Unavailable(7, why="GET /v1/users/{user_id}: HTTP 503"),
            "Thrive is overloaded or out of order: GET /v1/users/{user_id}: HTTP 503; try again in 7s",
        ),
        (
            Unavailable(why="GET /v1/users/{user_id}: HTTP 500"),
            "Thrive is overloaded or out of order: GET /v1/users/{user_id}: HTTP 500; try again later",
        ),
        (
            Unavailable(why="PUT {upload_url}: connection refused"),
            "cannot be reached: PUT {upload_url}: connection refused",
        ),
        (Unavailable(), "cannot be reached: Thrive"),
    ],
)
def test_what_cannot_be_reached_is_named(error: Unavailable, told: str) -> None:
    """The address and its setting, unless the address was not ours or somebody did answer."""
    assert PLATFORM.unreachable(error) == told
