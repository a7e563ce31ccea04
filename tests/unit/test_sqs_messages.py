"""What the SQS adapter reads from URLs, replies, errors and attributes, without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SourceRefused, SourceUnavailable
from consumer.sources.base import Outgoing
from consumer.sources.sqs import endpoint_of, region_of
from consumer.sources.sqs_check import describe
from consumer.sources.sqs_errors import code_of, fate_of_entry, trouble
from consumer.sources.sqs_messages import Facts, batches, entry, to_message


@pytest.mark.parametrize(
    ("url", "region", "endpoint"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/labs", "eu-west-1", None),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/labs", "us-gov-west-1", None),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/labs", "cn-north-1", None),
        ("https://eu-central-1.queue.amazonaws.com/123456789012/labs", "eu-central-1", None),
        ("https://queue.amazonaws.com/123456789012/labs", None, None),
        (
            "https://vpce-0a1-b2.sqs.us-east-1.vpce.amazonaws.com/123456789012/labs",
            "us-east-1",
            "https://vpce-0a1-b2.sqs.us-east-1.vpce.amazonaws.com",
        ),
        ("http://127.0.0.1:4566/000000000000/labs", None, "http://127.0.0.1:4566"),
        ("labs", None, None),
    ],
)
def test_a_queue_url_tells_region_and_endpoint(url: str, region: str | None, endpoint: str | None) -> None:
    """The region is read from AWS's own host names; any other host is the endpoint itself."""
    assert region_of(url) == region
    assert endpoint_of(url) == endpoint


def raw(**changes: Any) -> dict[str, Any]:
    """A message of a ReceiveMessage reply."""
    return {"MessageId": "m", "ReceiptHandle": "r", "Body": "x", **changes}


def test_a_message_with_all_attributes() -> None:
    """Time, count, group, trace header and text attributes are taken over; binary ones are not text."""
    message = to_message(
        raw(
            Attributes={
                "SentTimestamp": "1700000000123",
                "ApproximateReceiveCount": "7",
                "MessageGroupId": "g",
                "AWSTraceHeader": "Root=1",
            },
            MessageAttributes={
                "kind": {"DataType": "String", "StringValue": "lab"},
                "size": {"DataType": "Number", "StringValue": "3"},
                "blob": {"DataType": "Binary", "BinaryValue": b"x"},
            },
        ),
        lease_until=5.0,
        facts=Facts(retention=timedelta(hours=1), fifo=True),
    )
    assert message.accepted_at == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)
    assert message.expires_at == message.accepted_at + timedelta(hours=1)
    assert (message.receive_count, message.ordering_key, message.lease_until) == (7, "g", 5.0)
    assert message.headers == {"kind": "lab", "size": "3", "AWSTraceHeader": "Root=1"}


def test_a_message_without_attributes() -> None:
    """A server that tells nothing of a message is met with defaults."""
    message = to_message(raw(), lease_until=5.0, facts=Facts())
    assert (message.receive_count, message.ordering_key, dict(message.headers)) == (1, None, {})
    assert abs(message.accepted_at - datetime.now(UTC)) < timedelta(seconds=5)


@given(st.text(st.characters(codec=None, categories=["L", "N", "P", "S", "Z", "Cs"])))
def test_any_text_becomes_bytes(body: str) -> None:
    """No text that JSON can carry makes reading a message fail; what is text is its UTF-8."""
    read = to_message(raw(Body=body), lease_until=0.0, facts=Facts()).body
    assert read.decode("utf-8", "surrogatepass") == body


@given(st.lists(st.text(min_size=1, max_size=300).map(lambda text: text * 1500), max_size=30))
def test_batches_keep_order_and_limits(bodies: list[str]) -> None:
    """Batches hold every message once, in order, at most ten, and at most 1 MiB unless a message alone is larger."""
    entries = [{"MessageBody": body} for body in bodies]
    made = list(batches(entries))
    assert [one for batch in made for one in batch] == entries
    for batch in made:
        assert 1 <= len(batch) <= 10
        assert len(batch) == 1 or sum(len(one["MessageBody"].encode()) for one in batch) <= 1_048_576


def test_a_fifo_entry_has_its_ids() -> None:
    """Ids given are used; otherwise the group is the source's name and the deduplication id fresh."""
    given_ids = entry(Outgoing(b"x", ordering_key="g", deduplication_id="d"), name="labs", fifo=True)
    assert (given_ids["MessageGroupId"], given_ids["MessageDeduplicationId"]) == ("g", "d")
    fresh = [entry(Outgoing(b"x"), name="labs", fifo=True) for _ in range(2)]
    assert {one["MessageGroupId"] for one in fresh} == {"labs"}
    assert len({one["MessageDeduplicationId"] for one in fresh}) == 2
    plain = entry(Outgoing(b"x", ordering_key="g", delay=0.2), name="labs", fifo=False)
    assert plain == {"MessageBody": "x", "DelaySeconds": 1}


class _ClientError(Exception):
    """Shaped as botocore's."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__("text of the server, with 4.2 mmol/l in it")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", 400, SourceRefused),
        ("com.amazonaws.sqs#QueueDoesNotExist", 400, SourceRefused),
        ("AccessDenied", 403, SourceRefused),
        ("KMS.AccessDeniedException", 400, SourceRefused),
        ("ExpiredTokenException", 403, SourceRefused),
        ("InvalidClientTokenId", 403, SourceRefused),
        ("SomethingNobodyKnows", 400, SourceRefused),
        ("SomethingNobodyKnows", 500, SourceUnavailable),
        ("SomethingNobodyKnows", 429, SourceUnavailable),
        ("ThrottlingException", 400, SourceUnavailable),
        ("OverLimit", 403, SourceUnavailable),
    ],
)
def test_codes_have_a_meaning(code: str, status: int, kind: type[Exception]) -> None:
    """Each code is either for waiting or for a person; the error names source and code, never the server's text."""
    error = trouble("labs", "ReceiveMessage", _ClientError(code, status))
    assert type(error) is kind
    assert str(error).startswith("source labs: ")
    assert code.rpartition(".")[2].rpartition("#")[2] in str(error)
    assert "mmol" not in str(error)


def test_errors_without_a_code() -> None:
    """What the service did not say is told by its class: time-outs and networks pass, bad settings do not."""
    assert code_of(OSError("x")) == ""
    assert isinstance(trouble("labs", "x", TimeoutError()), SourceUnavailable)
    assert isinstance(trouble("labs", "x", OSError("secret")), SourceUnavailable)
    assert "secret" not in str(trouble("labs", "x", OSError("secret")))
    assert isinstance(trouble("labs", "x", ValueError("Invalid endpoint")), SourceRefused)


def test_a_fault_of_the_service_is_tried_again() -> None:
    """Whatever its code, an entry that failed without the sender's fault is tried again."""
    assert fate_of_entry("ReceiptHandleIsInvalid", sender_fault=False) == "again"
    assert fate_of_entry("ReceiptHandleIsInvalid", sender_fault=True) == "gone"


@pytest.mark.parametrize(("count", "ok"), [(None, True), (39, False), (40, True)])
def test_the_redrive_policy_is_judged(count: int | None, ok: bool) -> None:
    """No redrive policy is fine; one must let the worker give up first."""
    policy = {} if count is None else {"RedrivePolicy": json.dumps({"maxReceiveCount": count})}
    findings = describe(Facts.read(policy), most_receives=40)
    assert [finding.ok for finding in findings if finding.name == "redrive policy"] == [ok]
