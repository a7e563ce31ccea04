"""What the Storage Queue adapter makes of everything that can go wrong, on a stub that does it on demand."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumer.errors import SettingsError, SourceRefused, SourceUnavailable
from consumer.settings import SourceSettings
from consumer.sources.base import Message, Outgoing
from consumer.sources.storage_queue import StorageQueueSource
from tests.emulators.storage_queue_stub import StorageQueueStub
from tests.faults.harness import ROOT
from tests.integration.cli_project import Project, opened_project
from tests.servers.azurite import ACCOUNT, KEY, connection_string
from tests.servers.fixtures_azure import OpenStorageQueue
from tests.servers.processes import free_port, serving

project = pytest.fixture(opened_project)

Calls = list[Callable[[], Awaitable[object]]]


async def held(source: StorageQueueSource, count: int) -> list[Message]:
    """Put messages on the queue and receive them."""
    await source.send([Outgoing(b"%d" % n) for n in range(count)])
    messages = await source.receive(count)
    assert len(messages) == count
    return messages


def calls(source: StorageQueueSource, messages: list[Message]) -> Calls:
    """Every way to ask the service."""
    return [
        lambda: source.receive(1),
        lambda: source.acknowledge(messages),
        lambda: source.extend(messages),
        lambda: source.release(messages, 0),
        lambda: source.send([Outgoing(b"x")]),
        source.depth,
    ]


@pytest.mark.parametrize("kind", ["busy", "reset"])
async def test_a_passing_fault_is_not_noticed(
    kind: str, storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """One refused or broken request is repeated below the adapter."""
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fault(kind, action="PutMessage", count=1)
    await source.send([Outgoing(b"{}")])
    assert (await source.depth()).visible == 1


@pytest.mark.parametrize(
    "kind",
    [
        "busy",
        "reset",
        pytest.param("internal", marks=pytest.mark.thorough),
        pytest.param("timed_out", marks=pytest.mark.thorough),
    ],
)
async def test_a_lasting_fault_is_unavailable_until_it_ends(
    kind: str, storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """Throttling, server errors and broken connections are `SourceUnavailable`; when they end, all is well again."""
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await held(source, 3)
    storage_stub.fault(kind)
    outcomes = await asyncio.gather(*(call() for call in calls(source, messages)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, SourceUnavailable)
        assert re.fullmatch(r"source labs: Storage Queue [A-Z]\w+ \w+( \w+)? failed for now: [^\n]+", str(outcome))
        assert outcome.__cause__ is None
    storage_stub.faults.clear()
    assert await source.acknowledge(messages) == []


async def test_a_server_that_never_answers_is_unavailable(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A hanging call is given up within its limit, a receive as well as any other."""
    source = await open_storage_queue(storage_stub.connection_string, call_limit=0.5)
    messages = await held(source, 1)
    storage_stub.fault("hang")
    started = time.monotonic()
    outcomes = await asyncio.gather(*(call() for call in calls(source, messages)), return_exceptions=True)
    assert time.monotonic() - started < 1.5
    assert all(isinstance(outcome, SourceUnavailable) for outcome in outcomes)
    assert all("no answer in time" in str(outcome) for outcome in outcomes)
    storage_stub.faults.clear()
    assert await source.acknowledge(messages) == []


@pytest.mark.parametrize("kind", ["foreign", "cut"])
async def test_a_reply_that_is_none(
    kind: str, storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A proxy's page, or half a reply, is not an empty queue: it is unavailable, and says so."""
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fill("labs", ["{}"])
    storage_stub.fault(kind, action="GetMessages")
    with pytest.raises(
        SourceUnavailable, match=r"^source labs: the reply to Get Messages is not one of Storage Queue$"
    ):
        await source.receive(1)


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("no_queue", "the queue does not exist"),
        ("denied", "access denied .*allow [A-Z]"),
        ("bad_key", "credentials are wrong"),
    ],
)
async def test_what_needs_a_person_is_refused(
    kind: str, advice: str, storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A missing queue, missing permission or bad key is `SourceRefused`: one line with what to do."""
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await held(source, 2)
    storage_stub.fault(kind)
    for call in calls(source, messages):
        with pytest.raises(SourceRefused, match=f"^source labs: .*{advice}") as caught:
            await call()
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None
    storage_stub.faults.clear()
    assert await source.acknowledge(messages) == []


async def test_some_of_a_batch_fail(storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue) -> None:
    """What a batch could not settle for now is named, to be tried again; the rest is settled."""
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await held(source, 10)
    storage_stub.fault("denied", action="DeleteMessage", count=4)
    failures = await source.acknowledge(messages)
    assert [failure.kind for failure in failures] == ["again"] * 4
    assert all("AuthorizationPermissionMismatch" in failure.detail for failure in failures)
    assert await source.acknowledge([failure.message for failure in failures]) == []
    assert (await source.depth()).total == 0


async def test_a_renewal_whose_answer_is_lost_loses_the_lease(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """Only the answer held the new receipt: the lease is gone, and never taken for kept."""
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await held(source, 1)
    until = messages[0].lease_until
    storage_stub.fault("reset_after", action="UpdateMessage", count=1)
    (failure,) = await source.extend(messages)
    assert (failure.kind, failure.detail) == ("gone", "PopReceiptMismatch")
    assert messages[0].lease_until == until


async def test_a_queue_deleted_and_made_again(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """A queue that vanishes is refused, with what was held gone; a new one of its name is consumed as it comes."""
    source = await open_storage_queue(storage_stub.connection_string)
    messages = await held(source, 2)
    storage_stub.delete_queue("labs")
    for call in calls(source, messages):
        with pytest.raises(SourceRefused, match="the queue does not exist"):
            await call()
    storage_stub.create_queue("labs")
    assert {failure.kind for failure in await source.extend(messages)} == {"gone"}
    assert await source.acknowledge(await held(source, 2)) == []


async def test_open_on_no_queue_is_refused_and_may_be_tried_again(storage_stub: StorageQueueStub) -> None:
    """Opening fails while there is no queue, leaves nothing open, and works once there is one."""
    settings = SourceSettings(
        name="labs", kind="storage_queue", connection_string=SecretStr(storage_stub.connection_string), queue="none"
    )
    source = StorageQueueSource(settings)
    with pytest.raises(SourceRefused, match="does not exist"):
        await source.open()
    storage_stub.create_queue("none")
    await source.open()
    assert (await source.depth()).total == 0
    await source.close()


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "no-such-host.invalid"])
async def test_an_unreachable_account_is_noticed_soon(host: str, open_storage_queue: OpenStorageQueue) -> None:
    """A refused port and an unknown host are `SourceUnavailable` within five seconds, retries included."""
    url = f"http://{host.format(port=free_port())}/{ACCOUNT}"
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match=r"failed for now: Client\w+ \(see its connection_string"):
        await open_storage_queue(connection_string(queue=url))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("module", ["azure.storage.queue.aio", "azure.identity.aio"])
async def test_a_missing_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the SDK, or without azure-identity where it is needed, the error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    settings = SourceSettings(
        name="labs", kind="storage_queue", account_url="https://x.queue.core.windows.net", queue="labs"
    )
    source = StorageQueueSource(settings)
    line = "source labs is storage_queue: pip install 'health-event-consumer[storage-queue]'"
    with pytest.raises(SettingsError, match=f"^{re.escape(line)}$"):
        await source.open()
    await source.close()


async def test_a_token_is_not_sent_in_the_clear() -> None:
    """DefaultAzureCredential needs TLS, on this machine too."""
    settings = SourceSettings(name="labs", kind="storage_queue", account_url="http://127.0.0.1:9/x", queue="labs")
    with pytest.raises(SettingsError, match=r"^sources.labs.account_url: expected https://"):
        await StorageQueueSource(settings).open()


async def test_renewals_do_not_wait_behind_deletions(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue
) -> None:
    """However many deletions hang, leases are renewed."""
    source = await open_storage_queue(storage_stub.connection_string, call_limit=20.0)
    storage_stub.fill("labs", ["{}"] * 160)
    pages = [await source.receive(32) for _ in range(5)]
    storage_stub.fault("hang", action="DeleteMessage")
    deletions = [asyncio.create_task(source.acknowledge(page)) for page in pages[:4]]
    await asyncio.sleep(0.1)
    started = time.monotonic()
    assert await source.extend(pages[4]) == []
    assert time.monotonic() - started < 10
    for deletion in deletions:
        deletion.cancel()
    await asyncio.gather(*deletions, return_exceptions=True)


async def test_no_identity_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DefaultAzureCredential finds nothing, that is said in one line, and it is closed."""
    import azure.identity.aio as identity
    from azure.identity import CredentialUnavailableError

    closed: list[bool] = []

    class Nothing:
        async def get_token(self, *_: object, **__: object) -> None:
            raise CredentialUnavailableError("many\nlines")

        async def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(identity, "DefaultAzureCredential", Nothing)
    settings = SourceSettings(name="labs", kind="storage_queue", account_url="https://127.0.0.1:9/x", queue="labs")
    source = StorageQueueSource(settings)
    with pytest.raises(SourceRefused, match=r"^source labs: no Azure credentials were found[^\n]*$"):
        await source.open()
    assert closed == [True]


async def test_the_sdk_is_quiet(
    storage_stub: StorageQueueStub, open_storage_queue: OpenStorageQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither requests nor failures of the SDK reach the log, not even where everything is logged."""
    logging.getLogger("azure").setLevel(logging.NOTSET)
    caplog.set_level(logging.DEBUG)
    source = await open_storage_queue(storage_stub.connection_string)
    storage_stub.fill("labs", ["canary\x01"])
    storage_stub.fault("cut", action="PeekMessages")
    await source.acknowledge(await source.receive(1))
    with pytest.raises(SourceUnavailable):
        await source.depth()
    assert [record.name for record in caplog.records if record.name.startswith("azure")] == []
    assert "canary" not in caplog.text
    assert KEY not in caplog.text


# The command line


@dataclass
class Case:
    """What is wrong, the exit code of `run`, and what is said."""

    code: int
    words: str
    changes: dict[str, str] = field(default_factory=dict)


WRONG_KEY = "QUFB" * 21 + "QQ=="
CASES = {
    "a malformed connection string": Case(2, "CONNECTION_STRING", {"CONNECTION_STRING": "canary=1;nothing"}),
    "an unknown host": Case(
        1, "failed for now: Client", {"CONNECTION_STRING": connection_string(queue="http://none.invalid/x")}
    ),
    "a refused port": Case(
        1, "failed for now: Client", {"CONNECTION_STRING": connection_string(queue="http://127.0.0.1:9/x")}
    ),
    "a missing queue": Case(1, "the queue does not exist (QueueNotFound)", {"QUEUE": "none"}),
    "a wrong key": Case(
        1, "the Azure credentials are wrong or have expired (AuthenticationFailed)", {"KEY": WRONG_KEY}
    ),
}


@pytest.fixture(scope="module")
def stub_url() -> Iterator[str]:
    """A stub in a process of its own, without queues."""
    port = free_port()
    command = [sys.executable, "-m", "tests.emulators.storage_queue_stub", "--port", str(port)]
    with serving(command, f"http://127.0.0.1:{port}", env={"PYTHONPATH": str(ROOT)}) as url:
        yield url


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.thorough) if case == "an unknown host" else case for case in CASES],
)
def test_wrong(tmp_path: Path, project: Project, stub_url: str, case: str) -> None:
    """`check` and `run` say what is wrong in one line, without a traceback or a key, and exit as they should."""
    wrong = CASES[case]
    changes = dict(wrong.changes)
    string = connection_string(key=changes.pop("KEY", KEY), queue=f"{stub_url}/{ACCOUNT}")
    values = {"KIND": "storage_queue", "CONNECTION_STRING": string, "QUEUE": "labs", **changes}
    env = {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in values.items()}
    del project.env["CONSUMER_SOURCES__LABS__PATH"]
    project.env.update(env)
    checked = project.run("check", "--source", "labs")
    assert checked.exit_code == wrong.code
    (line,) = [line for line in (checked.stdout + checked.stderr).splitlines() if wrong.words in line]
    process = project.start("run", stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    (said,) = [line for line in err.splitlines() if not line.startswith("{")]
    assert (process.returncode, wrong.words in said, out) == (wrong.code, True, "")
    for text in (line, err, checked.output):
        assert "Traceback" not in text
        assert WRONG_KEY not in text
        assert KEY not in text
        assert "canary" not in text
