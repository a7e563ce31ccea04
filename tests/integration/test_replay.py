"""`consumer replay`: dead letters are handled again, once in effect, under the rules of the first time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyrage
import pytest

from consumer.database import Database
from consumer.dead_letters.record import encode
from consumer.dead_letters.sealing import sealer
from consumer.inbox import Inbox, event_key
from consumer.lanes import lane_of_user
from consumer.migrations import migrate
from consumer.parking import ParkedLanes
from tests.integration.cli_project import Project, assert_discreet, body, letter, opened_project, sign, stop

DAY = timedelta(days=1)

project = pytest.fixture(opened_project)


def test_replay_after_the_handler_was_mended(project: Project, tmp_path: Path) -> None:
    """What a broken handler put aside takes effect by a replay, and a second replay finds nothing to do."""
    (tmp_path / "bodies.jsonl").write_text("\n".join(body(number) for number in range(12)))
    assert project.run("publish", "labs", str(tmp_path / "bodies.jsonl")).exit_code == 0
    project.handlers("raise ValueError(event.model_extra['note'])")
    project.env["CONSUMER_MAX_ATTEMPTS"] = "1"
    assert project.run("run", "--until-idle", "--idle-after", "0.2s").exit_code == 0
    project.handlers("await keep(event, context)")
    assert project.replay()[1]["fates"] == {"handled": 12}
    assert sorted(project.effects()) == sorted(f"e{number}" for number in range(12))
    result = project.run("replay", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to replay" in result.stderr


def test_what_fails_stays(project: Project) -> None:
    """A line whose handler fails again is told of, gets no new dead letter and is tried again by the next replay."""
    project.put_aside(letter(1), letter(2))
    project.handlers("if event.event_id == 'e1':\n    raise ValueError(event.user_id)\nawait keep(event, context)")
    before = project.segment.read_bytes()
    result = project.run("replay", "--yes")
    assert result.exit_code == 1
    assert "failed\t1" in result.stdout
    assert "handled\t1" in result.stdout
    assert "ValueError" in result.stderr
    assert project.fates() == ["failed", "handled"]
    assert project.segment.read_bytes() == before
    assert len(list(project.segment.parent.glob("*.jsonl"))) == 1
    project.handlers("await keep(event, context)")
    assert project.replay() == (
        0,
        {"dry_run": False, "lines": 1, "fates": {"handled": 1}, "left": 0, "damaged": 0},
    )
    assert project.effects() == ["e2", "e1"]


def test_a_failing_line_does_not_make_the_fates_grow(project: Project) -> None:
    """The same fate is written once, however often the replay is repeated."""
    project.put_aside(letter(1))
    project.handlers("raise Retry")
    assert project.replay()[1]["fates"] == {"failed": 1}
    fates = project.files()["dead-letters/" + project.segment.name + ".fates"]
    assert project.replay()[1]["fates"] == {"failed": 1}
    assert project.files()["dead-letters/" + project.segment.name + ".fates"] == fates


def test_killed_in_the_middle(project: Project) -> None:
    """After a SIGKILL another replay finishes the work, and every event took effect once."""
    project.put_aside(*(letter(number) for number in range(60)))
    project.handlers("await asyncio.sleep(0.05)\nawait keep(event, context)")
    process = project.start("replay", "--yes")
    project.wait_for_effects(5)
    stop(process, signal.SIGKILL)
    assert len(project.effects()) < 60
    code, answer = project.replay()
    assert (code, answer["left"]) == (0, 0)
    assert sorted(project.effects()) == sorted(f"e{number}" for number in range(60))
    assert project.fates().count("handled") + project.fates().count("duplicate") == 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(project: Project, number: signal.Signals) -> None:
    """A signal ends the replay after the lines in hand: their fates are written, the exit code is 128 + its number."""
    project.put_aside(*(letter(number) for number in range(200)))
    project.handlers("await asyncio.sleep(0.2)\nawait keep(event, context)")
    process = project.start("replay", "--yes", "--json")
    project.wait_for_effects(2)
    code, output = stop(process, number)
    assert code == 128 + number
    done = len(project.effects())
    assert 2 <= done < 200
    assert project.fates() == ["handled"] * done
    assert f'"left": {200 - done}' in output


def test_only_proven_messages_are_handled(project: Project) -> None:
    """A message whose signature is wrong, or no message at all, stays what it was."""
    project.put_aside(
        letter(1, message=sign(body(1), secret="another"), reason="bad_signature"),
        letter(2, message=b"\xff nonsense", reason="unreadable"),
        letter(3, message=sign(body(3)).replace(b"lab.result", b"lab_result")),
        letter(4, message=body(4).encode(), reason="unsigned"),
    )
    code, answer = project.replay("--accept-stale")
    assert (code, answer["fates"]) == (1, {"bad_signature": 2, "unreadable": 1, "unsigned": 1})
    assert project.effects() == []


def test_age_is_judged_when_the_queue_accepted_the_message(project: Project) -> None:
    """A message that was fresh when its queue accepted it weeks ago is not stale now."""
    project.put_aside(letter(1, ago=30 * DAY))
    assert project.replay() == (0, {"dry_run": False, "lines": 1, "fates": {"handled": 1}, "left": 0, "damaged": 0})


def test_stale_lines_need_accept_stale(project: Project) -> None:
    """A message too old when it was accepted is handled only when that is asked for, and its signature still counts."""
    old = sign(body(1), ago=10 * DAY)
    project.put_aside(
        letter(1, message=old, reason="stale"),
        letter(2, message=sign(body(2), ago=10 * DAY), reason="unhandled"),  # redriven: its queue's clock began anew
        letter(3, message=old.replace(b"u1", b"u2"), reason="stale"),
    )
    assert project.replay() == (
        1,
        {"dry_run": False, "lines": 3, "fates": {"stale": 3}, "left": 0, "damaged": 0},
    )
    assert project.effects() == []
    assert project.replay("--accept-stale")[1]["fates"] == {"handled": 2, "bad_signature": 1}
    assert sorted(project.effects()) == ["e1", "e2"]


def test_older_than_the_inbox_remembers(project: Project) -> None:
    """What may have taken effect so long ago that the inbox forgot it is refused, by any of its times."""
    project.put_aside(
        letter(1, ago=91 * DAY),
        letter(2, message=sign(body(2), ago=91 * DAY), reason="stale"),  # an old one, captured and sent again
        letter(3, ago=61 * DAY),  # dead_letters.max_age
        letter(4, ago=59 * DAY),
        letter(5, accepted_at=datetime.now(UTC) - 91 * DAY),
    )
    code, answer = project.replay("--accept-stale")
    assert (code, answer["fates"]) == (1, {"handled": 1, "too_old": 4})
    assert project.effects() == ["e4"]
    longer = {"CONSUMER_INBOX__RETENTION": "forever", "CONSUMER_DEAD_LETTERS__MAX_AGE": "off"}
    assert project.replay("--accept-stale", env=longer)[1]["fates"] == {"handled": 4}


def test_what_took_effect_meanwhile_is_a_duplicate(project: Project, tmp_path: Path) -> None:
    """An event that was handled from elsewhere is done without its handler; another body under its id is refused."""
    (tmp_path / "one.json").write_text(body(1))
    project.run("publish", "labs", str(tmp_path / "one.json"))
    project.run("run", "--until-idle", "--idle-after", "0.2s")
    project.put_aside(letter(1), letter(2, message=sign(body(1, more="data"))))
    assert project.replay() == (
        1,
        {"dry_run": False, "lines": 2, "fates": {"conflicting_duplicate": 1, "duplicate": 1}, "left": 0, "damaged": 0},
    )
    assert project.effects() == ["e1"]


def test_sealed_lines(project: Project, tmp_path: Path) -> None:
    """Sealed lines are handled with the identity; without it, or with another, they are told of and stay."""
    identity = pyrage.x25519.Identity.generate()
    project.put_aside(letter(1), seal=sealer([str(identity.to_public())]))
    project.put_aside(letter(2))
    result = project.run("replay", "--yes")
    assert result.exit_code == 1
    assert "sealed\t1\tdead_letters.identity_file is not set" in result.stdout
    assert "dead_letters.identity_file" in result.stderr
    assert project.effects() == ["e2"]
    key = tmp_path / "key.txt"
    key.write_text(str(pyrage.x25519.Identity.generate()))
    env = {"CONSUMER_DEAD_LETTERS__IDENTITY_FILE": str(key)}
    assert project.replay(env=env)[1]["fates"] == {"sealed": 1}
    key.write_text(str(identity))
    assert project.replay("--user", "u1", env=env)[1]["fates"] == {"handled": 1}
    assert project.effects() == ["e2", "e1"]


def test_filters_choose(project: Project) -> None:
    """Only the chosen lines are replayed; a limit counts those that are not done yet."""
    project.put_aside(*(letter(number) for number in range(6)), letter(6, reason="rejected"))
    assert project.replay("--user", "u1")[1]["lines"] == 2
    assert project.replay("--reason", "rejected", "--type", "lab.*")[1]["lines"] == 1
    assert project.effects() == ["e1", "e4", "e6"]
    assert project.replay("--limit", "2")[1]["fates"] == {"handled": 2}
    assert project.replay("--limit", "2")[1]["fates"] == {"handled": 2}
    assert sorted(project.effects()) == [f"e{number}" for number in range(7)]


def test_paths_choose(project: Project, tmp_path: Path) -> None:
    """Segment files and folders given as PATHs are replayed in place of the store, their fates beside them."""
    project.put_aside(letter(1))
    other = tmp_path / "copy.jsonl"
    other.write_bytes(encode(letter(2)))
    assert project.replay(str(other))[1]["fates"] == {"handled": 1}
    assert project.effects() == ["e2"]
    assert project.replay(str(other), str(project.segment.parent))[1]["lines"] == 1
    assert project.effects() == ["e2", "e1"]


def test_dry_run_changes_nothing(project: Project) -> None:
    """A dry run says what each line would come to, by reason and type, and touches no file."""
    project.put_aside(letter(1), letter(2), letter(3, message=sign(body(3), ago=10 * DAY), reason="stale"))
    project.put_aside(letter(4, message=sign(body(4, event_type="coach.chat")), event_type="coach.chat"))
    before = project.files()
    code, answer = project.replay("--dry-run")
    assert code == 0
    assert answer["found"] == [
        {"reason": "attempts_exhausted", "event_type": "coach.chat", "prospect": "unknown_event", "lines": 1},
        {"reason": "attempts_exhausted", "event_type": "lab.result.ready", "prospect": "ready", "lines": 2},
        {"reason": "stale", "event_type": "lab.result.ready", "prospect": "stale", "lines": 1},
    ]
    assert project.files() == before
    shown = project.run("replay", "--dry-run")
    assert "ready" in shown.stdout
    assert "4 lines are meant; nothing was changed" in shown.stderr


def test_damaged_lines_are_told(project: Project) -> None:
    """A half-written last line is reported and is no failure, for its message was never acknowledged; any other is."""
    project.put_aside(letter(1))
    with project.segment.open("ab") as file:
        file.write(encode(letter(2))[:-40])
    result = project.run("replay", "--yes")
    assert (result.exit_code, project.effects()) == (0, ["e1"])
    assert result.stderr.startswith(f"{project.segment}:2: half-written last line\n")
    with project.segment.open("ab") as file:
        file.write(b"\n" + encode(letter(3)))
    code, answer = project.replay()
    assert (code, answer["damaged"], project.effects()) == (1, 1, ["e1", "e3"])


def test_doubled_lines_count_once(project: Project) -> None:
    """A line that a crash wrote twice is one line."""
    project.put_aside(letter(1), letter(1))
    assert project.replay()[1]["fates"] == {"handled": 1}
    assert project.replay()[1]["lines"] == 0


def test_one_event_under_two_ids_runs_once(project: Project) -> None:
    """Two dead letters of one event never run beside each other: the second waits, and finds the first one's effect."""
    twin = letter(1)
    project.put_aside(twin, letter(2, message=twin.message))
    ran = project.folder / "ran"
    project.handlers(
        f"with open({str(ran)!r}, 'a') as file: file.write('.')\nawait asyncio.sleep(0.1)\nawait keep(event, context)"
    )
    assert project.replay()[1]["fates"] == {"duplicate": 1, "handled": 1}
    assert ran.read_text() == "."


def test_lines_of_a_lane_keep_their_order(project: Project) -> None:
    """Dead letters of one ordering key run one after the other, as they were put aside; others run beside them."""
    project.put_aside(*(letter(number, lane="a" if number % 2 else None) for number in range(12)))
    project.handlers("await asyncio.sleep(0.3 / (1 + int(event.event_id[1:])))\nawait keep(event, context)")
    assert project.replay()[0] == 0
    lane = [identity for identity in project.effects() if int(identity[1:]) % 2]
    assert lane == ["e1", "e3", "e5", "e7", "e9", "e11"]


async def _inbox(project: Project) -> tuple[Database, Inbox]:
    database = Database(project.env["CONSUMER_DATABASE__URL"])
    await database.open()
    await migrate(database)
    return database, Inbox(database)


def test_a_replay_opens_a_parked_lane(project: Project) -> None:
    """A lane parked behind its dead letter is opened once that is done, and only then."""
    project.env["CONSUMER_SOURCES__LABS__LANE_ON_DEAD_LETTER"] = "park"
    project.put_aside(letter(1, lane="a"), letter(2, lane="b", message=b"nonsense"))

    async def park() -> None:
        database, inbox = await _inbox(project)
        for lane in ("a", "b"):
            await ParkedLanes(inbox, "labs").park(lane)
        await database.close()

    async def held() -> list[bool]:
        database, inbox = await _inbox(project)
        found = [await ParkedLanes(inbox, "labs").holds(lane) for lane in ("a", "b")]
        await database.close()
        return found

    asyncio.run(park())
    assert project.replay()[0] == 1
    assert asyncio.run(held()) == [False, True]


_MEMBERS_IN_ORDER = {
    "CONSUMER_SOURCES__LABS__KIND": "event_hubs",
    "CONSUMER_SOURCES__LABS__ORDER_BY": "member",
    "CONSUMER_SOURCES__LABS__NAMESPACE": "nowhere.example",
    "CONSUMER_SOURCES__LABS__EVENT_HUB": "labs",
    "CONSUMER_SOURCES__LABS__CHECKPOINTS__ACCOUNT_URL": "https://nowhere.example",
    "CONSUMER_SOURCES__LABS__CHECKPOINTS__CONTAINER": "checkpoints",
}


def test_a_replay_opens_a_parked_lane_of_a_member(project: Project) -> None:
    """With order_by = member, a lane is the member's: that of the whole message, which an array's part may not name."""
    project.env["CONSUMER_SOURCES__LABS__LANE_ON_DEAD_LETTER"] = "park"
    project.env |= _MEMBERS_IN_ORDER
    del project.env["CONSUMER_SOURCES__LABS__PATH"]
    project.handlers(
        "await asyncio.sleep(0.2 if event.event_id == 'e1' else 0)\n"
        "if event.event_id == 'e3': raise ValueError\n"
        "await keep(event, context)"
    )
    part = letter(2)
    part.attributes["lane"] = lane_of_user("first of the array")  # type: ignore[index] # a dict, as the writer makes it
    project.put_aside(letter(1, lane="a broker's key"), part, letter(3), letter(4))
    members = ["u1", "u2", "u0", "first of the array"]

    async def park() -> None:
        database, inbox = await _inbox(project)
        for member in members:
            await ParkedLanes(inbox, "labs").park(lane_of_user(member))
        await database.close()

    async def held() -> list[bool]:
        database, inbox = await _inbox(project)
        found = [await ParkedLanes(inbox, "labs").holds(lane_of_user(member)) for member in members]
        await database.close()
        return found

    asyncio.run(park())
    assert project.replay()[1]["fates"] == {"failed": 1, "handled": 3}
    assert asyncio.run(held()) == [False, True, True, False]
    assert project.effects() == ["e2", "e1", "e4"], "both of u1 in their order"


def test_a_member_of_a_delivery_still_open(project: Project) -> None:
    """What was put aside while the rest of its delivery is still tried is no duplicate to a replay."""

    async def mark() -> None:
        database, inbox = await _inbox(project)
        await inbox.mark_dead_lettered([event_key("", "thrive", "e1")])
        await inbox.record_failures([event_key("", "thrive", "e2")])
        await database.close()

    asyncio.run(mark())
    project.put_aside(letter(1), letter(2))
    assert project.replay()[1]["fates"] == {"handled": 2}


def test_trouble_of_our_own_stops(project: Project) -> None:
    """When what handlers depend on stays away the replay stops, says why and how many lines are left, blaming none."""
    project.put_aside(*(letter(number) for number in range(30)))
    project.handlers("raise Unavailable(why='GET /v1/users: HTTP 503')")
    result = project.run("replay", "--yes")
    assert result.exit_code == 1
    assert result.stderr.endswith("(Unavailable: GET /v1/users: HTTP 503): 30 lines are left\n")
    assert project.fates() == []


def test_unavailable_for_a_moment_is_waited_out(project: Project) -> None:
    """A handler's Unavailable that passes fails no line and stops nothing."""
    project.put_aside(letter(1))
    gone = project.folder / "gone"
    gone.touch()
    project.handlers(
        f"gone = pathlib.Path({str(gone)!r})\n"
        "if gone.exists():\n    gone.unlink()\n    raise Unavailable(0.1)\nawait keep(event, context)"
    )
    assert project.replay()[1]["fates"] == {"handled": 1}


def test_database_gone(project: Project) -> None:
    """Without its database a replay is one clear line and exit code 1."""
    project.put_aside(letter(1))
    env = {"CONSUMER_DATABASE__URL": "postgresql://u:p@127.0.0.1:9/x", "CONSUMER_LOG__LEVEL": "error"}
    result = project.run("replay", "--yes", env=env)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1


def test_fates_that_cannot_be_written(project: Project) -> None:
    """A fate that cannot be written ends the replay; what took effect is a duplicate the next time."""
    project.put_aside(letter(1))
    obstacle = project.segment.with_name(project.segment.name + ".fates")
    obstacle.mkdir()
    result = project.run("replay", "--yes")
    assert (result.exit_code, project.effects()) == (1, [])
    obstacle.rmdir()
    assert project.replay()[0] == 0
    assert project.effects() == ["e1"]


def test_asks_on_a_terminal_only(project: Project) -> None:
    """Without a terminal to ask at, and without --yes, nothing is replayed: wrong usage."""
    project.put_aside(letter(1))
    result = project.run("replay")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert project.fates() == []


@pytest.mark.parametrize(("said", "code", "effects"), [("n", 1, []), ("y", 0, ["e1", "e2"])])
def test_asks_first_on_a_terminal(project: Project, said: str, code: int, effects: list[str]) -> None:
    """On a terminal it asks, with the number of lines, and does what it is told."""
    project.put_aside(letter(1), letter(2))
    ours, theirs = pty.openpty()
    process = project.start("replay", stdin=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while b"replay 2 lines?" not in shown:
        shown += os.read(ours, 1024)
    os.write(ours, f"{said}\n".encode())
    with contextlib.suppress(OSError):  # what a terminal says when nobody writes to it any more
        while piece := os.read(ours, 1024):
            shown += piece
    out, _ = process.communicate(timeout=30)
    os.close(ours)
    assert_discreet(out + shown.decode())
    assert (process.returncode, sorted(project.effects())) == (code, effects)


def test_unknown_source(project: Project) -> None:
    """Lines of a source that is not configured stay, and are told of."""
    project.put_aside(letter(1, source="gone"), letter(2))
    assert project.replay()[1]["fates"] == {"handled": 1, "no_source": 1}


def test_wrong_settings(project: Project, tmp_path: Path) -> None:
    """What is wrong with the settings is one line and exit code 2, before anything is touched."""
    project.put_aside(letter(1))
    before = project.files()
    for env in (
        {"CONSUMER_THRIVE__SIGNATURE__SECRETS_FILE": "none"},
        {"CONSUMER_HANDLERS": "no_such_module"},
        {"CONSUMER_DEAD_LETTERS__IDENTITY_FILE": str(tmp_path / "none")},
    ):
        assert project.run("replay", "--yes", env=env).exit_code == 2
    assert project.run("replay", "--yes", str(tmp_path / "none.jsonl")).exit_code == 2
    assert project.files() == before


def test_a_lifespan_that_fails(project: Project) -> None:
    """A lifespan that raises is one line without its text."""
    project.put_aside(letter(1))
    project.handlers(
        module="from contextlib import asynccontextmanager\nfrom consumer import DispatchTable\n"
        "@asynccontextmanager\nasync def pool():\n    raise OSError('glucose-5.4-canary')\n    yield\n"
        "table = DispatchTable(lifespan=pool)\n"
    )
    result = project.run("replay", "--yes")
    assert result.exit_code == 2
    assert "the lifespan raised OSError" in result.stderr


def test_help_has_an_example(project: Project) -> None:
    """The help shows how it is used."""
    result = project.run("replay", "--help")
    assert result.exit_code == 0
    assert "Example: consumer replay" in result.stdout


def test_answers_are_json(project: Project) -> None:
    """With --json the answer alone is on standard output."""
    project.put_aside(letter(1, reason="rejected"))
    assert json.loads(project.run("replay", "--yes", "--json").stdout)["fates"] == {"handled": 1}
