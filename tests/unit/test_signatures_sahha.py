"""Proving that a webhook is Sahha's: the vectors, the headers, time."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import BadSignature, SettingsError, Stale, Unreadable, Unsigned, VerificationError
from consumer.signatures import Opened, SahhaSignature

SAHHA = json.loads((Path(__file__).parent.parent / "vectors" / "sahha.json").read_text())
SECRET = "a secret for tests, and for nothing else"
AT = "2026-03-16T08:00:00Z"
NOW = datetime(2026, 3, 16, 8, 0, tzinfo=UTC)
ACTIVITY = json.dumps(
    {"id": "s1", "externalId": "u1", "type": "sleep", "score": None, "scoreDateTime": "x", "createdAtUtc": AT},
    separators=(",", ":"),
)
SCORE = "ScoreCreatedIntegrationEvent"


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", SAHHA, ids=named)
def test_sahha_vectors(case: dict[str, Any]) -> None:
    """Every published case of the webhook scheme opens or is refused as it says."""
    signature = SahhaSignature(secrets=[case["secret"]], encoding=case["encoding"])
    raw = case["raw"].encode()
    if not case["valid"]:
        with pytest.raises(VerificationError):
            signature.open(raw, case["headers"])
        return
    opened = signature.open(raw, case["headers"])
    assert opened.body == raw
    assert opened.content == json.loads(raw)


def sahha_headers(**changes: str) -> dict[str, str]:
    return SahhaSignature(secrets=[SECRET]).sign(ACTIVITY, external_id="u1", event_type=SCORE) | changes


def open_sahha(headers: dict[str, str], body: str = ACTIVITY, **options: Any) -> Opened:
    return SahhaSignature(secrets=["other", SECRET], **options).open(body.encode(), headers)


def test_an_opened_webhook_carries_its_unsigned_headers() -> None:
    """The event type is never signed; the external id only if the body has it."""
    opened = open_sahha(sahha_headers())
    assert opened.unsigned == {"x-event-type": SCORE}
    assert (opened.secret_index, opened.signed_at) == (1, NOW)
    body = ACTIVITY.replace('"externalId":"u1",', "")
    headers = SahhaSignature(secrets=[SECRET], encoding="base64").sign(body, external_id="u1", event_type="NewType")
    assert open_sahha(headers, body).unsigned == {"x-event-type": "NewType", "x-external-id": "u1"}


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, Unsigned),
        (sahha_headers(**{"X-Signature": ""}), Unsigned),
        (sahha_headers(**{"X-Signature": "sha256="}), BadSignature),
        (sahha_headers(**{"X-Signature": "0" * 64}), BadSignature),
        (sahha_headers(**{"X-External-Id": ""}), Unreadable),
        (sahha_headers(**{"X-Event-Type": ""}), Unreadable),
        (sahha_headers(**{"x-signature": "0" * 64}), Unreadable),
        (sahha_headers(**{"x-event-type": SCORE}), Unreadable),
        (sahha_headers(**{"X-External-Id": "u2"}), Unreadable),
        (sahha_headers(**{"X-Event-Type": "DataLogReceivedIntegrationEvent"}), Unreadable),
    ],
)
def test_each_refused_webhook_has_its_reason(headers: dict[str, str], error: type[VerificationError]) -> None:
    """Missing, doubled and contradicting headers are refused, each for its own reason."""
    with pytest.raises(VerificationError) as caught:
        open_sahha(headers)
    assert type(caught.value) is error


def test_a_data_log_needs_a_list_of_logs() -> None:
    """The shape check looks at the one field whose kind it must know."""
    body = '{"logType":"activity","dataLogs":{}}'
    headers = SahhaSignature(secrets=[SECRET]).sign(
        body, external_id="u1", event_type="DataLogReceivedIntegrationEvent"
    )
    with pytest.raises(Unreadable):
        open_sahha(headers, body)


def test_a_webhooks_age_is_that_of_the_time_its_body_signs() -> None:
    """`createdAtUtc`, or a data log's `receivedAtUtc`, is judged at acceptance; a body without either cannot be."""
    signature, headers = SahhaSignature(secrets=[SECRET], max_age=60), sahha_headers()
    assert signature.open(ACTIVITY.encode(), headers, accepted_at=NOW + timedelta(seconds=60))
    with pytest.raises(Stale):
        signature.open(ACTIVITY.encode(), headers, accepted_at=NOW + timedelta(seconds=61))
    assert signature.open_any_age(ACTIVITY.encode(), headers)
    for body, error in [('{"receivedAtUtc":"2020-01-01T00:00:00Z"}', Stale), ("{}", Unreadable)]:
        headers = signature.sign(body, external_id="u1", event_type="NewType")
        with pytest.raises(error):
            signature.open(body.encode(), headers, accepted_at=NOW)
    with pytest.raises(SettingsError, match="encoding"):
        SahhaSignature(secrets=[SECRET], encoding="base64url")
