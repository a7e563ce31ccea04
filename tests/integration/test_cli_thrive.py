"""`consumer thrive`: members, their care, tokens and keys."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from tests.integration.cli_platforms import CommandLine, command_line
from tests.servers.scripted import Seen, answering, scripted

if TYPE_CHECKING:
    from consumer.sandbox.server import Sandbox

commands = pytest.fixture(command_line)

KEY = "tenant-key-canary"


@pytest.fixture
def thrive(commands: CommandLine, sandbox: Sandbox) -> CommandLine:
    """A command line for the sandbox's Thrive."""
    commands.env |= {"CONSUMER_THRIVE__BASE_URL": sandbox.url, "CONSUMER_THRIVE__TENANT_KEY": sandbox.tenant_key}
    commands.secrets += [sandbox.tenant_key, sandbox.thrive_secret]
    return commands


async def test_a_member_lives_and_goes(thrive: CommandLine) -> None:
    """Created under an id of one's own, read, changed field by field, deleted: and then not there any more."""
    user = str(uuid.uuid4())
    made = await thrive.json("thrive", "members", "create", user, "--first-name", "Alex", "--email", "a@example.org")
    assert made["user_id"] == user
    changed = await thrive.json("thrive", "members", "update", user, "--set", "timezone=UTC", "--set", "weight=70.5")
    assert changed == {"user_id": user, "updated": ["timezone", "weight"]}
    profile = (await thrive.json("thrive", "members", "get", user))["profile"]
    assert (profile["timezone"], profile["weight"]) == ("UTC", 70.5)
    text = (await thrive.run("thrive", "health-profile", user)).stdout
    assert user in text
    refused = await thrive.failed("thrive", "members", "delete", user, code=2)
    assert "--yes" in refused
    done = await thrive.run("thrive", "members", "delete", user, "--yes")
    assert (done.exit_code, done.stdout) == (0, f"deleted {user}\n")
    gone = await thrive.failed("thrive", "members", "get", user)
    assert "HTTP 404, not_found" in gone
    assert user not in gone


async def test_an_id_is_made_up_when_none_is_given(thrive: CommandLine) -> None:
    """The answer says which."""
    made = await thrive.json("thrive", "members", "create")
    assert uuid.UUID(made["user_id"])


async def test_a_token_is_printed_on_purpose(thrive: CommandLine, sandbox: Sandbox) -> None:
    """The token alone, so that a shell can use it; with --json also how long it lives."""
    user = sandbox.world.members[0]
    result = await thrive.run("thrive", "token", user)
    token = result.stdout.removesuffix("\n")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == user
    assert result.stderr == ""
    whole = await thrive.json("thrive", "token", user)
    assert whole["expires_in"] == 3600
    assert whole["access_token"].count(".") == 2


async def test_lists_are_tables_and_stop_at_their_limit(thrive: CommandLine, sandbox: Sandbox) -> None:
    """Labs of a member: a row each, no more than asked for, a note where there are more; each can be shown."""
    user = sandbox.world.members[0]
    found = await thrive.json("thrive", "labs", "list", user)
    assert len(found) > 1
    table = await thrive.run("thrive", "labs", "list", user)
    lines = table.stdout.splitlines()
    assert lines[0] == "lab result id\tstatus\ttest date\tlab name"
    assert [line.split("\t")[0] for line in lines[1:]] == [row["lab_result_id"] for row in found]
    assert table.stderr == ""
    one = await thrive.run("thrive", "labs", "list", user, "--limit", "1")
    assert len(one.stdout.splitlines()) == 2
    assert one.stderr == "these are the first 1: there are more, see --limit\n"
    lab = await thrive.json("thrive", "labs", "get", user, found[0]["lab_result_id"])
    assert lab["lab_result_id"] == found[0]["lab_result_id"]
    none = await thrive.run("thrive", "labs", "list", user, "--status", "nothing-has-it")
    assert (none.exit_code, none.stdout, none.stderr) == (0, "", "no data\n")


async def test_a_report_is_uploaded(thrive: CommandLine, sandbox: Sandbox) -> None:
    """A document becomes a pending lab result; what is no document is refused before anything is sent."""
    user = sandbox.world.members[0]
    report = thrive.folder / "report.pdf"
    report.write_bytes(b"%PDF-1.4 toy")
    made = await thrive.json("thrive", "labs", "upload", user, str(report))
    assert made["status"] == "pending"
    assert (await thrive.json("thrive", "labs", "get", user, made["lab_result_id"]))["lab_result_id"]
    text = thrive.folder / "report.txt"
    text.touch()
    assert "FILE: expected" in await thrive.failed("thrive", "labs", "upload", user, str(text), code=2)


async def test_a_card_is_reported_as_it_may_be(thrive: CommandLine, sandbox: Sandbox) -> None:
    """From pending to opened to completed is taken; back to opened is refused, in Thrive's own words."""
    user, card = await pending_card(thrive, sandbox)
    done = await thrive.run("thrive", "cards", "report", user, card, "opened")
    assert (done.exit_code, done.stdout) == (0, f"reported {card} as opened\n")
    facts = await thrive.json("thrive", "cards", "report", user, card, "completed")
    assert facts == {"card_item_id": card, "interaction_status": "completed"}
    assert (await thrive.json("thrive", "cards", "get", user, card))["interaction_status"] == "completed"
    refused = (await thrive.failed("thrive", "cards", "report", user, card, "opened")).splitlines()
    assert refused[0].startswith("Error: PATCH /v1/users/{user_id}/cards/{card_item_id}: HTTP 422, validation_error")
    assert [line for line in refused if "completed cannot become opened" in line] == [refused[-1]]
    assert card not in "\n".join(refused)
    assert "Error: " in await thrive.failed("thrive", "cards", "report", user, card, "liked", code=2)


async def pending_card(thrive: CommandLine, sandbox: Sandbox) -> tuple[str, str]:
    """A member and a card nobody has opened."""
    for user in sandbox.world.members:
        cards = await thrive.json("thrive", "cards", "list", user, "--status", "pending")
        if cards:
            return user, cards[0]["card_item_id"]
    raise AssertionError("the sandbox has no pending card")


async def test_what_else_there_is_of_a_member(thrive: CommandLine, sandbox: Sandbox) -> None:
    """Each answers with JSON of its own, and as text."""
    user = sandbox.world.members[0]
    actions = await thrive.json("thrive", "health-actions", "list", user)
    action = actions[0]["health_action_id"]
    assert (await thrive.json("thrive", "health-actions", "get", user, action))["health_action_id"] == action
    assert (await thrive.json("thrive", "program", user))["program_id"]
    assert (await thrive.json("thrive", "priorities", user))[0]["user_priority_id"]
    assert (await thrive.json("thrive", "devices", "list", user))[0]["provider_slug"]
    ages = [await thrive.json("thrive", "bio-age", one) for one in sandbox.world.members]
    assert any(ages)
    for arguments in (("program", user), ("priorities", user), ("devices", "list", user)):
        result = await thrive.run("thrive", *arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout
    assert "HTTP 404" in await thrive.failed("thrive", "jobs", "get", user, str(uuid.uuid4()))


@pytest.mark.parametrize("key", ["tenant-key", "signing-secret"])
async def test_rotation_is_not_there_yet(thrive: CommandLine, key: str) -> None:
    """The documented 503 is said as what it means, at once."""
    told = await thrive.failed("thrive", "rotate", key)
    assert told == "Error: not available yet (Thrive answers 503, Retry-After 86400)\n"


async def test_a_new_key_is_shown_the_once_there_is_one(commands: CommandLine) -> None:
    """Once Thrive rotates, the only answer with the new key reaches standard output, whatever its field is called."""
    own = "0c" * 32
    commands.secrets += ["new-key-canary", own]
    secret = commands.folder / "secret"
    secret.write_text(f"{own}\n")
    answer = web.json_response({"data": {"new_tenant_api_key": "new-key-canary", "some_secret": "new-key-canary"}})
    async with scripted(answering(answer)) as server:
        commands.env |= {"CONSUMER_THRIVE__BASE_URL": server.url, "CONSUMER_THRIVE__TENANT_KEY": KEY}
        rotated = await commands.json("thrive", "rotate", "tenant-key", reveals=True)
        await commands.run("thrive", "rotate", "signing-secret", "--secret-file", str(secret), reveals=True)
    assert rotated["new_tenant_api_key"] == rotated["some_secret"] == "new-key-canary"
    assert own in server.requests[-1].body.decode()


async def test_without_a_key_nothing_is_called(commands: CommandLine) -> None:
    """One line that names the setting, exit code 2."""
    told = await commands.failed("thrive", "members", "get", "u1", code=2)
    assert told.startswith("Error: CONSUMER_THRIVE__TENANT_KEY is not set")
    assert told.count("\n") == 1


async def test_a_wrong_key_is_refused(thrive: CommandLine, sandbox: Sandbox) -> None:
    """401, with the platform's code, and the key nowhere."""
    told = await thrive.failed("thrive", "token", sandbox.world.members[0], env={"CONSUMER_THRIVE__TENANT_KEY": KEY})
    assert told.startswith("Error: POST /v1/auth/token: HTTP 401, unauthorized")
    assert "look at CONSUMER_THRIVE__TENANT_KEY, and whether CONSUMER_THRIVE__BASE_URL" in told.splitlines()[-1]
    assert KEY not in told


async def test_a_server_that_is_not_there_or_busy(commands: CommandLine) -> None:
    """Exit code 1, which call it was, and when to try again where the server says so."""
    env = {"CONSUMER_THRIVE__TENANT_KEY": KEY, "CONSUMER_THRIVE__HTTP__ATTEMPTS": "1"}
    async with scripted(answering(web.Response(status=503, headers={"retry-after": "90"}))) as server:
        commands.env |= env | {"CONSUMER_THRIVE__BASE_URL": server.url}
        told = await commands.failed("thrive", "token", "u1")
    assert told == "Error: Thrive is overloaded or out of order: POST /v1/auth/token: HTTP 503; try again in 1m30s\n"
    told = await commands.failed("thrive", "token", "u1")
    place = f"{server.url} (CONSUMER_THRIVE__BASE_URL)"
    assert told == f"Error: Thrive cannot be reached at {place}: connection refused\n"


async def test_what_a_server_says_cannot_steer_a_terminal(commands: CommandLine) -> None:
    """Control characters are spelt out, long texts cut, both in errors and in answers."""
    text = "\x1b]0;owned\x07" + "x" * 10_000

    def answer(seen: Seen) -> web.Response:
        if seen.target.startswith("/v1/auth"):
            token = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}
            return web.json_response({"data": token})
        if "bad" in seen.target:
            details = [{"field": "a\x1b[2J", "code": "c", "message": "m"}] * 50
            error = {"code": "invalid\x1b[2J", "message": text, "details": details, "request_id": "r\x1b[2J"}
            return web.json_response({"error": error}, status=400)
        return web.json_response({"data": {"user_id": "u1", "note": "\x1b[2J"}})

    async with scripted(answer) as server:
        commands.env |= {"CONSUMER_THRIVE__BASE_URL": server.url, "CONSUMER_THRIVE__TENANT_KEY": KEY}
        told = await commands.failed("thrive", "members", "get", "bad")
        good = await commands.run("thrive", "members", "get", "u1")
    assert "\x1b" not in told + good.stdout
    assert "\x07" not in told
    assert len(told) < 5000
    assert r"\x1b[2J" in good.stdout


@pytest.mark.parametrize("user_id", ["", "..", "a/../b"])
async def test_an_id_cannot_change_the_path(thrive: CommandLine, user_id: str) -> None:
    """Ids that no path can hold are wrong usage; others stay one segment."""
    result = await thrive.run("thrive", "members", "get", user_id)
    assert result.exit_code in {1, 2}
    assert (result.exit_code == 2) == (user_id in {"", ".."})


async def test_every_command_has_an_example(commands: CommandLine) -> None:
    """The help of each shows how it is used, and all answer with --json."""
    import click

    from consumer.cli.thrive import command

    def leaves(group: click.Group, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], click.Command]]:
        found = []
        for name, one in group.commands.items():
            found += leaves(one, (*path, name)) if isinstance(one, click.Group) else [((*path, name), one)]
        return found

    for path, one in leaves(command, ()):
        assert (one.epilog or "").startswith("Example: "), path
        assert {"as_json", "config"} <= {parameter.name for parameter in one.params}, path
        assert one.get_short_help_str(), path
