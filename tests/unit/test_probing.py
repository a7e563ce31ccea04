"""Finding the signature scheme of a captured message, as a library and as a command."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.cli.probe import command
from consumer.dead_letters.record import DeadLetter, encode
from consumer.envelope import wrap_neutral
from consumer.errors import VerificationError
from consumer.probing import TEMPLATES, Match, probe
from consumer.signatures import SahhaSignature, ThriveSignature

KEY = b"0123456789abcdef0123456789abcdef"
SECRETS = ["some other secret", KEY.decode()]
BODY = '{"event_id": "e1", "data": {"note": "café"}}'
PREFIX = "CONSUMER_THRIVE__SIGNATURE__"
NOW = datetime(2026, 3, 16, 8, 0, tzinfo=UTC)
SCORE_BODY = b'{"externalId":"u1","type":"sleep","score":0.5,"scoreDateTime":"2026-03-16"}'


def usable(raw: bytes, secrets: list[str] | None = None, headers: dict[str, str] | None = None) -> list[Match]:
    report = probe(raw, secrets=secrets or SECRETS, headers=headers)
    return [match for match in report.matches if match.obstacle is None]


def options_of(match: Match) -> dict[str, Any]:
    """The settings a match names, as arguments of the verifier."""
    fields = {}
    options: dict[str, Any] = {}
    for name, value in match.settings.items():
        short = name.removeprefix(PREFIX).lower()
        if short.startswith("fields__"):
            fields[short.removeprefix("fields__")] = value
        elif short != "max_age":
            options[short] = value
    return options | ({"fields": fields} if fields else {})


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("as_object", [False, True])
def test_every_template_tried_is_found(template: str, as_object: bool) -> None:
    """A message signed over any of the texts that are tried gives settings that open it."""
    raw = ThriveSignature(secrets=SECRETS[1:], template=template).sign(BODY, as_object=as_object)
    found = usable(raw)
    assert template in [match.settings[PREFIX + "TEMPLATE"] for match in found]
    for match in found:
        assert match.secret == 1
        assert ThriveSignature(secrets=SECRETS[1:], **options_of(match)).open(raw).content == json.loads(BODY)


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
@pytest.mark.parametrize("secret_encoding", ["utf8", "hex", "base64"])
def test_hash_encoding_and_key_are_found(algorithm: str, encoding: str, secret_encoding: str) -> None:
    """Whatever the hash, the writing of the digest and the reading of the secret."""
    secret = {"utf8": KEY.decode(), "hex": KEY.hex(), "base64": base64.b64encode(KEY).decode()}[secret_encoding]
    raw = ThriveSignature(
        secrets=[secret], secret_encoding=secret_encoding, algorithm=algorithm, encoding=encoding
    ).sign(BODY, signed_at=NOW)
    (match,) = usable(raw, [secret])
    assert match.settings[PREFIX + "ALGORITHM"] == algorithm
    assert match.settings[PREFIX + "SECRET_ENCODING"] == secret_encoding
    assert ThriveSignature(secrets=[secret], **options_of(match)).open(raw).content


@pytest.mark.parametrize("prefix", ["sha256=", "v1=", "v1,", "hmac-sha256:"])
def test_a_prefix_is_found(prefix: str) -> None:
    """Usual prefixes need no setting; another one is named."""
    raw = ThriveSignature(secrets=SECRETS[1:], prefix=prefix).sign(BODY)
    (match,) = usable(raw)
    assert match.settings.get(PREFIX + "PREFIX") == (None if prefix in {"sha256=", "v1="} else prefix)


def test_fields_of_other_names_and_deeper_are_found() -> None:
    """Signature, time and body are looked for wherever a setting could name them, in lists of signatures too."""
    fields = {"signature": "auth.sig.value", "signed_at": "sent", "body": "message.payload"}
    raw = ThriveSignature(secrets=SECRETS[1:], fields=fields).sign(BODY, as_object=True)
    listed = json.loads(ThriveSignature(secrets=SECRETS[1:]).sign(BODY))
    listed["signature"] = ["00", listed["signature"]]
    (match,) = usable(raw)
    assert options_of(match)["fields"] == fields
    assert len(usable(json.dumps(listed).encode())) == 1


def test_a_scheme_without_the_time_comes_with_its_age_rule_off() -> None:
    """The settings printed are complete: an unsigned time cannot have a maximum age."""
    raw = ThriveSignature(secrets=SECRETS[1:], template="{body}").sign(BODY)
    assert usable(raw)[0].settings[PREFIX + "MAX_AGE"] == "off"


@pytest.mark.parametrize(
    ("rewrite", "form"),
    [
        (lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False), "compact JSON"),
        (lambda value: json.dumps(value, sort_keys=True), "spaced sorted ASCII JSON"),
    ],
)
def test_a_signature_over_a_rewritten_body_is_only_reported(rewrite: Callable[[Any], str], form: str) -> None:
    """Nobody can verify what was not sent: the match names the form and is not usable."""
    at = "2026-03-16T08:00:00Z"
    signature = hmac.new(KEY, f"{at}.{rewrite(json.loads(BODY))}".encode(), hashlib.sha256).hexdigest()
    raw = f'{{"signed_at":"{at}","signature":"{signature}","body":{BODY}}}'.encode()
    report = probe(raw, secrets=SECRETS)
    assert [match.obstacle is None for match in report.matches] == [False]
    assert form in str(report.matches[0].obstacle)


def test_a_match_that_does_not_open_says_why() -> None:
    """A signature that holds over a body that is refused all the same is no success."""
    raw = ThriveSignature(secrets=SECRETS[1:]).sign('{"a":1}')
    doubled = raw.replace(b'{"signed_at"', b'{"signature":"x","signed_at"')
    assert usable(raw)
    assert not usable(doubled)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_webhook_is_found_by_its_headers(wrapped: bool) -> None:
    """Given as flags or in a neutral envelope, the headers lead to the other provider's settings."""
    headers = SahhaSignature(secrets=SECRETS[1:], encoding="base64").sign(
        SCORE_BODY, external_id="u1", event_type="ScoreCreatedIntegrationEvent"
    )
    raw = wrap_neutral(provider="sahha", body=SCORE_BODY, headers=headers, received_at=NOW) if wrapped else SCORE_BODY
    (match,) = usable(raw, headers=None if wrapped else headers)
    assert match.provider == "sahha"
    assert match.settings["CONSUMER_SAHHA__SIGNATURE__ENCODING"] == "base64"


@pytest.mark.parametrize(
    ("body", "change", "text"),
    [
        (SCORE_BODY + b"\n", {}, "line break"),
        (SCORE_BODY.replace(b":", b": "), {}, "compact JSON"),
        (SCORE_BODY, {"X-External-Id": "u2"}, "X-External-Id"),
        (SCORE_BODY, {"X-Event-Type": ""}, "X-Event-Type"),
    ],
)
def test_a_webhook_that_nearly_matches_says_why(body: bytes, change: dict[str, str], text: str) -> None:
    """A line break an editor added, a body written anew, and headers that contradict the body are told apart."""
    headers = SahhaSignature(secrets=SECRETS[1:]).sign(
        SCORE_BODY, external_id="u1", event_type="ScoreCreatedIntegrationEvent"
    )
    (match,) = probe(body, secrets=SECRETS, headers=headers | change).matches
    assert text in str(match.obstacle)


@pytest.mark.parametrize(
    ("secret", "name", "algorithm", "text"),
    [
        (base64.b64encode(KEY).decode(), "X-Signature", "sha256", "decoded as base64"),
        (KEY.decode(), "X-Other", "sha256", "X-Other"),
        (KEY.decode(), "X-Signature", "sha512", "sha512"),
    ],
)
def test_a_webhook_signed_otherwise_is_only_reported(secret: str, name: str, algorithm: str, text: str) -> None:
    """What no setting can express is told, not printed as settings to use."""
    report = probe(SCORE_BODY, secrets=[secret], headers={name: hmac.new(KEY, SCORE_BODY, algorithm).hexdigest()})
    assert [text in str(match.obstacle) for match in report.matches] == [True]


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.text() | st.none(), lambda x: st.dictionaries(st.text(), x)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_message_is_probed_or_refused(raw: bytes) -> None:
    """Whatever was captured, the answer is a report or `Unreadable`."""
    try:
        report = probe(raw, secrets=["secret"], headers={"X-Signature": "00"})
    except VerificationError:
        return
    assert not report.matches


def run(tmp_path: Path, raw: bytes, *arguments: str, secrets: str = "\n".join(SECRETS), **options: Any) -> Result:
    (tmp_path / "message").write_bytes(raw)
    (tmp_path / "secrets").write_text(secrets)
    return CliRunner().invoke(
        command, [str(tmp_path / "message"), "--secrets-file", str(tmp_path / "secrets"), *arguments], **options
    )


def test_the_command_prints_settings_for_a_shell(tmp_path: Path) -> None:
    """The answer can be pasted; it shows no secret, and line ends are written out."""
    result = run(tmp_path, ThriveSignature(secrets=SECRETS[1:], template="{signed_at}\n{body}").sign(BODY))
    assert result.exit_code == 0
    assert PREFIX + "TEMPLATE=$'{signed_at}\\n{body}'" in result.stdout.splitlines()
    assert "secret 2" in result.stdout
    assert SECRETS[1] not in result.output


def test_the_command_prints_json(tmp_path: Path) -> None:
    """With --json the matches are data."""
    result = run(tmp_path, ThriveSignature(secrets=SECRETS[1:]).sign(BODY), "--json")
    (match,) = json.loads(result.stdout)["matches"]
    assert match["usable"] is True
    assert match["settings"][PREFIX + "TEMPLATE"] == "{signed_at}.{body}"


def test_no_match_says_what_was_tried_and_fails(tmp_path: Path) -> None:
    """Exit code 1, the counts and names on standard error, no value of the message and no secret anywhere."""
    result = run(tmp_path, ThriveSignature(secrets=["unknown"]).sign('{"note":"canary"}'))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "signatures: signature; times: signed_at; bodies: body" in result.stderr
    assert "canary" not in result.output
    assert SECRETS[0] not in result.output


def test_a_message_that_cannot_be_taken_apart_fails(tmp_path: Path) -> None:
    """One line on standard error and exit code 1."""
    result = run(tmp_path, b"[]")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


def test_wrong_usage_has_its_own_exit_code(tmp_path: Path) -> None:
    """A header without a value, an empty secrets file and a missing message are exit code 2."""
    assert run(tmp_path, b"{}", "--header", "X-Signature").exit_code == 2
    assert run(tmp_path, b"{}", secrets="\n").exit_code == 2
    assert CliRunner().invoke(command, [str(tmp_path / "nothing")]).exit_code == 2


def test_the_message_may_come_from_standard_input_and_the_secret_from_the_settings(tmp_path: Path) -> None:
    """`-` reads standard input; without a secrets file the configured secrets are tried."""
    raw = ThriveSignature(secrets=SECRETS[1:]).sign(BODY)
    config = tmp_path / "consumer.toml"
    config.write_text("")
    env = {"CONSUMER_THRIVE__SIGNATURE__SECRETS": SECRETS[1]}
    result = CliRunner().invoke(command, ["-", "--config", str(config)], input=raw, env=env)
    assert result.exit_code == 0, result.output
    missing = CliRunner().invoke(command, ["-", "--config", str(config)], input=raw)
    assert missing.exit_code == 2
    assert "CONSUMER_THRIVE__SIGNATURE__SECRETS" in missing.stderr


def test_what_the_aws_command_printed_holds_the_message(tmp_path: Path) -> None:
    """The whole answer of `aws sqs receive-message` is taken as well as the body alone."""
    raw = ThriveSignature(secrets=SECRETS[:1]).sign(BODY)
    answer = json.dumps({"Messages": [{"MessageId": "m1", "ReceiptHandle": "r1", "Body": raw.decode()}]}, indent=4)
    assert run(tmp_path, answer.encode()).stdout == run(tmp_path, raw).stdout != ""
    assert run(tmp_path, b'{"Messages": []}').exit_code == 1


def test_what_the_aws_command_printed_holds_the_headers(tmp_path: Path) -> None:
    """A webhook's headers are taken from the attributes; attributes that hold no signature mean nothing."""
    headers = SahhaSignature(secrets=SECRETS[1:]).sign(
        SCORE_BODY, external_id="u1", event_type="ScoreCreatedIntegrationEvent"
    )

    def answer(body: bytes, attributes: dict[str, str]) -> bytes:
        written = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        written["odd"] = {"DataType": "Binary", "BinaryValue": "AAAA"}
        return json.dumps({"Messages": [{"Body": body.decode(), "MessageAttributes": written}]}).encode()

    assert "CONSUMER_SAHHA__SIGNATURE__ENCODING" in run(tmp_path, answer(SCORE_BODY, headers)).stdout
    raw = b"[" + ThriveSignature(secrets=SECRETS[:1]).sign(BODY) + b"]"
    assert run(tmp_path, answer(raw, {"trace": "1"})).stdout == run(tmp_path, raw).stdout != ""


def test_an_exported_dead_letter_holds_the_message(tmp_path: Path) -> None:
    """And its headers. Of several lines the first counts; a sealed one is told from a message without a signature."""
    headers = SahhaSignature(secrets=SECRETS[1:]).sign(
        SCORE_BODY, external_id="u1", event_type="ScoreCreatedIntegrationEvent"
    )

    def exported(body: bytes, sent: dict[str, str], seal: Callable[[bytes], bytes] | None = None) -> bytes:
        letter = DeadLetter(
            id="1b4c0710025a5b2f91a887fa",
            provider="thrive",
            source="labs",
            reason="bad_signature",
            attempts=1,
            accepted_at=NOW,
            first_received_at=NOW,
            dead_lettered_at=NOW,
            message=body,
            attributes={"headers": sent},
        )
        return encode(letter, seal=seal)

    raw = ThriveSignature(secrets=SECRETS[:1]).sign(BODY)
    webhook = exported(SCORE_BODY, headers)
    assert run(tmp_path, exported(raw, {}) + webhook).stdout == run(tmp_path, raw).stdout != ""
    assert "CONSUMER_SAHHA__SIGNATURE__ENCODING" in run(tmp_path, webhook).stdout
    sealed = run(tmp_path, exported(raw, {}, lambda secret: secret[::-1]))
    assert (sealed.exit_code, sealed.stdout) == (1, "")
    assert "sealed" in sealed.stderr


def test_headers_reach_the_search(tmp_path: Path) -> None:
    """--header may be given several times, and a value may hold an equals sign."""
    headers = SahhaSignature(secrets=SECRETS[1:], encoding="base64").sign(
        SCORE_BODY, external_id="u1", event_type="ScoreCreatedIntegrationEvent"
    )
    flags = [part for name, value in headers.items() for part in ("--header", f"{name}={value}")]
    result = run(tmp_path, SCORE_BODY, *flags)
    assert result.exit_code == 0, result.output
    assert "CONSUMER_SAHHA__SIGNATURE__ENCODING='base64'" in result.stdout
