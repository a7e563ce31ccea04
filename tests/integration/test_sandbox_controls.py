"""The sandbox's own controls: faults on demand, how they are called, and how wrong calls are refused."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

import pytest

from consumer.sandbox.server import Sandbox
from tests.servers.fixtures_sandbox import Caller

SOMEBODY = "1d5d2c74-7c3e-4a65-9d1e-5a5a5a5a5a5a"


async def test_faults_are_struck_as_often_as_asked_in_the_platform_s_shape(caller: Caller):
    rule = {"path": "/v1/users", "error_rate": 1, "status": 429, "retry_after": 3, "times": 2}
    await caller.control("/faults", rules=[rule])
    answers = [await caller.member("GET", "/labs") for _ in range(3)]
    assert [answer.status for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "3"
    assert answers[0].json["error"]["code"] == "rate_limited"


async def test_faults_of_sahha_s_paths_have_sahha_s_shape(caller: Caller):
    await caller.control("/faults", rules=[{"path": "/api", "error_rate": 1, "status": 500}])
    answer = await caller.raw("GET", "/api/v1/profile/score/member")
    assert (answer.status, answer.json["statusCode"]) == (500, 500)
    assert (await caller.member("GET", "/labs")).status == 200


async def test_latency_is_added_to_the_answers(sandbox: Sandbox, caller: Caller):
    await caller.token(sandbox.world.members[0])
    await caller.control("/faults", rules=[{"path": "/v1", "latency": 0.2}])
    started = asyncio.get_running_loop().time()
    assert (await caller.member("GET", "/labs")).status == 200
    assert asyncio.get_running_loop().time() - started >= 0.2


@pytest.mark.parametrize("shape", [lambda rule: {"rules": [rule]}, lambda rule: [rule], lambda rule: rule])
async def test_rules_may_be_given_the_way_they_come_to_mind(caller: Caller, shape: Any):
    """In an object, as a list or alone; and, as curl does, without a word on what kind of content it is."""
    body = json.dumps(shape({"path": "*", "error_rate": 1, "status": 503}))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await caller.raw("POST", "/sandbox/faults", data=body, headers=form)
    assert (answer.status, answer.json["rules"][0]["path"]) == (200, "/")
    assert (await caller.raw("GET", "/v1/users/x/labs")).status == 503


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"rules": [{"paht": "/v1"}]}, "rules[0].paht: no such field"),
        ({"error_rate": 2}, "rules[0].error_rate: expected less than or equal to 1"),
        ({"retry_after": [1], "error_rate": 1}, "rules[0].retry_after: expected a valid integer"),
        ({"path": "/v1", "status": 503}, "rules[0]: error_rate: missing"),
        ({"path": "/v2"}, "rules[0].path: nothing that the platforms answer"),
        ({"path": "/v1/*"}, "rules[0].path: nothing that the platforms answer"),
        ({"path": "/v1/users", "method": "FETCH"}, "rules[0].path: nothing that the platforms answer"),
        ({"rules": 5}, "rules: expected a valid list"),
        ({}, "rules: missing"),
        (5, "the body: expected a JSON object"),
    ],
)
async def test_a_wrong_rule_is_refused_in_a_sentence_that_names_the_field(caller: Caller, body: Any, told: str):
    answer = await caller.raw("POST", "/sandbox/faults", json=body)
    assert (answer.status, answer.code) == (422, "validation_error")
    assert answer.json["error"]["message"].startswith(told)
    assert (await caller.raw("GET", "/sandbox/faults")).json == {"rules": []}


async def test_rules_for_paths_below_an_id_are_taken(caller: Caller):
    member = caller.sandbox.world.members[0]
    for path in ("/v1/users/", f"/v1/users/{member}/ca", f"/v1/users/{member}/labs/", "/api/v1/prof"):
        rule = {"path": path, "latency": 0.001, "method": "get"}
        assert (await caller.control("/faults", rules=[rule])).status == 200


async def test_every_control_has_an_example_that_works(caller: Caller):
    """As they are listed to be copied: each is a control of `GET /sandbox`, and none of them is a wrong one."""
    await caller.control("/webhooks", url="http://127.0.0.1:1/")
    shown = await caller.raw("GET", "/sandbox")
    assert shown.text.startswith('{\n  "')
    controls = {**shown.json["control"], **shown.json["sahha"]["control"]}
    lines = (await caller.raw("GET", "/sandbox/examples")).text.splitlines()
    assert lines == [one["example"] for one in controls.values()]
    for call, line in zip(controls, lines, strict=True):
        method, path = call.split()
        given = shlex.split(line)
        assert given[-1] == caller.sandbox.url + path
        body = given[given.index("-d") + 1] if "-d" in given else None
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert (await caller.raw(method, path, data=body, headers=form)).status in (200, 202), line


async def test_a_wrong_control_is_refused(caller: Caller):
    for path, body in (
        ("/faults", {"rules": [{"paht": "/v1"}]}),
        ("/events", {"kind": "odd"}),
        ("/events", {"stream": "orders"}),
        ("/events", {"typo": 1}),
        ("/clock/skip", {"seconds": -1}),
    ):
        assert (await caller.control(path, **body)).status == 422
    assert (await caller.control("/events", user_id=SOMEBODY)).status == 404
    assert (await caller.control("/events", kind="replay")).status == 409


async def test_what_there_is_is_shown_without_a_key(caller: Caller):
    shown = await caller.raw("GET", "/sandbox")
    assert shown.json["members"] == caller.sandbox.world.members
    credentials = caller.sandbox.parts.credentials
    for secret in (credentials.tenant_key, credentials.thrive_secret, credentials.sahha.client_secret):
        assert secret not in json.dumps(shown.json)
