"""`consumer check` and the platforms' APIs: whether they answer, and take the credentials that are set."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from consumer.sandbox.server import Sandbox
from tests.integration.cli_project import Project, opened_project
from tests.servers.processes import free_port
from tests.servers.scripted import answering, scripted

project = pytest.fixture(opened_project)

KEY = "tenant-key-canary"
THRIVE, SAHHA = "CONSUMER_THRIVE__", "CONSUMER_SAHHA__"


async def check(project: Project, **env: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code; result and detail of each platform's row. No credential shows."""
    result = await asyncio.to_thread(project.run, "check", "--json", env=env)
    assert not [one for name, one in env.items() if name.endswith(("KEY", "SECRET")) and one in result.output]
    found = [row for row in json.loads(result.stdout) if row["part"].endswith("API")]
    return result.exit_code, {row["part"]: (row["result"], row["detail"]) for row in found}


def credentials(sandbox: Sandbox) -> dict[str, str]:
    """What both platforms accept."""
    sahha = sandbox.sahha
    return {
        f"{THRIVE}BASE_URL": sandbox.url,
        f"{THRIVE}TENANT_KEY": sandbox.tenant_key,
        f"{SAHHA}BASE_URL": sandbox.url,
        f"{SAHHA}CLIENT_ID": sahha.client_id,
        f"{SAHHA}CLIENT_SECRET": sahha.client_secret,
    }


async def test_credentials_that_work(project: Project, sandbox: Sandbox) -> None:
    """A row for each platform; asking Thrive for a queue that is not there is how the key is tried."""
    code, rows = await check(project, **credentials(sandbox))
    accepted = ("ok", f"accepted at {sandbox.url}")
    assert (code, rows) == (0, {"thrive API": accepted, "sahha API": accepted})


async def test_without_credentials_there_is_no_row(project: Project) -> None:
    """A worker of events that bring their data needs no API."""
    assert await check(project) == (0, {})


async def test_wrong_credentials_fail(project: Project, sandbox: Sandbox) -> None:
    """The settings to look at are named."""
    wrong = {f"{THRIVE}TENANT_KEY": KEY, f"{SAHHA}CLIENT_SECRET": KEY}
    code, rows = await check(project, **(credentials(sandbox) | wrong))
    assert (code, [result for result, _ in rows.values()]) == (1, ["failed", "failed"])
    for part, names in (
        ("thrive API", (f"{THRIVE}TENANT_KEY", f"{THRIVE}BASE_URL")),
        ("sahha API", (f"{SAHHA}CLIENT_ID", f"{SAHHA}CLIENT_SECRET", f"{SAHHA}BASE_URL")),
    ):
        assert all(name in rows[part][1] for name in names)


async def test_half_of_a_pair_fails(project: Project) -> None:
    """A client id without its secret: what is missing is named, and nobody is asked."""
    code, rows = await check(project, **{f"{SAHHA}CLIENT_ID": "id"})
    assert (code, rows["sahha API"][0]) == (1, "failed")
    assert rows["sahha API"][1].startswith(f"{SAHHA}CLIENT_SECRET is not set")


async def test_a_platform_that_is_not_there_is_a_warning(project: Project) -> None:
    """The worker could run: address, setting and cause are told."""
    url = f"http://127.0.0.1:{free_port()}"
    code, rows = await check(project, **{f"{THRIVE}BASE_URL": url, f"{THRIVE}TENANT_KEY": KEY})
    detail = f"Thrive cannot be reached at {url} ({THRIVE}BASE_URL): connection refused"
    assert (code, rows) == (0, {"thrive API": ("warning", detail)})


async def test_an_address_with_a_path_too_many_is_a_warning(project: Project, sandbox: Sandbox) -> None:
    """Nothing is found below it, in nobody's words: the address is named."""
    longer = {f"{THRIVE}BASE_URL": f"{sandbox.url}/v1", f"{SAHHA}BASE_URL": f"{sandbox.url}/api/v1"}
    code, rows = await check(project, **(credentials(sandbox) | longer))
    assert (code, [result for result, _ in rows.values()]) == (0, ["warning", "warning"])
    assert f"{sandbox.url}/v1 ({THRIVE}BASE_URL)" in rows["thrive API"][1]
    assert f"{sandbox.url}/api/v1 ({SAHHA}BASE_URL)" in rows["sahha API"][1]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (web.json_response({"error": {"code": "queue_not_configured", "message": "x"}}, status=404), "ok"),
        (web.json_response({"error": {"code": "forbidden", "message": "x"}}, status=403), "ok"),
        (web.json_response({"detail": "Not Found"}, status=404), "warning"),
        (web.Response(text="<html>"), "warning"),
        (web.Response(status=302, headers={"location": "/login"}), "warning"),
        (web.Response(status=503, headers={"retry-after": "7"}), "warning"),
        (web.Response(status=401), "failed"),
    ],
    ids=["no queue", "forbidden", "stranger's 404", "stranger's page", "redirect", "busy", "unauthorized"],
)
async def test_what_thrive_may_answer(project: Project, answer: web.Response, result: str) -> None:
    """Only a reason of Thrive's own says that the key was looked at; one request is made, and only a GET."""
    async with scripted(answering(answer)) as server:
        code, rows = await check(project, **{f"{THRIVE}BASE_URL": server.url, f"{THRIVE}TENANT_KEY": KEY})
    assert (code, rows["thrive API"][0]) == (1 if result == "failed" else 0, result)
    assert [(seen.method, seen.headers["taih-tenant-key"]) for seen in server.requests] == [("GET", KEY)]
