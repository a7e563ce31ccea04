"""What a source says when it pauses because something that handlers need is gone."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer import Context, Unavailable
from consumer.errors import CredentialsRefused, NotConfigured
from consumer.events import LabResultEvent, ProgramEvent
from tests.conformance.rig import Rig, effect, effects_table, eventually, lab_result, program, signed
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


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (NotConfigured("CONSUMER_SAHHA__CLIENT_ID is not set"), "CONSUMER_SAHHA__CLIENT_ID is not set"),
        (
            CredentialsRefused("GET /v1/users/{user_id}/labs", status=401, code="revoked", message="user u-1"),
            "GET /v1/users/{user_id}/labs: HTTP 401, revoked",
        ),
    ],
)
async def test_credentials_pause_the_source_and_others_go_on(tmp_path: Path, trouble: Exception, said: str) -> None:
    """The pause names the setting or the call; events that need no credentials are handled, the others when they can.

    No attempt is counted meanwhile.
    """
    table = effects_table()
    mended = False

    @table.on(LabResultEvent)
    async def call(event: LabResultEvent, context: Context) -> None:
        if not mended:
            raise trouble
        await effect(event, context)

    table.on(ProgramEvent)(effect)
    rig = Rig(tmp_path, {"KIND": "local", "PATH": str(tmp_path / "queue.db"), "POLL_WAIT": "0.1"})
    await rig.publish([signed(lab_result("needs-a-key")), signed(program("free"))])
    with capture_logs() as logs:
        async with rig.worker(table) as app:
            await eventually(lambda: logged(logs, "source_paused"))
            (intake,) = app.worker.intakes
            intake.breaker.first = intake.breaker.cap = 0.02
            await eventually(lambda: rig.effects()["free"])
            mended = True
            await eventually(lambda: rig.effects()["needs-a-key"])
    paused = logged(logs, "source_paused")[0]
    assert (paused["source"], paused["reason"], paused["detail"]) == ("labs", type(trouble).__name__, said)
    assert "u-1" not in str(logs)
    assert logged(logs, "handler_failed") == []
    assert rig.effects() == {"needs-a-key": 1, "free": 1}
    assert rig.rows("SELECT attempt FROM effects") == [(1,), (1,)]
    assert rig.dead_letters() == []
