"""`consumer routes` and `consumer schema`: what goes where, and what it looks like."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.integration.cli_project import Project, body, opened_project

project = pytest.fixture(opened_project)

MODULE = """
from typing import ClassVar
from consumer import DispatchTable
from consumer.events import LabResultEvent, NudgeEvent, ThriveEvent
from consumer.models.base import PlatformModel

class Journey(PlatformModel):
    step: int

class JourneyEvent(ThriveEvent[Journey]):
    event_types: ClassVar[tuple[str, ...]] = ("coach.journey.*",)

table = DispatchTable()
table.ignore(NudgeEvent)

@table.on(LabResultEvent, JourneyEvent, timeout=90, max_concurrency=3)
async def store(event, context): ...

@table.on(LabResultEvent)
async def notify(event, context): ...
"""


def test_routes(project: Project) -> None:
    """Each class is there with the types that mean it now, its handlers in order, their limits, or its fate."""
    project.handlers(module=MODULE)
    name = project.env["CONSUMER_HANDLERS"]
    env = {"CONSUMER_THRIVE__EVENT_TYPES__LAB_RESULT": '["labs.ready", "labs.*"]', "CONSUMER_UNKNOWN_EVENTS": "ack"}
    answer = json.loads(project.run("routes", "--json", env=env).stdout)
    assert answer["unknown_events"] == "ack"
    routes = {route["event"]: route for route in answer["routes"]}
    assert routes["LabResultEvent"]["event_types"] == ["labs.ready", "labs.*"]
    assert routes["LabResultEvent"]["handlers"] == [
        {"name": f"{name}.store", "timeout": 90, "max_concurrency": 3},
        {"name": f"{name}.notify", "timeout": 30, "max_concurrency": None},
    ]
    assert routes["JourneyEvent"]["event_types"] == ["coach.journey.*"]
    otherwise = {name: route["otherwise"] for name, route in routes.items() if route["otherwise"]}
    assert otherwise == {
        "NudgeEvent": "ignored",
        "DailyDeviceEvent": "unhandled",
        "ProgramEvent": "unhandled",
        "UnknownEvent": "ack",
    }


def test_routes_are_a_table(project: Project) -> None:
    """Without --json there is a line for each handler."""
    project.handlers(module=MODULE)
    name = project.env["CONSUMER_HANDLERS"]
    rows = [line.split("\t") for line in project.run("routes").stdout.splitlines()]
    assert ["JourneyEvent", "coach.journey.*", f"{name}.store", "1m30s", "3"] in rows
    assert ["LabResultEvent", "lab.*", f"{name}.notify", "30s", "unlimited"] in rows
    assert ["UnknownEvent", "(all others)", "(dead letter: unknown_event)", "", ""] in rows


def test_wrong_handlers(project: Project) -> None:
    """Handlers that cannot be had, or types claimed twice, are one line and exit code 2."""
    for result in (
        project.run("routes", "--handlers", "nowhere"),
        project.run("schema", "--handlers", "nowhere"),
        project.run("routes", env={"CONSUMER_THRIVE__EVENT_TYPES__NUDGE": "lab.*"}),
    ):
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


def test_schema(project: Project) -> None:
    """The schemas of the shipped classes need no settings, and a body fits its own."""
    result = project.run("schema", env={"CONSUMER_MAX_ATTEMPTS": "nonsense"})
    schemas = json.loads(result.stdout)
    thrive = {"DailyDeviceEvent", "LabResultEvent", "NudgeEvent", "ProgramEvent"}
    assert set(schemas) == thrive | {"ArchetypeEvent", "BiomarkerEvent", "DataLogEvent", "ScoreEvent"}
    jsonschema.validate(json.loads(body(1)), schemas["LabResultEvent"])


@pytest.mark.parametrize("wanted", ["LabResultEvent", "lab.result.ready"])
def test_schema_of_one_type(project: Project, wanted: str) -> None:
    """A class is found by its name and by an event type that means it."""
    assert json.loads(project.run("schema", "--type", wanted).stdout)["title"] == "LabResultEvent"


def test_schema_of_a_table(project: Project) -> None:
    """A table's own classes are described as well."""
    project.handlers(module=MODULE)
    arguments = ("--handlers", project.env["CONSUMER_HANDLERS"], "--app-dir", str(project.folder))
    assert sorted(json.loads(project.run("schema", *arguments).stdout)) == [
        "JourneyEvent",
        "LabResultEvent",
        "NudgeEvent",
    ]
    found = json.loads(project.run("schema", *arguments, "--type", "coach.journey.begun").stdout)
    assert found["title"] == "JourneyEvent"


def test_schema_of_nothing(project: Project) -> None:
    """What is neither a class nor an event type is wrong usage."""
    result = project.run("schema", "--type", "no.such")
    assert result.exit_code == 2
    assert "LabResultEvent" in result.stderr


@pytest.mark.parametrize("name", ["routes", "schema"])
def test_help_has_an_example(project: Project, name: str) -> None:
    """The help shows how it is used."""
    assert f"Example: consumer {name}" in project.run(name, "--help").stdout
