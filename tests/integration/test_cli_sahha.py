"""`consumer sahha`: profiles, what is known of them, and uploads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from tests.integration.cli_platforms import CommandLine, command_line
from tests.servers.scripted import Seen, answering, scripted

if TYPE_CHECKING:
    from consumer.sandbox.server import Sandbox

commands = pytest.fixture(command_line)


@pytest.fixture
def sahha(commands: CommandLine, sandbox: Sandbox) -> CommandLine:
    """A command line for the sandbox's Sahha."""
    keys = sandbox.sahha
    commands.env |= {
        "CONSUMER_SAHHA__BASE_URL": sandbox.url,
        "CONSUMER_SAHHA__CLIENT_ID": keys.client_id,
        "CONSUMER_SAHHA__CLIENT_SECRET": keys.client_secret,
        "CONSUMER_SAHHA__APP_ID": keys.app_id,
        "CONSUMER_SAHHA__APP_SECRET": keys.app_secret,
    }
    commands.secrets += [keys.client_secret, keys.app_secret, keys.webhook_secret]
    return commands


@pytest.fixture
def member(sandbox: Sandbox) -> str:
    """One of the sandbox's members, whose id is Sahha's external id."""
    return sandbox.world.members[0]


def reading(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"r{number}",
        "logType": "activity",
        "dataType": "steps",
        "value": number,
        "unit": "count",
        "startDateTime": "2026-03-16T08:00:00+00:00",
        "endDateTime": "2026-03-16T09:00:00+00:00",
    } | more


async def test_tokens_are_printed_on_purpose(sahha: CommandLine, member: str) -> None:
    """An account's and a profile's, alone so that a shell can use them; with --json all of the answer."""
    for arguments in (("token",), ("profiles", "token", member)):
        result = await sahha.run("sahha", *arguments)
        assert result.stdout.count(".") == 2
        assert (result.stdout.count("\n"), result.stderr) == (1, "")
    assert (await sahha.json("sahha", "token"))["expiresIn"] == 86400
    assert (await sahha.json("sahha", "profiles", "token", member, "--lifetime", "3600"))["expiresIn"] == 3600


@pytest.mark.parametrize("way", [(), ("--by-app",)])
async def test_a_profile_lives_and_goes(sahha: CommandLine, way: tuple[str, ...]) -> None:
    """Registered, found, deleted, gone; its tokens show only when asked for, and the refresh token gets another."""
    done = await sahha.run("sahha", "profiles", "register", "user-1", *way)
    assert (done.exit_code, done.stdout) == (0, "registered user-1\n")
    tokens = await sahha.json("sahha", "profiles", "register", "user-2", "--reveal", *way)
    assert tokens["profileToken"].count(".") == 2
    (sahha.folder / "refresh").write_text(tokens["refreshToken"])
    (sahha.folder / "token").write_text(tokens["profileToken"] + "\n")
    refresh = ("sahha", "profiles", "refresh", "refresh", "--profile-token-file", "token")
    assert (await sahha.json(*refresh))["profileToken"].count(".") == 2
    assert (await sahha.json("sahha", "profiles", "get", "user-1"))["externalId"] == "user-1"
    found = await sahha.json("sahha", "profiles", "search", "user-")
    assert sorted(profile["externalId"] for profile in found) == ["user-1", "user-2"]
    assert "--yes" in await sahha.failed("sahha", "profiles", "delete", "user-1", code=2)
    gone = await sahha.run("sahha", "profiles", "delete", "user-1", "user-2", "--yes")
    assert (gone.exit_code, gone.stdout) == (0, "deleted user-1, user-2\n")
    told = await sahha.failed("sahha", "profiles", "get", "user-1")
    assert told.startswith("Error: GET /api/v1/account/profile/{external_id}: HTTP 4")
    assert "user-1" not in told.splitlines()[0]


async def test_a_refresh_token_is_read_from_standard_input(sahha: CommandLine) -> None:
    """It is never an argument: what is one has to be a file."""
    tokens = await sahha.json("sahha", "profiles", "register", "user-1", "--reveal")
    (sahha.folder / "token").write_text(tokens["profileToken"])
    refresh = ("sahha", "profiles", "refresh")
    result = await sahha.run(*refresh, "-", "--profile-token-file", "token", stdin=tokens["refreshToken"] + "\n")
    assert result.exit_code == 0
    assert result.stdout.count(".") == 2
    assert (await sahha.run(*refresh, "no-such-file")).exit_code == 2


async def test_an_id_in_use_is_refused(sahha: CommandLine, member: str) -> None:
    """Sahha's own words, below the call and its status."""
    told = (await sahha.failed("sahha", "profiles", "register", member)).splitlines()
    assert told[0] == "Error: POST /api/v1/oauth/profile/register: HTTP 400"
    assert told[1].startswith("  ")


async def test_what_is_known_of_a_profile(sahha: CommandLine, member: str) -> None:
    """Scores, biomarkers, archetypes, trends and comparisons: tables for people, everything for programs."""
    for name, first in (
        ("scores", "type"),
        ("biomarkers", "category"),
        ("archetypes", "name"),
        ("trends", "category"),
        ("comparisons", "category"),
    ):
        found = await sahha.json("sahha", name, member)
        assert found, name
        table = (await sahha.run("sahha", name, member)).stdout.splitlines()
        assert table[0].startswith(f"{first}\t")
        assert len(table) == min(len(found), 100) + 1


async def test_lists_are_narrowed(sahha: CommandLine, member: str) -> None:
    """By type, category, name and time; options that may be repeated are."""
    types = await sahha.json("sahha", "scores", member, "--type", "sleep", "--type", "activity")
    assert {score["type"] for score in types} == {"sleep", "activity"}
    categories = await sahha.json("sahha", "biomarkers", member, "--category", "sleep")
    assert {biomarker["category"] for biomarker in categories} == {"sleep"}
    one = await sahha.run("sahha", "scores", member, "--limit", "1")
    assert len(one.stdout.splitlines()) == 2
    assert "--limit" in one.stderr
    past = await sahha.run("sahha", "scores", member, "--start", "2001-01-01", "--end", "2001-01-02T00:00:00Z")
    assert (past.exit_code, past.stdout, past.stderr) == (0, "", "no data\n")
    assert "offset" in await sahha.failed("sahha", "scores", member, "--start", "2026-03-16T08:00", code=2)


async def test_demographics_and_device(sahha: CommandLine, member: str) -> None:
    """Replaced from a file, changed field by field, read back; nothing to send is wrong usage."""
    (sahha.folder / "person.json").write_text(json.dumps({"gender": "Female", "country": "NZ"}))
    put = await sahha.run("sahha", "demographics", "put", member, "person.json", "--set", "age=40")
    assert (put.exit_code, put.stdout) == (0, f"updated {member}\n")
    patched = await sahha.json("sahha", "demographics", "patch", member, "--set", "country=AU")
    assert patched == {"externalId": member, "updated": ["country"]}
    known = await sahha.json("sahha", "demographics", "get", member)
    assert (known["gender"], known["country"], known["age"]) == ("Female", "AU", 40)
    device = ("--set", "timeZone=+12:00", "--set", "sdkId=ios_swift", "--set", "system=iOS")
    assert (await sahha.run("sahha", "device", "put", member, *device)).exit_code == 0
    assert (await sahha.json("sahha", "device", "get", member))["timeZone"] == "+12:00"
    assert "--set" in await sahha.failed("sahha", "demographics", "put", member, code=2)


async def test_nothing_known_is_not_an_error(sahha: CommandLine) -> None:
    """No demographics, no scores: an empty answer, and exit code 0."""
    await sahha.run("sahha", "profiles", "register", "user-1")
    assert await sahha.json("sahha", "demographics", "get", "user-1") is None
    assert await sahha.json("sahha", "scores", "user-1") == []
    assert (await sahha.run("sahha", "device", "get", "user-1")).stderr == "no data\n"


@pytest.mark.parametrize("form", ["array", "lines"])
async def test_readings_are_uploaded(sahha: CommandLine, member: str, form: str) -> None:
    """An array, or one reading a line, from a file or standard input."""
    items = [reading(number) for number in range(70)]
    text = json.dumps(items) if form == "array" else "\n".join(map(json.dumps, items))
    (sahha.folder / "steps").write_text(text)
    done = await sahha.json("sahha", "logs", "upload", "steps", "--profile", member)
    assert done == {"externalId": member, "uploaded": 70}
    piped = await sahha.run("sahha", "logs", "upload", "-", "--profile", member, stdin=json.dumps([reading(1)]))
    assert piped.stdout == f"1 reading uploaded for {member}\n"
    assert (await sahha.run("sahha", "logs", "upload", "steps")).exit_code == 2


async def test_a_reading_that_lacks_something_is_named(sahha: CommandLine, member: str) -> None:
    """By its place and field, not by what it says; nothing is sent."""
    (sahha.folder / "steps.jsonl").write_text(json.dumps(reading(1)) + "\n" + json.dumps(reading(2, dataType="")))
    told = await sahha.failed("sahha", "logs", "upload", "steps.jsonl", "--profile", member, code=2)
    assert told.startswith("Error: item 1: dataType: ")
    assert "count" not in told


async def test_an_upload_that_breaks_off_says_how_far_it_came(commands: CommandLine) -> None:
    """Batches before the one that failed stay uploaded, so their number is told."""
    sent = 0

    def answer(seen: Seen) -> web.Response:
        nonlocal sent
        if seen.target.startswith("/api/v1/oauth"):
            return web.json_response({"accountToken": "a", "profileToken": "p", "expiresIn": 86400})
        sent += 1
        return web.Response(status=200) if sent == 1 else web.json_response({"message": "no"}, status=400)

    (commands.folder / "steps.json").write_text(json.dumps([reading(number) for number in range(100)]))
    async with scripted(answer) as server:
        commands.env |= {
            "CONSUMER_SAHHA__BASE_URL": server.url,
            "CONSUMER_SAHHA__CLIENT_ID": "c",
            "CONSUMER_SAHHA__CLIENT_SECRET": "client-secret-canary",
        }
        commands.secrets.append("client-secret-canary")
        told = await commands.failed("sahha", "logs", "upload", "steps.json", "--profile", "u")
    assert told == "Error: POST /api/v1/profile/data/log: HTTP 400\n  no\n(60 of 100 were uploaded before)\n"


async def test_without_credentials_nothing_is_called(commands: CommandLine) -> None:
    """One line that names the setting, exit code 2; so too for the app's credentials."""
    told = await commands.failed("sahha", "token", code=2)
    assert "CONSUMER_SAHHA__CLIENT_ID" in told
    assert told.count("\n") == 1
    assert "CONSUMER_SAHHA__APP_" in await commands.failed("sahha", "profiles", "register", "u", "--by-app", code=2)


async def test_an_answer_that_cannot_be_read(commands: CommandLine) -> None:
    """Neither a traceback nor the answer shows."""
    async with scripted(answering(web.Response(text="<html>health</html>"))) as server:
        commands.env |= {
            "CONSUMER_SAHHA__BASE_URL": server.url,
            "CONSUMER_SAHHA__CLIENT_ID": "c",
            "CONSUMER_SAHHA__CLIENT_SECRET": "s",
        }
        told = await commands.failed("sahha", "token")
    assert told == "Error: POST /api/v1/oauth/account/token: HTTP 200, unreadable_answer\n"


async def test_every_command_has_an_example(commands: CommandLine) -> None:
    """The help of each shows how it is used, and all answer with --json."""
    import click

    from consumer.cli.sahha import command

    def leaves(group: click.Group, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
        found = []
        for name, one in group.commands.items():
            found += leaves(one, (*path, name)) if isinstance(one, click.Group) else [((*path, name), one)]
        return found

    for path, one in leaves(command, ()):
        assert (one.epilog or "").startswith("Example: "), path
        assert {"as_json", "config"} <= {parameter.name for parameter in one.params}, path
