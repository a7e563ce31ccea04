"""`consumer forget`: nothing of a member is left where worker and shipped handlers keep it, and all of others'."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyrage
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Table, func, insert, select, update

from consumer import database as database_module
from consumer.cli import main
from consumer.database import Database
from consumer.dead_letters.file_fates import record_fates
from consumer.dead_letters.record import DeadLetter, encode, record_id
from consumer.dead_letters.sealing import sealer
from consumer.dead_letters.segments import Segment
from consumer.envelope import wrap_neutral
from consumer.inbox import Inbox, InboxRow
from consumer.lanes import lane_of_user
from consumer.migrations import create_tables, migrate
from consumer.parking import ParkedLanes
from consumer.signatures import SahhaSignature, ThriveSignature
from handlers.tables import metadata

ROOT = Path(__file__).parents[2]
MEMBER, OTHER, PROFILE = "member-b81f2d", "member-b81f2d0", "profile-7730aa"
CANARY = "canary-9c"
SECRET = "signing-secret-canary"
NOW = datetime.now(UTC)
VALUES: Mapping[type, Any] = {str: CANARY, int: 7, float: 7.5, bool: True, date: NOW.date(), object: NOW}


class Kept:
    """A folder with a configured worker's database and dead letters; its handlers are the shipped ones."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder / "kept"
        self.folder.mkdir()
        self.url = url.replace(str(folder), str(self.folder))
        self.segment = self.folder / "dead-letters" / "20260101T000000.000000Z-1-aa.jsonl"
        self.env = {
            "CONSUMER_SOURCES__LABS__KIND": "local",
            "CONSUMER_SOURCES__LABS__PATH": str(self.folder / "queue.db"),
            "CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRET,
            "CONSUMER_DATABASE__URL": self.url,
            "CONSUMER_DEAD_LETTERS__PATH": str(self.segment.parent),
            "CONSUMER_APP_DIR": str(ROOT),
            "CONSUMER_LOG__FORMAT": "json",
        }

    def run(self, *arguments: str, user_id: str = "-", stdin: str | bytes | None = f"{MEMBER}\n") -> Result:
        """Forget the member, named on standard input unless said otherwise; no output ever names them."""
        result = CliRunner().invoke(main, ["forget", *arguments, user_id], env=self.env, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        for secret in (MEMBER, PROFILE, CANARY, SECRET):
            assert secret not in result.output
        return result

    def forget(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the answer."""
        result = self.run("--json", *([] if "--dry-run" in arguments else ["--yes"]), *arguments)
        assert result.stdout, result.stderr
        return result.exit_code, json.loads(result.stdout)

    def put_aside(self, *lines: bytes) -> None:
        """Add lines to the one segment."""
        self.segment.parent.mkdir(exist_ok=True)
        with self.segment.open("ab") as file:
            file.writelines(lines)

    def found(self, *needles: str) -> list[str]:
        """The files, of all there are, that hold any of these bytes."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return sorted(path.name for path in files if any(one.encode() in path.read_bytes() for one in needles))

    async def prepare(self) -> Database:
        """The database, migrated and with the handlers' tables."""
        database = Database(self.url)
        await database.open()
        await migrate(database)
        await create_tables(database, [metadata])
        return database

    def fill(self, *members: str) -> None:
        """Put a row of each member into every table of the health store, and change each once."""

        async def fill() -> None:
            database = await self.prepare()
            async with database.transaction() as connection:
                for member in members:
                    for table in metadata.sorted_tables:
                        await connection.execute(insert(table).values(row(table, member)))
                        texts = {one.name: f"{CANARY} again " * 9 for one in table.c if is_plain_text(one)}
                        if texts:
                            await connection.execute(update(table).values(texts))
            async with Inbox(database).transaction() as unit:
                await unit.commit([InboxRow(bytes(32), bytes(32))])
            await database.close()

        asyncio.run(fill())

    def count(self) -> dict[str, int]:
        """How many rows each table has."""

        async def count() -> dict[str, int]:
            database = await self.prepare()
            async with database.transaction() as connection:
                counts = {
                    table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                    for table in metadata.sorted_tables
                }
            ((counts["consumer_inbox"],),) = await database.read("SELECT count(*) FROM consumer_inbox")
            await database.close()
            return counts

        return asyncio.run(count())


def is_plain_text(column: Any) -> bool:
    """Whether it holds health data as text."""
    keys = column.primary_key or column.name in ("external_id", "event_id")
    return column.type.python_type is str and not keys


def row(table: Table, member: str, *, profile: str | None = None, external: bool = True) -> dict[str, Any]:
    """A row of a member with something in every column."""
    values = {one.name: VALUES[one.type.python_type] for one in table.c}
    profile = profile or f"profile-of-{member}"
    whose = {"user_id": member, "profile_id": profile, "external_id": member if external else None}
    return values | {name: value for name, value in whose.items() if name in table.c}


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A worker with a SQLite file."""
    return Kept(tmp_path, f"sqlite:///{tmp_path}/consumer.db")


@pytest.fixture
def either(tmp_path: Path, database_url: str) -> Kept:
    """A worker with a database of either kind."""
    return Kept(tmp_path, database_url)


def rows_of(answer: Mapping[str, Any]) -> dict[str, int]:
    """How many rows the answer says of each table."""
    return {one["what"]: one["count"] for one in answer["erased"] if one["where"] == "handlers"}


TABLES = [table.name for table in metadata.sorted_tables]


def test_no_table_of_the_health_store_keeps_a_row(either: Kept) -> None:
    """Whatever tables there are; the other member's rows and the hashes of the inbox stay."""
    either.fill(MEMBER, OTHER)
    code, answer = either.forget("--dry-run")
    assert (code, answer["complete"]) == (0, True)
    assert {one["what"]: one["count"] for one in answer["erased"] if one["where"] == "handlers"} == dict.fromkeys(
        TABLES, 1
    )
    assert set(either.count().values()) == {2, 1}
    code, answer = either.forget()
    assert (code, answer["left"]) == (0, [])
    assert {one["what"]: one["count"] for one in answer["erased"] if one["where"] == "handlers"} == dict.fromkeys(
        TABLES, 1
    )
    assert either.count() == dict.fromkeys(TABLES, 1) | {"consumer_inbox": 1}
    code, answer = either.forget()
    assert (code, sum(one["count"] for one in answer["erased"])) == (0, 0)


def test_one_platform_alone(kept: Kept) -> None:
    """With --provider the other platform's rows stay."""
    kept.fill(MEMBER)
    assert kept.forget("--provider", "sahha")[0] == 0
    assert {name for name, count in kept.count().items() if count} == {
        *(name for name in TABLES if not name.startswith("sahha")),
        "consumer_inbox",
    }
    assert kept.forget("--provider", "thrive")[0] == 0
    assert {name for name, count in kept.count().items() if count} == {"consumer_inbox"}


def test_rows_that_name_only_the_profile(kept: Kept) -> None:
    """They go when another row ties the profile to the member, or when the profile is named."""
    scores = metadata.tables["sahha_scores"]
    biomarkers = metadata.tables["sahha_biomarkers"]

    async def fill() -> None:
        database = await kept.prepare()
        async with database.transaction() as connection:
            await connection.execute(insert(scores).values(row(scores, MEMBER)))
            await connection.execute(insert(biomarkers).values(row(biomarkers, MEMBER, external=False)))
            await connection.execute(insert(biomarkers).values(row(biomarkers, OTHER, profile=PROFILE, external=False)))
        await database.close()

    asyncio.run(fill())
    kept.forget()
    assert (kept.count()["sahha_scores"], kept.count()["sahha_biomarkers"]) == (0, 1)
    kept.forget("--profile-id", PROFILE)
    assert kept.count()["sahha_biomarkers"] == 0


def test_no_byte_is_left_in_the_sqlite_file(kept: Kept) -> None:
    """Neither of deleted rows nor of what they were before they changed, also while a worker has the file open."""
    kept.fill(MEMBER)
    worker = sqlite3.connect(kept.folder / "consumer.db")
    with closing(worker):
        worker.execute("SELECT count(*) FROM lab_results").fetchall()
        assert "consumer.db" in kept.found(CANARY)
        kept.forget("--no-vacuum")
        assert kept.found(MEMBER, CANARY)
        assert kept.forget()[0] == 0
        assert kept.found(MEMBER, CANARY) == []


def test_a_busy_sqlite_file_is_told_of(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is erased is, but its bytes are not; running it again mends that."""
    kept.fill(MEMBER)
    monkeypatch.setattr(database_module, "_WIPE_PATIENCE", 0.05)
    reader = sqlite3.connect(kept.folder / "consumer.db", isolation_level=None)
    with closing(reader):
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM lab_results").fetchall()
        code, answer = kept.forget()
        assert code == 1
        assert [(one["where"], one["what"]) for one in answer["left"]] == [("database", "file")]
        assert "run this again" in answer["left"][0]["why"]
    assert kept.forget()[0] == 0
    assert kept.found(MEMBER, CANARY) == []


def body(user_id: Any) -> str:
    """A lab event's body."""
    return json.dumps({"event_id": "e", "event_type": "lab.result.ready", "user_id": user_id, "note": CANARY})


def letter(number: int, message: bytes, *, provider: str = "thrive", **more: Any) -> DeadLetter:
    """A dead letter of an unproven message, unless said otherwise."""
    values: dict[str, Any] = {
        **dict.fromkeys(("accepted_at", "first_received_at", "dead_lettered_at"), NOW),
        "id": record_id("labs", f"m{number}"),
        "source": "labs",
        "reason": "unsigned",
        "attempts": 1,
        "attributes": {"message_id": f"m{number}", "headers": {}},
    }
    return DeadLetter(provider=provider, message=message, **(values | more))


def theirs() -> Sequence[DeadLetter]:
    """Dead letters of the member, as different as they come."""
    signed = ThriveSignature(secrets=[SECRET]).sign(body(MEMBER))
    webhook = json.dumps({"externalId": MEMBER, "note": CANARY})
    neutral = wrap_neutral(provider="sahha", body=webhook.encode(), headers={}, received_at=NOW)
    headers = SahhaSignature(secrets=[SECRET]).sign(webhook, external_id=MEMBER, event_type="T")
    no_id = json.dumps({"profileId": "p", "note": CANARY}).encode()
    return [
        letter(1, signed, reason="attempts_exhausted", user_id=MEMBER, event_id="e", event_type="lab.result.ready"),
        letter(2, signed),
        letter(3, signed[:-5], reason="unreadable"),
        letter(4, neutral, provider="sahha"),
        letter(5, neutral[:-3], provider="sahha", reason="unreadable"),
        letter(6, no_id, provider="sahha", attributes={"message_id": "m6", "headers": headers}),
        letter(7, b"\xff\xfe" + body(MEMBER).encode(), reason="unreadable"),
        letter(8, signed, reason="rejected", user_id=MEMBER, detail=f"of {MEMBER}: {CANARY}"),
    ]


def others(count: int = 3) -> Sequence[DeadLetter]:
    """Dead letters that stay; one of them mentions the member."""
    signed = ThriveSignature(secrets=[SECRET]).sign(json.dumps({"user_id": OTHER, "friend": MEMBER}))
    unsigned = json.dumps({"user_id": OTHER}).encode()
    made = [letter(20, signed, reason="crashed", user_id=OTHER)]
    return [*made, *(letter(20 + number, unsigned) for number in range(1, count))]


def test_no_dead_letter_keeps_them(kept: Kept) -> None:
    """Proven, forged, damaged or packed; with the fates of the lines, and with a line that is no JSON any more."""
    wreck = encode(letter(30, body(MEMBER).encode()))[:-25] + b"\n"
    stay = list(map(encode, others()))
    kept.put_aside(*map(encode, theirs()), wreck, *stay)
    ids = {one.id: "failed" for one in (theirs()[0], others()[1])}
    record_fates(kept.segment, ids, at=NOW)
    code, answer = kept.forget("--dry-run")
    assert (code, answer["erased"][0]["count"]) == (0, len(theirs()))
    code, answer = kept.forget()
    assert (code, answer["left"]) == (0, [])
    assert answer["erased"][0] | {"what": ""} == {"where": "dead letters", "what": "", "count": len(theirs()) + 1}
    assert kept.segment.read_bytes() == b"".join(stay)
    assert kept.found(CANARY) == []
    assert len(kept.segment.with_name(kept.segment.name + ".fates").read_bytes().splitlines()) == 1
    assert kept.forget()[1]["erased"][0]["count"] == 0


@pytest.fixture
def keys(kept: Kept) -> tuple[Any, Any]:
    """Two age identities; the file holds the first."""
    mine, foreign = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (kept.folder / "key.txt").write_text(f"{mine}\n")
    return mine, foreign


def test_sealed_dead_letters_need_the_identity(kept: Kept, keys: tuple[Any, Any]) -> None:
    """Without it nothing is erased anywhere; with it they go, and those of others stay sealed as they were."""
    kept.fill(MEMBER)
    seal = sealer([str(keys[0].to_public())])
    stay = [encode(one, seal=seal) for one in others()]
    kept.put_aside(*(encode(one, seal=seal) for one in theirs()), *stay)
    result = kept.run("--yes")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "dead_letters.identity_file" in result.stderr
    assert kept.count() == dict.fromkeys(TABLES, 1) | {"consumer_inbox": 1}
    kept.env["CONSUMER_DEAD_LETTERS__IDENTITY_FILE"] = str(kept.folder / "key.txt")
    code, answer = kept.forget()
    assert (code, answer["erased"][0]["count"]) == (0, len(theirs()))
    assert kept.segment.read_bytes() == b"".join(stay)


def test_lines_sealed_for_another_key_are_told_of(kept: Kept, keys: tuple[Any, Any]) -> None:
    """Nobody here can know whose they are, so the work is not done; the others go all the same."""
    foreign = sealer([str(keys[1].to_public())])
    kept.env["CONSUMER_DEAD_LETTERS__IDENTITY_FILE"] = str(kept.folder / "key.txt")
    kept.put_aside(
        encode(theirs()[1], seal=foreign), encode(theirs()[0]), encode(theirs()[1], seal=foreign)[:-20] + b"\n"
    )
    code, answer = kept.forget()
    assert (code, answer["complete"], answer["erased"][0]["count"]) == (1, False, 1)
    assert [one["count"] for one in answer["left"]] == [2]
    assert "kept:" in kept.run("--yes").stderr


@contextmanager
def in_use(kept: Kept, *letters: DeadLetter) -> Iterator[None]:
    """A worker that still writes to its segment."""
    kept.segment.parent.mkdir(exist_ok=True)
    segment = Segment(kept.segment.with_name("20260101T010000.000000Z-1-bb.jsonl"))
    segment.append(b"".join(map(encode, letters)))
    with closing(segment):
        yield


def test_a_segment_in_use_is_told_of_only_if_they_are_in_it(kept: Kept) -> None:
    """It cannot be rewritten while it is written to; an hour later it is closed."""
    kept.put_aside(encode(theirs()[0]))
    with in_use(kept, *others()):
        assert kept.forget()[0] == 0
    (kept.segment.with_name("20260101T010000.000000Z-1-bb.jsonl")).unlink()
    with in_use(kept, *others(), *theirs()[:2]):
        code, answer = kept.forget()
        assert (code, [one["count"] for one in answer["left"]]) == (1, [2])
        assert "again in an hour" in answer["left"][0]["why"]
    assert kept.forget()[0] == 0
    assert kept.found(CANARY) == []


def test_what_a_person_sees(kept: Kept) -> None:
    """A table of counts, what was not looked at, and one log line of counts."""
    kept.fill(MEMBER)
    result = kept.run("--yes")
    assert result.exit_code == 0
    assert "handlers\tlab_results\t1\terased" in result.stdout
    assert "dead letters\t" in result.stdout
    assert "queues" in result.stderr
    (line,) = [json.loads(one) for one in result.stderr.splitlines() if one.startswith("{")]
    assert (line["event"], line["erased"]) == ("member_forgotten", {"dead letters": 0, "handlers": len(TABLES)})


@pytest.mark.parametrize(
    ("arguments", "user_id", "says"),
    [
        ((), "-", "--dry-run, then add --yes"),
        (("--yes",), "-", "USER_ID"),
        (("--yes",), "", "USER_ID"),
        (("--yes", "--profile-id", "p", "--provider", "thrive"), "u", "--profile-id"),
        (("--yes", "--profile-id", ""), "u", "--profile-id"),
        (("--yes",), "u\udcff", "UTF-8"),
        (("--yes", "--provider", "other"), "u", "--provider"),
        (("--yes", "--handlers", "consumer.demo_store"), "u", "no DispatchTable"),
    ],
    ids=[
        "nobody to ask",
        "empty line",
        "empty",
        "profile of another platform",
        "no profile",
        "other bytes",
        "no platform",
        "no table",
    ],
)
def test_wrong_usage(kept: Kept, arguments: tuple[str, ...], user_id: str, says: str) -> None:
    """One line, and nothing is erased."""
    result = kept.run(*arguments, user_id=user_id, stdin="\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr


def test_handlers_that_cannot_forget(kept: Kept) -> None:
    """The command refuses, since what they keep would stay; unless it is told to leave them alone."""
    (kept.folder / "forgetless.py").write_text("from consumer import DispatchTable\ntable = DispatchTable()\n")
    kept.env |= {"CONSUMER_APP_DIR": str(kept.folder), "CONSUMER_HANDLERS": "forgetless"}
    kept.put_aside(encode(theirs()[0]))
    result = kept.run("--yes")
    assert result.exit_code == 1
    assert "@table.forget" in result.stderr
    assert kept.found(CANARY)
    kept.env["CONSUMER_HANDLERS"] = "there_is_no_such_module"
    assert kept.forget("--no-handlers")[0] == 0
    assert kept.found(CANARY) == []


def test_a_damaged_line_of_somebody_else_stays_and_is_told_of(kept: Kept) -> None:
    """It was searched, so the work is done."""
    wreck = encode(letter(30, body(OTHER).encode()))[:-25] + b"\n"
    kept.put_aside(wreck)
    result = kept.run("--yes")
    assert (result.exit_code, kept.segment.read_bytes()) == (0, wreck)
    assert "kept:" in result.stderr


def test_ages_do_not_matter(kept: Kept) -> None:
    """A dead letter too old to be replayed is as much theirs as any."""
    old = NOW - timedelta(days=400)
    kept.put_aside(encode(letter(1, b"{}", reason="stale", user_id=MEMBER, dead_lettered_at=old)))
    assert kept.forget()[1]["erased"][0]["count"] == 1


@pytest.mark.parametrize("order_by", ["key", "member"])
def test_a_lane_that_stood_still_goes_on(kept: Kept, order_by: str) -> None:
    """Nobody can replay what was erased; the lanes of others stay closed."""
    del kept.env["CONSUMER_SOURCES__LABS__PATH"]
    hub = "Endpoint=sb://127.0.0.1;SharedAccessKeyName=n;SharedAccessKey=a2V5;UseDevelopmentEmulator=true"
    settings = {
        "KIND": "event_hubs",
        "CONNECTION_STRING": hub,  # nobody connects
        "EVENT_HUB": "events",
        "CHECKPOINTS__CONNECTION_STRING": "UseDevelopmentStorage=true",
        "CHECKPOINTS__CONTAINER": "checkpoints",
        "LANE_ON_DEAD_LETTER": "park",
        "ORDER_BY": order_by,
    }
    kept.env |= {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in settings.items()}
    lanes = [lane_of_user(user) for user in (MEMBER, OTHER)] if order_by == "member" else ["g1", "g2"]
    lanes.append("that of a message with several members' events")
    for number, user in enumerate((MEMBER, OTHER, MEMBER), 1):
        attributes = {"message_id": "m", "headers": {}, "ordering_key": f"g{number}"}
        more = {"lane": lanes[2]} if number > 2 else {}
        kept.put_aside(encode(letter(number, b"{}", reason="rejected", user_id=user, attributes=attributes | more)))
    # Nobody's lane stands still for what was never an event, so whoever forges one cannot open it either.
    forged = {"message_id": "m", "headers": {}, "ordering_key": "g2", "lane": lanes[1]}
    kept.put_aside(encode(letter(9, body(MEMBER).encode(), attributes=forged)))

    async def closed(*, park: bool) -> list[bool]:
        database = await kept.prepare()
        parking = ParkedLanes(Inbox(database), "labs")
        for lane in lanes if park else ():
            await parking.park(lane)
        found = [await parking.holds(lane) for lane in lanes]
        await database.close()
        return found

    assert asyncio.run(closed(park=True)) == [True, True, True]
    kept.forget("--dry-run")
    assert asyncio.run(closed(park=False)) == [True, True, True]
    kept.forget()
    assert asyncio.run(closed(park=False)) == [False, True, False]
