"""Proving who sent a message: the vectors, the settings, time, and what no message may bring about."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.errors import BadSignature, SettingsError, Stale, Unreadable, Unsigned, VerificationError
from consumer.signatures import SahhaSignature, ThriveSignature

VECTORS = Path(__file__).parent.parent / "vectors"
THRIVE = json.loads((VECTORS / "thrive-default.json").read_text())
SECRET = "a secret for tests, and for nothing else"
NOW = datetime(2026, 3, 16, 8, 0, tzinfo=UTC)
AT = "2026-03-16T08:00:00Z"
BODY = '{"event_id":"e1","data":{"note":"caf\\u00e9 \u00e9"}}'


def thrive(**options: Any) -> ThriveSignature:
    return ThriveSignature(**({"secrets": [SECRET]} | options))


def envelope(text: str, *, secret: str = SECRET, **fields: Any) -> bytes:
    """An envelope signed by hand, so that tests do not lean on the code they test."""
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return json.dumps({"signature": signature, **fields}).encode()


def named(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", THRIVE, ids=named)
def test_thrive_vectors(case: dict[str, Any]) -> None:
    """Every published case of the default scheme opens or is refused as it says."""
    signature = ThriveSignature(
        secrets=[case["secret"]],
        **{name: case[name] for name in ("secret_encoding", "template", "algorithm", "encoding")},
    )
    raw = case["raw"].encode()
    if not case["valid"]:
        with pytest.raises(VerificationError):
            signature.open(raw)
        return
    opened = signature.open(raw)
    assert opened.content == json.loads(opened.body)
    body = json.loads(raw)["body"]
    assert opened.content == (json.loads(body) if isinstance(body, str) else body)
    assert opened.body in raw if isinstance(body, dict) else opened.body.decode() == body


def test_an_opened_message_carries_what_was_proven_and_what_was_not() -> None:
    """Body, time and secret are proven; other plain fields of the envelope are shown as unsigned text."""
    raw = envelope(
        f"{AT}.{BODY}",
        signed_at=AT,
        body=BODY,
        key_id="k1",
        version=2,
        live=True,
        none=None,
        more={"a": 1},
        odd="\ud800",
    )
    opened = ThriveSignature(secrets=["another", SECRET]).open(raw)
    assert opened.body == BODY.encode()
    assert opened.signed_at == NOW
    assert opened.secret_index == 1
    assert opened.content == json.loads(BODY)
    assert opened.unsigned == {"key_id": "k1", "version": "2", "live": "true"}


def test_reprs_show_neither_secrets_nor_health_data() -> None:
    """What ends up in a log or a traceback is harmless."""
    raw = thrive().sign('{"note":"canary"}')
    shown = repr(thrive().open(raw)) + repr(thrive()) + repr(SahhaSignature(secrets=[SECRET]))
    assert "canary" not in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"event_id":"x","event_type":"test"}', Unsigned),
        (b"{}", Unsigned),
        (b'{"signature":null,"signed_at":"x","body":"{}"}', Unsigned),
        (b'{"signature":"","signed_at":"x","body":"{}"}', Unsigned),
        (b'{"signature":[],"signed_at":"x","body":"{}"}', Unsigned),
        (b'{"signature":5,"signed_at":"x","body":"{}"}', BadSignature),
        (b'{"signature":{"a":1},"signed_at":"x","body":"{}"}', BadSignature),
        (b'{"signature":[null,1,""],"signed_at":"x","body":"{}"}', BadSignature),
        (b'{"signature":"00","signed_at":"x","body":"{}"}', BadSignature),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":"x","body":"{}"}', BadSignature),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":"x"}', Unreadable),
        (b'{"signature":"' + b"0" * 64 + b'","body":"{}"}', Unreadable),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":true,"body":"{}"}', Unreadable),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":"x","body":[]}', Unreadable),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":"\\ud800","body":"{}"}', Unreadable),
        (b'{"signature":"' + b"0" * 64 + b'","signed_at":"x","body":"\\ud800"}', Unreadable),
        (b'{"signature":"a","signature":"a","signed_at":"x","body":"{}"}', Unreadable),
        (b"test", Unreadable),
        (b"", Unreadable),
        (b"[]", Unreadable),
    ],
)
def test_each_refusal_has_its_reason(raw: bytes, error: type[VerificationError]) -> None:
    """No signature, a wrong one and no envelope at all are told apart, and nothing is chained to the exception."""
    with pytest.raises(VerificationError) as caught:
        thrive().open(raw)
    assert type(caught.value) is error
    assert caught.value.__context__ is None


@pytest.mark.parametrize("body", ["[]", "1", '{"a":1,"a":1}', '{"a":NaN}', "{} {}", ""])
def test_an_authentic_body_that_is_no_plain_object_is_unreadable(body: str) -> None:
    """The signature holds, but nothing can be believed of such a body."""
    with pytest.raises(Unreadable):
        thrive().open(envelope(f"{AT}.{body}", signed_at=AT, body=body))


def test_a_repeated_name_in_an_object_body_is_unreadable_once_proven() -> None:
    """An object body is held to the same rule as a string body; a forged one is a bad signature first."""
    body = '{"a":1,"a":2}'
    signature = hmac.new(SECRET.encode(), f"{AT}.{body}".encode(), hashlib.sha256).hexdigest()
    raw = f'{{"signed_at":"{AT}","signature":"{signature}","body":{body}}}'
    with pytest.raises(Unreadable):
        thrive().open(raw.encode())
    with pytest.raises(BadSignature):
        thrive(secrets=["other"]).open(raw.encode())


@pytest.mark.parametrize(
    ("age", "allowed"),
    [(timedelta(0), True), (timedelta(hours=72), True), (timedelta(hours=72, seconds=1), False)],
)
def test_age_is_measured_to_the_queues_own_time(age: timedelta, allowed: bool) -> None:
    """A message signed longer before its acceptance than `max_age` is stale, however late it is read."""
    signature, raw = thrive(max_age=72 * 3600), thrive().sign(BODY, signed_at=AT)
    if allowed:
        assert signature.open(raw, accepted_at=NOW + age).signed_at == NOW
    else:
        with pytest.raises(Stale):
            signature.open(raw, accepted_at=NOW + age)
    assert signature.open_any_age(raw).signed_at == NOW


def test_a_time_too_far_ahead_is_stale() -> None:
    """Clocks may differ by the skew allowed, and no more."""
    signature, raw = thrive(max_future_skew=timedelta(minutes=5)), thrive().sign(BODY, signed_at=AT)
    assert signature.open(raw, accepted_at=NOW - timedelta(minutes=5))
    with pytest.raises(Stale):
        signature.open(raw, accepted_at=NOW - timedelta(minutes=5, seconds=1))


def test_age_is_measured_to_now_where_the_queue_gives_no_time() -> None:
    """Without an acceptance time the clock of this machine counts."""
    signature = thrive(max_age=60)
    assert signature.open(signature.sign(BODY)).signed_at is not None
    with pytest.raises(Stale):
        signature.open(signature.sign(BODY, signed_at=AT))


def test_a_time_nobody_can_read_matters_only_to_a_rule_about_age() -> None:
    """Without such a rule it is only text; with one the message is unreadable, after its signature held."""
    raw = thrive().sign(BODY, signed_at="the day before yesterday")
    assert thrive().open(raw).signed_at is None
    with pytest.raises(Unreadable):
        thrive(max_age=60).open(raw, accepted_at=NOW)
    with pytest.raises(BadSignature):
        thrive(max_age=60, secrets=["other"]).open(raw, accepted_at=NOW)


def test_a_forged_time_does_not_pass_for_a_stale_one() -> None:
    """The signature is judged first: only proven messages can be stale."""
    raw = thrive(secrets=["other"]).sign(BODY, signed_at="1999-01-01T00:00:00Z")
    with pytest.raises(BadSignature):
        thrive(max_age=60).open(raw, accepted_at=NOW)


def test_a_template_without_the_time_proves_none() -> None:
    """The time is then optional, shown as unsigned, and no age can be demanded of it."""
    signature = thrive(template="{body}")
    opened = signature.open(signature.sign(BODY, signed_at=AT))
    assert opened.signed_at is None
    assert opened.unsigned == {"signed_at": AT}
    assert signature.open(envelope(BODY, body=BODY)).signed_at is None
    for option in ("max_age", "max_future_skew"):
        with pytest.raises(SettingsError, match=option):
            thrive(template="{body}", **{option: 60})


def test_placeholders_inside_values_are_plain_text() -> None:
    """The template is filled in one pass."""
    body = '{"a":"{signed_at}{body}%b%%"}'
    assert thrive().open(envelope("{body}." + body, signed_at="{body}", body=body)).content == json.loads(body)


def test_a_number_as_time_is_signed_as_it_is_written() -> None:
    """1.7736480e9 and 1773648000 are the same time and different texts."""
    signature = hmac.new(SECRET.encode(), f"1.7736480e9.{BODY}".encode(), hashlib.sha256).hexdigest()
    raw = f'{{"signed_at":1.7736480e9,"signature":"{signature}","body":{json.dumps(BODY)}}}'
    assert thrive(max_age=60).open(raw.encode(), accepted_at=NOW).signed_at == NOW
    with pytest.raises(BadSignature):
        thrive().open(raw.replace("1.7736480e9", "1773648000").encode())


def test_fields_may_stand_elsewhere_and_deeper() -> None:
    """Dotted paths find each field, sign and open agree on them, and decoys elsewhere mean nothing."""
    fields = {"signature": "auth.hmac.value", "signed_at": "auth.at", "body": "payload", "key_id": "auth.key"}
    signature = thrive(fields=fields)
    for as_object in (False, True):
        raw = signature.sign(BODY, signed_at=AT, as_object=as_object)
        raw = raw.replace(b'"at":', b'"key":"k2","at":', 1)[:-1] + b',"signature":"decoy","body":"decoy"}'
        opened = signature.open(raw)
        assert opened.content == json.loads(BODY)
        assert opened.signed_at == NOW
        assert opened.unsigned == {"signature": "decoy", "body": "decoy", "key_id": "k2"}
    with pytest.raises(Unreadable):
        signature.open(signature.sign(BODY).replace(b'"at":', b'"at":"x","at":'))
    with pytest.raises(Unreadable):
        signature.open(signature.sign(BODY).replace(b'"auth":', b'"auth":{},"auth":'))


def test_a_given_prefix_is_demanded() -> None:
    """With a prefix of its own only signatures that bear it count; an empty one forbids any."""
    plain, own = thrive(prefix=""), thrive(prefix="v0:")
    assert own.open(own.sign(BODY)).content
    for verifier, raw in [(own, plain.sign(BODY)), (plain, own.sign(BODY)), (plain, thrive(prefix="v1=").sign(BODY))]:
        with pytest.raises(BadSignature):
            verifier.open(raw)
    assert thrive().open(thrive(prefix="sha512=").sign(BODY)).content


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize(
    "template", ["{signed_at}.{body}", "{body}\n{signed_at}", "{body}", "100% {signed_at}{body}%b"]
)
@pytest.mark.parametrize("encoding", ["auto", "hex", "base64", "base64url"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_what_is_signed_opens(algorithm: str, encoding: str, template: str, as_object: bool) -> None:
    """Signing and opening agree for every setting, also under `auto`; another secret or hash never opens it."""
    options = {"algorithm": algorithm, "template": template}
    raw = thrive(encoding=encoding, **options).sign(BODY, signed_at=NOW, as_object=as_object)
    assert thrive(encoding=encoding, **options).open(raw).body == BODY.encode()
    assert thrive(**options).open(raw).content == json.loads(BODY)
    for other in (
        {**options, "secrets": ["other"]},
        {**options, "algorithm": "sha384" if algorithm != "sha384" else "sha256"},
    ):
        with pytest.raises(BadSignature):
            thrive(**other).open(raw)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_signature_text_is_read_strictly(size: int) -> None:
    """White space, foreign or mixed alphabets, missing padding and wrong lengths never match."""
    algorithm = {32: "sha256", 48: "sha384", 64: "sha512"}[size]
    verifier = thrive(algorithm=algorithm)
    # A body whose digest has both characters in which the two base64 alphabets differ.
    for number in range(10_000):
        body = json.dumps({"n": number})
        digest = hmac.digest(SECRET.encode(), f"{AT}.{body}".encode(), algorithm)
        text = base64.b64encode(digest).decode()
        if "+" in text and "/" in text:
            break
    url = text.replace("+", "-").replace("/", "_")
    bare = url.rstrip("=")

    def opens(signature: str) -> bool:
        raw = json.dumps({"signed_at": AT, "body": body, "signature": signature}).encode()
        try:
            return bool(verifier.open(raw))
        except BadSignature:
            return False

    assert all(opens(good) for good in (digest.hex(), digest.hex().upper(), text, url, bare, "sha256=" + text))
    bad = [
        " " + digest.hex(),
        digest.hex()[:-2] + "  ",
        digest.hex()[:-1],
        digest.hex() + "00",
        "0x" + digest.hex()[2:],
        text.replace("+", "-"),
        text + "\n",
        text[:10] + " " + text[10:],
        url + "=",
        bare + "=====",
        "sha256=v1=" + digest.hex(),
        "SHA256=" + digest.hex(),
    ]
    if "=" in text:
        bad.append(text.rstrip("="))
    assert [text for text in bad if opens(text)] == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"secrets": []}, "secrets"),
        ({"secrets": [""]}, "secrets"),
        ({"secrets": ["fine", ""]}, "secrets"),
        ({"secrets": SECRET}, "secrets"),
        ({"secrets": [SECRET], "secret_encoding": "hex"}, "secrets"),
        ({"secrets": [SECRET], "secret_encoding": "base64"}, "secrets"),
        ({"secrets": ["ab cd"], "secret_encoding": "hex"}, "secrets"),
        ({"secrets": ["\ud800"]}, "secrets"),
        ({"secret_encoding": "rot13"}, "secret_encoding"),
        ({"algorithm": "md5"}, "algorithm"),
        ({"encoding": "base32"}, "encoding"),
        ({"template": ""}, "template"),
        ({"template": "{signed_at}"}, "template"),
        ({"template": "{body}{body}"}, "template"),
        ({"template": "{signed_at}{signed_at}{body}"}, "template"),
        ({"template": "{timestamp}.{body}"}, "template"),
        ({"template": "{body}\ud800"}, "template"),
        ({"fields": {"id": "x"}}, "fields"),
        ({"fields": {"body": ""}}, "fields"),
        ({"fields": {"body": "a..b"}}, "fields"),
        ({"fields": {"body": "signature"}}, "fields"),
        ({"fields": {"signature": "body.signature"}}, "fields"),
        ({"max_age": 0}, "max_age"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"max_age": float("inf")}, "max_age"),
        ({"max_future_skew": -1}, "max_future_skew"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(options: dict[str, Any], names: str) -> None:
    """The one-line error names the setting and holds no secret, nor does anything chained to it."""
    with pytest.raises(SettingsError, match=names) as caught:
        thrive(**options)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__context__ is None


def test_secrets_are_decoded_as_told() -> None:
    """The same key given as text, hex and base64 opens the same message."""
    key = b"0123456789abcdef0123456789abcdef"
    raw = thrive(secrets=[key.decode()]).sign(BODY)
    assert thrive(secrets=[key.hex().upper()], secret_encoding="hex").open(raw).content
    assert thrive(secrets=[base64.b64encode(key).decode()], secret_encoding="base64").open(raw).content


def test_bodies_that_cannot_be_signed_are_refused() -> None:
    """What must be an object is checked before it is signed as one."""
    with pytest.raises(ValueError, match="utf-8"):
        thrive().sign(b"\xff")
    with pytest.raises(Unreadable):
        thrive().sign("[]", as_object=True)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_bring_anything_but_a_verification_error(raw: bytes) -> None:
    """Arbitrary bytes are refused, in both schemes, and never crash."""
    with pytest.raises(VerificationError):
        thrive(max_age=60).open(raw)
    with pytest.raises(VerificationError):
        SahhaSignature(secrets=[SECRET], max_age=60).open(
            raw, {"X-Signature": "0" * 64, "x-external-id": "u", "x-event-type": "t"}
        )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["signed_at", "body", "signature", "a.b"]), inner)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["signed_at", "body", "signature", "auth", "x"]), anything))
def test_no_json_brings_anything_but_a_verification_error(value: dict[str, Any]) -> None:
    """Envelope-like JSON with any types in any field is refused, and never crashes."""
    for signature in (thrive(max_age=60), thrive(fields={"signature": "auth.signature", "body": "auth.body"})):
        with pytest.raises(VerificationError):
            signature.open(json.dumps(value).encode())


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_a_mutated_message_opens_only_if_what_was_signed_is_unchanged(data: st.DataObject, as_object: bool) -> None:
    """One byte changed, lost or added anywhere: either refused, or time and body are the signed ones."""
    raw = thrive().sign(BODY, signed_at=AT, as_object=as_object)
    at = data.draw(st.integers(0, len(raw)))
    piece = data.draw(
        st.binary(max_size=2) | st.sampled_from([b"}", b'"', b" ", b'{"body":"x"}', b'"body":"{}",', b"\\u0041"])
    )
    mutant = raw[:at] + piece + raw[at + data.draw(st.integers(0, 2)) :]
    try:
        opened = thrive().open(mutant)
    except VerificationError:
        return
    assert opened.body == BODY.encode()
    assert opened.signed_at == NOW
