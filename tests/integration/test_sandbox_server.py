"""`consumer sandbox` as a person starts it: the project beside it, keys over a restart, its end, and its refusals."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from consumer.app import build_signature, load_table
from consumer.cli import main
from consumer.errors import SettingsError
from consumer.sandbox.credentials import Credentials
from consumer.sandbox.kept import next_start
from consumer.sandbox.options import SandboxOptions
from consumer.sandbox.project import kept_project, write_sandbox_project
from consumer.sandbox.server import serve_sandbox
from consumer.settings_loading import load_settings

ROOT = Path(__file__).parents[2]


def ran(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["sandbox", *arguments])
    return result.exit_code, result.output


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, once it says what to do next; and its URL."""
    command = [sys.executable, "-m", "consumer", "sandbox", "project", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
            assert found is not None, process.stderr.read() if process.stderr else ""
            while "Next" not in process.stdout.readline():
                pass
            yield process, found[0]
        finally:
            if process.poll() is None:
                process.kill()


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    return process.returncode, errors


async def test_it_writes_a_project_that_reaches_it_keeps_its_keys_and_ends_cleanly(tmp_path: Path):
    with started(tmp_path, "--port", "0", "--rate", "0") as (process, url):
        project = tmp_path / "project"
        first = (project / "consumer.toml").read_text()
        settings = load_settings(config=project / "consumer.toml", env={}, cwd=project).settings
        assert settings.thrive.base_url == settings.sahha.base_url == url
        assert settings.thrive.tenant_key is not None
        headers = {"taih-tenant-key": settings.thrive.tenant_key.get_secret_value()}
        async with aiohttp.ClientSession(url) as session:
            member = (await (await session.get("/sandbox")).json())["members"][0]
            async with session.post("/v1/auth/token", headers=headers, json={"user_id": member}) as response:
                assert response.status == 200
        code, errors = ended(process, signal.SIGTERM)
        assert (code, errors) == (0, "")
        assert (project / "secrets" / "starts").read_text() == "0\n"
    with started(tmp_path) as (process, again):
        assert again == url
        assert (project / "secrets" / "starts").read_text() == "1\n"
        assert (project / "consumer.toml").read_text() == first
        async with (
            aiohttp.ClientSession(again) as session,
            session.post("/v1/auth/token", headers=headers, json={"user_id": member}) as response,
        ):
            assert response.status == 200
        assert ended(process, signal.SIGINT)[0] == 0


def test_the_project_s_secrets_are_its_owner_s_alone_and_its_handlers_work(tmp_path: Path):
    folder = tmp_path / "new"
    credentials = Credentials.new()
    write_sandbox_project(folder, url="http://127.0.0.1:8090", credentials=credentials)
    for name in ("consumer.toml", "secrets/thrive", "secrets/sahha", "secrets/starts"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    kept = kept_project(folder)
    assert kept is not None
    assert kept.credentials == credentials
    assert kept.port == 8090
    settings = load_settings(config=folder / "consumer.toml", env={}, cwd=folder).settings
    settings.validate_timers()
    assert build_signature(settings.source("events"))
    assert settings.source("webhooks").provider == "sahha"
    assert (folder / "handlers" / "__init__.py").is_file()
    assert load_table("handlers", ROOT).event_types


def test_its_readme_is_about_the_sandbox_unless_there_is_one(tmp_path: Path):
    write_sandbox_project(tmp_path / "new", url="http://127.0.0.1:8099", credentials=Credentials.new())
    text = (tmp_path / "new" / "README.md").read_text()
    for named in ("curl http://127.0.0.1:8099/sandbox", "consumer relay", "consumer run", "dead-letters list"):
        assert named in text
    assert "$" not in text
    (tmp_path / "README.md").write_text("mine\n")
    write_sandbox_project(tmp_path, url="http://127.0.0.1:8099", credentials=Credentials.new())
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_starts_are_counted_and_a_lost_count_begins_where_none_was(tmp_path: Path):
    file = tmp_path / "starts"
    file.write_text("0\n")
    assert [next_start(file), next_start(file)] == [1, 2]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for lost in ("", "many"):
        file.write_text(lost)
        assert next_start(file) > 1_700_000_000
    file.unlink()
    first = next_start(file)
    assert first > 1_700_000_000
    assert next_start(file) == first + 1
    assert next_start(file / "below") > 1_700_000_000


def test_the_settings_of_something_else_are_not_taken(tmp_path: Path):
    real = (
        '[thrive]\nbase_url = "production"\ntenant_key = "a-real-key"\n[thrive.signature]\nsecrets = "a-real-secret"\n'
    )
    (tmp_path / "consumer.toml").write_text(real)
    code, output = ran(str(tmp_path))
    assert code == 2
    assert "not this machine" in output
    assert "a-real" not in output
    assert (tmp_path / "consumer.toml").read_text() == real


def test_a_project_without_its_keys_is_refused_by_their_name(tmp_path: Path):
    (tmp_path / "consumer.toml").write_text('[thrive]\nbase_url = "http://127.0.0.1:8090"\n')
    code, output = ran(str(tmp_path))
    assert code == 2
    assert "tenant_key is missing" in output


def test_what_is_in_the_way_is_not_overwritten(tmp_path: Path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "thrive").write_text("mine\n")
    code, output = ran(str(tmp_path), "--port", "0")
    assert code == 1
    assert "in the way" in output
    assert (tmp_path / "secrets" / "thrive").read_text() == "mine\n"
    assert not (tmp_path / "consumer.toml").exists()


def test_an_address_that_others_reach_needs_a_word_of_consent(tmp_path: Path):
    code, output = ran(str(tmp_path / "new"), "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "--expose" in output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/sandbox/tokens/expire", {"Origin": "http://page.example"}),
        ("/sandbox/secrets/rotate", {"Origin": "null"}),
        ("/sandbox/webhooks/test", {"Sec-Fetch-Site": "cross-site"}),
        ("/sandbox/webhooks/test", {"Origin": "http://127.0.0.1:1"}),
        ("/sandbox/tokens/expire", {"Host": "page.example:8090", "Origin": "http://page.example:8090"}),
        ("/v1/auth/token", {"Host": "127.0.0.1.page.example"}),
        ("/sandbox/tokens/expire", {"Host": "["}),
    ],
)
async def test_no_web_page_can_use_it(path: str, headers: dict[str, str]):
    """Neither one of another origin nor one whose name leads here; what is no browser need not say anything."""
    async with serve_sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        before = sandbox.thrive_secret
        async with session.post(path, headers=headers) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (403, "forbidden")
        async with session.get("/sandbox/secrets", headers=headers) as response:
            assert response.status == 403
        assert sandbox.thrive_secret == before
        for own in ({}, {"Origin": sandbox.url, "Sec-Fetch-Site": "same-origin"}, {"Host": "localhost:99"}):
            async with session.post("/sandbox/tokens/expire", headers=own) as response:
                assert response.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://page.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ({"Referer": "http://page.example/"}, 415),
        ({"Sec-Fetch-Mode": "navigate"}, 415),
        ({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:60.0) Gecko/20100101 Firefox/60.0"}, 415),
        ({"User-Agent": "curl/8.5.0"}, 200),
    ],
)
async def test_no_form_of_a_web_page_is_taken_for_a_control(kind: str, headers: dict[str, str], status: int):
    """A form can be sent anywhere, as `text/plain` with JSON in it; old browsers send it without an origin."""
    async with serve_sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        sent = {**headers, "Content-Type": kind}
        async with session.post("/sandbox/faults", data='{"path": "/v1", "latency": 1}', headers=sent) as response:
            assert response.status == status
        assert bool(sandbox.parts.faults.rules) == (status == 200)


async def test_one_that_others_may_reach_has_any_name():
    async with serve_sandbox(SandboxOptions(expose=True)) as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        for headers, status in (({"Host": "sandbox:8090"}, 200), ({"Origin": "http://page.example"}, 403)):
            async with session.get("/sandbox", headers=headers) as response:
                assert response.status == status


async def test_a_port_in_use_is_one_line(tmp_path: Path):
    async with serve_sandbox() as sandbox:
        with pytest.raises(SettingsError, match="cannot listen on"):
            async with serve_sandbox(SandboxOptions(port=sandbox.port)):
                pass


async def test_no_id_and_no_key_is_logged_even_when_a_handler_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from consumer.ops.logs import configure_logging
    from consumer.sandbox.world import World

    def broken(*_: object) -> None:
        raise ValueError("secret-in-the-text")

    configure_logging(form="json")
    async with serve_sandbox() as sandbox, aiohttp.ClientSession(sandbox.url) as session:
        monkeypatch.setattr(World, "__contains__", broken)
        member = sandbox.world.members[0]
        headers = {"taih-tenant-key": sandbox.tenant_key}
        async with session.post("/v1/auth/token", headers=headers, json={"user_id": member}) as response:
            assert response.status == 500
            text = await response.text()
    shown = capfd.readouterr().err
    assert "sandbox_failed" in shown
    for hidden in (member, sandbox.tenant_key, "secret-in-the-text"):
        assert hidden not in shown + text


async def test_it_stops_at_once_with_work_in_hand():
    async with serve_sandbox(SandboxOptions(speed=1.0, rate=100.0)) as sandbox:
        sandbox.thrive.start_job(next(iter(sandbox.world)))
        started_at = time.monotonic()
    assert time.monotonic() - started_at < 2
