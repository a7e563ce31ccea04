"""Dead-letter queues without a queue: what is sent, which settings are refused, what `check` says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer.dead_letters.queue_check import describe
from consumer.dead_letters.queue_notes import NOTE
from consumer.dead_letters.queues import DeadLetterQueue
from consumer.dead_letters.record import DeadLetter
from consumer.errors import SettingsError
from consumer.settings import SourceSettings
from consumer.settings_loading import load_settings
from consumer.sources.base import Message
from consumer.sources.sqs_messages import Facts, entry

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/labs"
DAY = timedelta(days=1)


def letter(message: bytes = b"hello", **changes: Any) -> DeadLetter:
    """A dead letter of the source `labs`."""
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": "0" * 24,
        "provider": "thrive",
        "source": "labs",
        "reason": "rejected",
        "attempts": 1,
        "accepted_at": now,
        "first_received_at": now,
        "dead_lettered_at": now,
        "message": message,
        **changes,
    }
    return DeadLetter(**values)


def labs(url: str = URL, **changes: Any) -> DeadLetterQueue:
    """The dead-letter queue of the source `labs`."""
    values = {"signature": {"secrets": ["a secret"]}, **changes}
    return DeadLetterQueue(SourceSettings(name="labs", kind="sqs", queue_url=url, **values))


def headers(number: int) -> dict[str, Any]:
    """The attributes of a dead letter whose message came with so many headers."""
    return {"headers": {f"header-{n}": "value" for n in range(number)}, "message_id": "m1", "index": 0}


def test_a_message_goes_as_it_came() -> None:
    """Its bytes and headers are those that were received, beside a note that holds no health data."""
    record = letter(
        attributes=headers(2), event_id="canary", user_id="canary", detail="canary", error={"type": "canary"}
    )
    sent = labs().outgoing(record, largest=1024)
    assert sent is not None
    assert sent.body == b"hello"
    assert {name: value for name, value in sent.headers.items() if name != NOTE} == record.headers
    assert "canary" not in sent.headers[NOTE]
    assert len(sent.headers[NOTE]) < 512


def test_an_eleventh_attribute_is_not_sent() -> None:
    """SQS takes ten: a message that has them all goes without a note, and one that was noted on before is again."""
    assert NOTE in _sent(letter(attributes=headers(9)))
    assert _sent(letter(attributes=headers(10))) == headers(10)["headers"]
    before = headers(9)
    before["headers"][NOTE] = "of an earlier time"
    assert _sent(letter(attributes=before))[NOTE] != "of an earlier time"


def _sent(record: DeadLetter, largest: int | None = 10_000) -> dict[str, str]:
    sent = labs().outgoing(record, largest=largest)
    assert sent is not None
    return dict(sent.headers)


def test_what_a_queue_cannot_carry() -> None:
    """Neither bytes that are no text, nor characters SQS forbids, nor more than the queue takes; a note gives way."""
    queue = labs()
    for message in (b"\xff", b"a lone surrogate \xed\xa0\x80", b"null \x00", b"", b"x" * 1025):
        assert queue.outgoing(letter(message), largest=1024) is None
    assert queue.outgoing(letter(attributes={"headers": {"h": "\udc80"}}), largest=1024) is None
    assert _sent(letter(b"x" * 1024), largest=1024) == {}
    assert NOTE in _sent(letter(b"x" * 1024), largest=4096)


def test_the_trace_travels_as_sqs_has_it() -> None:
    """A trace header that came as a system attribute goes on as one, and takes no attribute's room."""
    record = letter(attributes={"headers": {"AWSTraceHeader": "Root=1", **headers(9)["headers"]}})
    sent = labs().outgoing(record, largest=10_000)
    assert sent is not None
    made = entry(sent, name="labs", fifo=False)
    assert len(made["MessageAttributes"]) == 10
    assert made["MessageSystemAttributes"] == {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1"}}


def test_fifo_keeps_the_group() -> None:
    """Dead letters of a FIFO source stay in their group, under an id that makes a doubled one single."""
    queue = labs(URL + ".fifo")
    sent = queue.outgoing(letter(attributes={"headers": {}, "ordering_key": "member 1"}), largest=10_000)
    assert sent is not None
    assert (sent.ordering_key, sent.deduplication_id) == ("member 1", "0" * 24)


def test_a_note_belongs_to_its_message_group_and_source() -> None:
    """It is believed for the source it names, on the message and in the group it was written for, and nowhere else."""
    queue = labs(URL + ".fifo")
    sent = queue.outgoing(letter(attributes={"headers": {"h": "v"}, "ordering_key": "one"}), largest=10_000)
    assert sent is not None

    def arrived(**changes: Any) -> Message:
        values = {"body": sent.body, "headers": sent.headers, "ordering_key": "one", **changes}
        return Message(message_id="m2", receipt=None, accepted_at=datetime.now(UTC), **values)

    note = queue.note(arrived())
    assert note is not None
    assert (note.id, note.reason) == ("0" * 24, "rejected")
    assert queue.note(arrived(ordering_key="two")) is None
    assert queue.note(arrived(body=b"hullo")) is None
    assert queue.note(arrived(headers={NOTE: sent.headers[NOTE]})) is None
    assert queue.note(arrived(headers={**sent.headers, "AWSTraceHeader": "set by SQS"})) is not None
    other = SourceSettings(
        name="other", kind="sqs", queue_url=URL + ".fifo", signature={"secrets": ["a secret"]}
    )  # same secret, another source
    assert DeadLetterQueue(other).note(arrived()) is None


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("sqs", "labs", "another queue than the source's own"),
        ("sqs", URL, "another queue than the source's own"),
        ("sqs", "dlq.fifo", "a standard queue, as the source's is"),
        ("sqs", "a name", "a queue's name, or its URL"),
        ("sqs", "https://sqs.eu-west-1.amazonaws.com/", "a queue's name, or its URL"),
        ("storage_queue", "Labs", "a queue's name, of 3 to 63"),
        ("storage_queue", "labs", "another queue than the source's own"),
        ("local", "dlq", "expected none, since the source is local"),
    ],
    ids=["itself", "its-url", "fifo", "no-name", "no-url", "no-azure-name", "azure-itself", "local"],
)
def test_wrong_queues_are_refused(kind: str, given: str, expected: str, tmp_path: Path) -> None:
    """A dead-letter queue that cannot be one is refused in a line that names the setting."""
    own = {
        "sqs": {"QUEUE_URL": URL},
        "storage_queue": {"QUEUE": "labs", "CONNECTION_STRING": "UseDevelopmentStorage=true"},
    }
    values = {"KIND": kind, "DEAD_LETTER_QUEUE": given, **own.get(kind, {"PATH": "queue.db"})}
    with pytest.raises(SettingsError, match=f"DEAD_LETTER_QUEUE: .*{expected}"):
        load_settings(env={f"CONSUMER_SOURCES__LABS__{name}": value for name, value in values.items()}, cwd=tmp_path)


@pytest.mark.parametrize("given", ["labs-dlq", "https://sqs.eu-west-1.amazonaws.com/123456789012/labs-dlq"])
async def test_a_queue_is_named_or_has_a_url(given: str) -> None:
    """A name means a queue beside the source's own, which needs no call; a URL is taken as it is."""
    settings = await labs(dead_letter_queue=given).settings()
    assert (settings.queue_url, settings.region) == (f"{URL}-dlq", "eu-west-1")


def arn(name: str) -> str:
    """The ARN of a queue."""
    return f"arn:aws:sqs:eu-west-1:123456789012:{name}"


def said(source: Facts, letters: Facts, max_age: float = 86_400.0) -> str:
    """What is warned of."""
    return " ".join(one.detail for one in describe(source, letters, name="labs", max_age=max_age) if not one.ok)


def test_what_check_says_of_a_dead_letter_queue() -> None:
    """Short retention, a policy that lets nobody redrive there, and one of its own are warned of; nothing else is."""
    source = Facts(retention=4 * DAY, redrive_after=1000, redrive_target=arn("dlq"), arn=arn("labs"))
    assert said(source, Facts(retention=14 * DAY, arn=arn("dlq"))) == ""
    assert "MessageRetentionPeriod to 4d" in said(source, Facts(retention=DAY, arn=arn("dlq")))
    assert "MessageRetentionPeriod to 14d" in said(source, Facts(arn=arn("dlq")), 60 * 86_400.0)
    assert said(Facts(retention=4 * DAY), Facts(retention=DAY, arn=arn("dlq"))) == ""
    for policy in ({"redrivePermission": "denyAll"}, {"redrivePermission": "byQueue", "sourceQueueArns": [arn("x")]}):
        assert "RedriveAllowPolicy" in said(source, Facts(arn=arn("dlq"), redrive_allowed=policy))
    allowed = {"redrivePermission": "byQueue", "sourceQueueArns": [arn("labs")]}
    assert said(source, Facts(arn=arn("dlq"), redrive_allowed=allowed)) == ""
    assert "messages move on" in said(source, Facts(arn=arn("dlq"), redrive_after=5))
    assert "may not sqs:GetQueueAttributes" in said(source, Facts(denied=True))
