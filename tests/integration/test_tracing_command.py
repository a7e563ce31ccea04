"""Spans of the real commands, each in a process of its own, since a process has one provider of spans."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli_project import Project, assert_discreet, body, opened_project

project = pytest.fixture(opened_project)

_OWN = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from consumer import Context, DispatchTable
from consumer.events import LabResultEvent

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open("own.json", "w", buffering=1))))
trace.set_tracer_provider(provider)
table = DispatchTable()

@table.on(LabResultEvent)
async def store(event: LabResultEvent, context: Context) -> None:
    context.log.info("seen")
"""


def finished(project: Project, *arguments: str, stdin: str | None = None, **env: str) -> tuple[str, str]:
    """Run a command to its end, which must be a good one: what it wrote."""
    project.env |= env
    process = project.start(*arguments, stdin=subprocess.PIPE if stdin is not None else None)
    out, err = process.communicate(stdin, timeout=60)
    assert process.returncode == 0, err
    assert_discreet(out + err)
    return out, err


def objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects that follow one another."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found


def spans(text: str) -> dict[str, Mapping[str, Any]]:
    """The spans by their names, among lines of the log."""
    return {found["name"]: found for found in objects(text) if "context" in found}


def test_an_event_can_be_followed_from_its_send_to_its_ack(project: Project) -> None:
    """Over two commands and a queue; the log's lines say where they belong, and standard output stays clean."""
    project.handlers("context.log.info('seen')\nawait keep(event, context)")
    console = {"OTEL_TRACES_EXPORTER": "console"}
    out, err = finished(project, "publish", "labs", "-", stdin=body(1), **console)
    assert out == "1 message sent to labs\n"
    send = spans(err)["send labs"]
    _, err = finished(project, "run", "--until-idle", "--idle-after", "0s", **console)
    found = spans(err)
    process = found["process labs"]
    assert sorted(found) == ["ack labs", "process labs", "receive labs"]
    assert [link["context"]["span_id"] for link in process["links"]] == [send["context"]["span_id"]]
    assert [link["context"]["span_id"] for link in found["ack labs"]["links"]] == [process["context"]["span_id"]]
    assert process["resource"]["attributes"]["service.name"] == "health-event-consumer"
    (line,) = [found for found in objects(err) if found.get("event") == "seen"]
    assert (f"0x{line['trace_id']}", f"0x{line['span_id']}") == (
        process["context"]["trace_id"],
        process["context"]["span_id"],
    )


def test_an_sdk_that_the_handlers_bring_is_left_alone(project: Project) -> None:
    """Its spans go where it sends them, and nowhere else, whatever the variables say."""
    project.handlers(module=_OWN)
    assert project.run("publish", "labs", "-", stdin=body(1)).exit_code == 0
    _, err = finished(project, "run", "--until-idle", "--idle-after", "0s", OTEL_TRACES_EXPORTER="console")
    assert not spans(err)
    assert "Overriding" not in err
    assert "process labs" in spans((project.folder / "own.json").read_text())


def test_a_collector_that_never_answers_holds_up_nothing(project: Project) -> None:
    """The events are handled, and the worker ends within the seconds its last spans have."""
    assert project.run("publish", "labs", "-", stdin=body(1)).exit_code == 0
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        _, err = finished(
            project,
            "run",
            "--until-idle",
            "--idle-after",
            "0s",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        )
        ended = time.time()
    assert len(project.effects()) == 1
    lines = {line["event"]: line for line in objects(err)}
    assert lines["spans_lost"]["level"] == "warning"
    assert ended - datetime.fromisoformat(lines["drained"]["timestamp"]).timestamp() < 10


def test_no_command_loads_the_sdk_unasked(tmp_path: Path) -> None:
    """It takes longer to import than all of the command line."""
    code = (
        "import sys; from consumer.cli import main; import consumer.app, consumer.relay; "
        "main(['--help'], standalone_mode=False); "
        "sys.exit(str([name for name in sys.modules if name.startswith('opentelemetry.sdk')] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == ""
