"""What a source says when it pauses because something that handlers need is gone."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from consumer import Context, Unavailable
from consumer.events import ProgramEvent
from tests.conformance.rig import Rig, effects_table, eventually, program, signed
from tests.faults.harness_azure import logged


async def test_a_pause_says_what_is_gone(tmp_path: Path) -> None:
    """The log line of a pause has the method, path template and status that `Unavailable` holds, and no more of it."""
    table = effects_table()
    said = ["two\nlines", "GET /v1/users/{user_id}/labs: HTTP 503" + " " * 1000, None]

    @table.on(ProgramEvent)
    async def call(event: ProgramEvent, context: Context) -> None:
        raise Unavailable(why=said[-1])

    rig = Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue.db"), "POLL_WAIT": "0.1"})
    await rig.publish([signed(program("a"))])
    details = []
    while said:
        with capture_logs() as logs:
            async with rig.worker(table):
                await eventually(lambda logs=logs: logged(logs, "source_paused"))  # type: ignore[misc]
        (paused,) = logged(logs, "source_paused")
        assert paused["reason"] == "Unavailable"
        details.append(paused.get("detail"))
        said.pop()
    assert details == [None, ("GET /v1/users/{user_id}/labs: HTTP 503" + " " * 1000)[:200], None]
