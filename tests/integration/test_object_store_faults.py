"""Object stores that fail: S3 and Blob Storage with answers that the tests write."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from consumer.dead_letters import s3_objects
from consumer.dead_letters.filters import Filter
from consumer.dead_letters.object_archive import ObjectArchive
from consumer.dead_letters.object_store import ObjectStore
from consumer.dead_letters.objects import Objects, open_objects
from consumer.dead_letters.record import DeadLetter, decode, encode
from consumer.errors import DeadLetterError
from consumer.settings import DeadLetterSettings
from tests.integration.cli_project import CANARY, Project, assert_discreet, body, letter, opened_project
from tests.servers.azurite import KEY, connection_string
from tests.servers.dead_letters import new_shelf
from tests.servers.scripted import Answer, Scripted, Seen, answering, scripted, stream_server

pytestmark = pytest.mark.usefixtures("aws_environment")


project = pytest.fixture(opened_project)


def settings(kind: str, url: str, **more: Any) -> DeadLetterSettings:
    if kind == "s3":
        return DeadLetterSettings(kind="s3", bucket="letters", endpoint_url=url, **more)
    string = SecretStr(connection_string(blob=f"{url}/devstoreaccount1"))
    return DeadLetterSettings(kind="blob", container="letters", connection_string=string, **more)


@asynccontextmanager
async def store(kind: str, answer: Answer, **options: Any) -> AsyncIterator[tuple[ObjectStore, Scripted]]:
    """An object store whose server answers so."""
    more = {"sse_kms_key_id": options.pop("key")} if "key" in options else {}
    async with scripted(answer) as server:
        made = ObjectStore(open_objects(settings(kind, server.url, **more)), **options)
        try:
            yield made, server
        finally:
            await made.close()


def s3_error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>{CANARY}</Message></Error>")


def blob_error(status: int, code: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{CANARY}</Message></Error>"
    return web.Response(status=status, text=text, headers={"x-ms-error-code": code})


_WRITTEN = {
    "s3": lambda: web.Response(headers={"ETag": '"1"'}),
    "blob": lambda: web.Response(status=201, headers={"ETag": '"1"', "Last-Modified": "Mon, 16 Mar 2026 08:00:00 GMT"}),
}
_EMPTY_LIST = (
    '<?xml version="1.0"?><ListBucketResult><Name>letters</Name><IsTruncated>false</IsTruncated></ListBucketResult>'
)


def unproven(number: int) -> DeadLetter:
    return letter(number, reason="unsigned", proven=False)


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("s3", [s3_error(500, "InternalError"), s3_error(412, "PreconditionFailed")]),
        ("blob", [blob_error(500, "InternalError"), blob_error(409, "BlobAlreadyExists")]),
    ],
    ids=["s3", "blob"],
)
async def test_a_lost_answer_is_no_failure(kind: str, answers: list[web.Response]) -> None:
    """A write whose answer was lost is repeated under the same name; that it is there already means it was kept."""
    async with store(kind, answering(*answers)) as (letters, server):
        await letters.append([letter(1)])
        first, second = server.requests
        assert first.target == second.target
        assert [seen.headers["If-None-Match"] for seen in (first, second)] == ["*", "*"]


async def test_a_write_that_meets_its_own_first_try_is_repeated() -> None:
    """S3 answers 409 while another conditional write of the object is under way, which may be ours."""
    answer = answering(s3_error(409, "ConditionalRequestConflict"), s3_error(412, "PreconditionFailed"))
    async with store("s3", answer) as (letters, server):
        await letters.append([letter(1)])
        assert len(server.requests) == 2


async def test_objects_are_encrypted_with_the_key_that_is_named() -> None:
    """With sse_kms_key_id every object is put with that key."""
    async with store("s3", lambda _: _WRITTEN["s3"](), key="alias/letters") as (letters, server):
        await letters.append([letter(1)])
        await letters.probe()
        for seen in server.requests:
            assert seen.headers["x-amz-server-side-encryption"] == "aws:kms"
            assert seen.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/letters"


async def test_large_batches_are_several_objects() -> None:
    """A batch of many megabytes is kept in objects of about eight."""
    async with store("s3", lambda _: _WRITTEN["s3"]()) as (letters, server):
        await letters.append([letter(number, message=b"x" * 3_000_000) for number in range(7)])
        assert len(server.requests) == 3
        assert max(len(seen.body) for seen in server.requests) < 12_000_000


@pytest.mark.parametrize(
    ("kind", "answer", "text"),
    [
        ("s3", s3_error(404, "NoSuchBucket"), "the bucket does not exist: see dead_letters.bucket"),
        ("s3", s3_error(403, "AccessDenied"), "access denied: allow s3:PutObject there"),
        ("s3", s3_error(403, "InvalidAccessKeyId"), "the AWS credentials are wrong"),
        ("s3", s3_error(400, "ExpiredToken"), "the AWS credentials have expired"),
        ("s3", s3_error(400, "KMS.NotFoundException"), "its KMS key cannot be used"),
        ("s3", s3_error(501, "NotImplemented"), "does not know conditional writes"),
        ("s3", s3_error(418, CANARY), "PutObject failed: HTTP 418"),
        ("blob", blob_error(404, "ContainerNotFound"), "the container does not exist"),
        ("blob", blob_error(403, "AuthorizationPermissionMismatch"), "access denied"),
        ("blob", blob_error(403, "AuthenticationFailed"), "the Azure credentials are wrong or have expired"),
        ("blob", blob_error(409, "BlobImmutableDueToPolicy"), "writing failed: BlobImmutableDueToPolicy"),
    ],
    ids=lambda one: one if isinstance(one, str) and " " not in one else "",
)
async def test_refusals_say_what_to_do(kind: str, answer: web.Response, text: str) -> None:
    """What only a person can mend is one line that names the store; nothing of a server's text or a key is in it."""
    async with store(kind, answering(answer)) as (letters, _):
        for call in (lambda: letters.append([letter(1)]), letters.probe):
            with pytest.raises(DeadLetterError) as caught:
                await call()
            line = str(caught.value)
            assert line.startswith("dead-letter store ")
            assert text in line
            assert "\n" not in line
            assert CANARY not in line
            assert KEY not in line
            assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", ["s3", "blob"])
async def test_nobody_there(kind: str) -> None:
    """An address where nobody listens is told as such, soon."""
    async with scripted(lambda _: web.Response()) as server:
        url = server.url
    letters = ObjectStore(open_objects(settings(kind, url)))
    with pytest.raises(DeadLetterError, match="it cannot be reached: see"):
        await letters.append([letter(1)])
    await letters.close()


@pytest.mark.parametrize("kind", ["s3", "blob"])
async def test_a_store_that_hangs_does_not_hang_the_worker(kind: str) -> None:
    """A call that gets no answer fails in time, and the next one works when the store is back."""
    back = asyncio.Event()

    async def answer(_: Seen) -> web.Response:
        await back.wait()
        return _WRITTEN[kind]()

    async with store(kind, answer, answer_within=0.3) as (letters, server):
        began = time.monotonic()
        with pytest.raises(DeadLetterError, match=r"no answer within 0\.3 s"):
            await letters.append([letter(1)])
        assert time.monotonic() - began < 3
        back.set()
        async with asyncio.timeout(5):
            while True:
                try:
                    await letters.append([letter(2)])
                except DeadLetterError:
                    continue
                break
        assert len(server.requests) >= 2


async def test_without_listing_the_quota_is_the_process_s_own(caplog: pytest.LogCaptureFixture) -> None:
    """Credentials that may only write are enough: forged messages are then counted by each process, which says so."""

    def answer(seen: Seen) -> web.Response:
        return _WRITTEN["s3"]() if seen.method == "PUT" else s3_error(403, "AccessDenied")

    limit = len(encode(unproven(1))) + 10
    async with store("s3", answer, unproven_limit=limit) as (letters, server):
        for number in range(3):
            await letters.append([unproven(number)])
        assert letters.dropped_unproven == 2
        assert [seen.method for seen in server.requests] == ["GET", "PUT"]
        assert not await letters.may_count()
    assert "may not be listed" in caplog.text


async def test_what_others_wrote_is_counted_now_and_then() -> None:
    """The forged messages of all processes are counted when the first comes and again after a while, not each time."""
    async with store("s3", lambda seen: web.Response(text=_EMPTY_LIST if seen.method == "GET" else "")) as (
        letters,
        server,
    ):
        for number in range(5):
            await letters.append([unproven(number), letter(number)])
        assert [seen.method for seen in server.requests].count("GET") == 1
        assert "prefix=dead-letters%2Funproven-" in server.requests[1].target


async def test_a_flood_of_tiny_forgeries_does_not_stop_honest_ones() -> None:
    """Counting thousands of objects that a forger made small has an end, and what is proven is kept meanwhile."""
    found = "".join(f"<Contents><Key>dead-letters/unproven-{n}</Key><Size>1</Size></Contents>" for n in range(1000))
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>more</NextContinuationToken>"
    listing = f'<?xml version="1.0"?><ListBucketResult><Name>letters</Name>{found}{more}</ListBucketResult>'

    def answer(seen: Seen) -> web.Response:
        return web.Response(text=listing) if seen.method == "GET" else _WRITTEN["s3"]()

    async with store("s3", answer, unproven_limit=1_000_000, answer_within=10) as (letters, server):
        await letters.append([unproven(1), letter(2)])
        assert letters.dropped_unproven == 1
        methods = [seen.method for seen in server.requests]
        assert methods.count("PUT") == 1
        assert methods.count("GET") < 50


async def test_what_cannot_be_counted_for_now_is_no_trouble() -> None:
    """While listing fails, what is kept is what is known: a forged message must not keep back honest ones."""

    def answer(seen: Seen) -> web.Response:
        return s3_error(400, "Strange") if seen.method == "GET" else _WRITTEN["s3"]()

    async with store("s3", answer) as (letters, server):
        for number in range(3):
            await letters.append([unproven(number), letter(number)])
        assert Counter(seen.method for seen in server.requests) == {"GET": 1, "PUT": 6}
        with pytest.raises(DeadLetterError, match="Strange"):
            await letters.may_count()


class _Meddled:
    """Objects of which somebody else changes one just before it is written over; or nobody, and an answer is lost."""

    def __init__(self, objects: Objects, meddle: Callable[[], object] | None) -> None:
        self._objects = objects
        self._meddle = meddle
        self._loses_answer = meddle is None

    def replace(self, name: str, data: bytes, *, etag: str) -> None:
        if self._meddle is not None:
            meddle, self._meddle = self._meddle, None
            meddle()
        self._objects.replace(name, data, etag=etag)
        if self._loses_answer:
            self._loses_answer = False
            self._objects.replace(name, data, etag=etag)  # as an SDK repeats it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)


@pytest.mark.parametrize("kind", ["s3", "blob"])
def test_nothing_is_written_over_what_was_not_read(kind: str, request: pytest.FixtureRequest, tmp_path: Any) -> None:
    """A purge, or a fate, that meets another one begins again with what is there now."""
    shelf = new_shelf(kind, request, tmp_path)
    letters = [letter(number) for number in range(4)]
    shelf.put("20260101T000000.000000Z-1-aa.jsonl", b"".join(map(encode, letters)))
    one, other = shelf.archive(), shelf.archive()
    segment = shelf.entries()[0].segment
    one.record_fates(segment, {letters[3].id: "failed"})

    meddled = _Meddled(shelf.objects(), lambda: other.purge(Filter(ids=(letters[1].id,)).chooser()))
    assert ObjectArchive(meddled).purge(Filter(ids=(letters[0].id,)).chooser()).removed == 1
    assert shelf.ids() == [letters[2].id, letters[3].id]

    meddled = _Meddled(shelf.objects(), lambda: other.record_fates(segment, {letters[2].id: "handled"}))
    ObjectArchive(meddled).record_fates(segment, {letters[3].id: "handled"})
    assert [entry.fate for entry in shelf.entries()] == ["handled", "handled"]

    lossy = ObjectArchive(_Meddled(shelf.objects(), None))
    assert lossy.purge(Filter(ids=(letters[2].id,)).chooser()).removed == 1
    assert shelf.ids() == [letters[3].id]
    assert letters[2].id.encode() not in shelf.objects().read(shelf.names()[1]).data
    shelf.close()


async def test_reading_that_breaks_off_is_repeated() -> None:
    """An object whose bytes stop coming is asked for again."""
    line = encode(letter(1))
    head = b'HTTP/1.1 206 Partial Content\r\nETag: "1"\r\nContent-Range: bytes 0-%d/%d\r\nContent-Length: %d\r\n\r\n'
    answers = [line[:10], line]

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head % (len(line) - 1, len(line), len(line)) + answers.pop(0))
        await writer.drain()

    async with stream_server(talk) as port:
        objects = open_objects(settings("s3", f"http://127.0.0.1:{port}"))
        piece = await asyncio.to_thread(objects.read, "1.jsonl")
        objects.close()
    assert (piece.data, piece.total, answers) == (line, len(line), [])


async def test_reading_from_a_store_that_hangs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that gets no answer is made three times, not three times three: a process that stops waits for it."""
    monkeypatch.setattr(s3_objects, "_READ_LIMIT", 0.2)

    async def answer(_: Seen) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async with scripted(answer) as server:
        objects = open_objects(settings("s3", server.url))
        with pytest.raises(DeadLetterError, match="no answer in time"):
            await asyncio.to_thread(objects.read, "1.jsonl")
        objects.close()
        assert len(server.requests) == 3


async def test_a_store_that_is_gone_pauses_the_worker(project: Project) -> None:
    """While S3 takes nothing no message is acknowledged; once it does, what was to be put aside is, and once."""
    kept: list[bytes] = []
    refusals = [".jsonl", ".probe"]

    def answer(seen: Seen) -> web.Response:
        # The first record is refused and then a probe; the one at the start is not.
        if refusals and seen.target.endswith(refusals[0]):
            refusals.pop(0)
            return s3_error(403, "AccessDenied")
        if seen.target.endswith(".jsonl"):
            kept.append(seen.body)
        return _WRITTEN["s3"]()

    async with scripted(answer) as server:
        del project.env["CONSUMER_DEAD_LETTERS__PATH"]
        project.env |= {
            "CONSUMER_DEAD_LETTERS__KIND": "s3",
            "CONSUMER_DEAD_LETTERS__BUCKET": "letters",
            "CONSUMER_DEAD_LETTERS__ENDPOINT_URL": server.url,
        }
        project.handlers("raise Reject('no')")
        published = project.start("publish", "labs", "-", stdin=subprocess.PIPE)
        await asyncio.to_thread(published.communicate, body(1))
        worker = project.start("run", "--until-idle", "--idle-after", "0.1s")
        out, err = await asyncio.to_thread(worker.communicate, timeout=60)
    assert worker.returncode == 0, err
    assert_discreet(out + err)
    assert "access denied: allow s3:PutObject" in err
    assert not refusals
    (record,) = [decode(line) for lines in kept for line in lines.splitlines()]
    assert record.reason == "rejected"


async def test_reading_that_is_not_allowed_is_told_once() -> None:
    """Where objects may be listed and not read, that is said in one line, not once for each of thousands."""
    names = [f"dead-letters/2026010{number}T000000.000000Z-1-aa.jsonl" for number in range(1, 4)]
    entries = "".join(f"<Contents><Key>{name}</Key><Size>9</Size></Contents>" for name in names)
    listing = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{entries}</ListBucketResult>'

    def answer(seen: Seen) -> web.Response:
        return web.Response(text=listing) if "prefix=" in seen.target else s3_error(403, "AccessDenied")

    async with scripted(answer) as server:
        archive = ObjectArchive(open_objects(settings("s3", server.url)))
        for read in (lambda: list(archive.read()), lambda: archive.purge(lambda _: True)):
            with pytest.raises(DeadLetterError, match="access denied: allow s3:GetObject"):
                await asyncio.to_thread(read)
        archive.close()
