"""What reaches standard error holds no value, whatever a handler or a library does."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import click
import pytest
import structlog

from consumer.cli.common import Failed, run_async
from consumer.ops.logs import configure_logging, report_stray, strays_reported

CANARY = "canary-9d"
Form = Literal["json", "console"]


@pytest.fixture(params=["json", "console"], autouse=True)
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """How lines are written; afterwards logging is as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    found: Form = request.param
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Odd:
    def __repr__(self) -> str:
        return CANARY


class Dying:
    def __del__(self) -> None:
        raise ValueError(CANARY)


def _circular() -> list[Any]:
    found: list[Any] = [CANARY]
    found.append(found)
    return found


def _handler_log() -> Any:
    return structlog.get_logger("handler")


def _thread() -> None:
    def fail() -> None:
        raise ValueError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def _exception_value() -> None:
    _handler_log().error("failed", error=ValueError(CANARY), all=[ValueError(CANARY)])


WAYS: dict[str, Callable[[], object]] = {
    "a value that holds itself": lambda: _handler_log().info("said", value=_circular()),
    "a value with odd keys": lambda: _handler_log().info("said", value={(1, CANARY): Odd()}),
    "an object": lambda: _handler_log().info("said", value=Odd()),
    "an exception as a value": _exception_value,
    "arguments that do not fit": lambda: logging.getLogger("mine").info("%d", CANARY),
    "a thread": _thread,
    "a finalizer": Dying,
    "a warning": lambda: warnings.warn(CANARY, stacklevel=1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("default")
def test_no_value_is_printed(way: str, form: Form, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is written all the same, and what it holds is a class and a place."""
    configure_logging(level="debug", form=form)
    with strays_reported():
        WAYS[way]()
        gc.collect()
    text = capsys.readouterr().err
    assert CANARY not in text
    assert text


def test_debug_mode_shows_no_result_of_a_slow_task(form: Form, capsys: pytest.CaptureFixture[str]) -> None:
    """With PYTHONASYNCIODEBUG the loop warns of slow steps, and would show results and arguments."""

    async def slow() -> str:
        time.sleep(0.12)  # noqa: ASYNC251 - holding the loop is what is tried
        return CANARY

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_stray)
        await asyncio.create_task(slow())
        loop.call_soon(lambda _: time.sleep(0.12), CANARY)
        await asyncio.sleep(0.15)

    configure_logging(level="debug", form=form)
    asyncio.run(main(), debug=True)
    assert CANARY not in capsys.readouterr().err


def test_texts_from_outside_are_tamed(form: Form, capsys: pytest.CaptureFixture[str]) -> None:
    """An event type that steers terminals is spelt out, and one as long as a message is cut."""
    configure_logging(level="debug", form=form)
    _handler_log().info("said", event_type="\x1b[2J\x9b", event_id="x" * 100_000)
    text = capsys.readouterr().err
    assert "\x1b[2J" not in text
    assert "\x9b" not in text
    assert len(text) < 5000


def test_an_unexpected_error_ends_a_command_without_its_words() -> None:
    """A bug is one line with class and place; a traceback would hold the text of every exception in it."""

    async def main() -> None:
        raise ValueError(CANARY)

    with pytest.raises(Failed) as caught:
        run_async(main)
    assert "ValueError at" in caught.value.message
    assert "unit/test_logs.py" in caught.value.message
    assert CANARY not in caught.value.message


def test_what_a_command_says_on_purpose_is_left_alone() -> None:
    """A usage error raised inside the loop comes out as it is."""

    async def main() -> None:
        raise click.UsageError("like this")

    with pytest.raises(click.UsageError, match="like this"):
        run_async(main)
