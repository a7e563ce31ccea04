"""What a source inherits, what its kind needs, and which settings contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumer.errors import SettingsError
from consumer.settings import SahhaSignatureSettings, Settings, SourceSettings, ThriveSignatureSettings
from consumer.settings_loading import Loaded, load_settings

DAY = 86_400


def load(**env: str) -> Loaded:
    return load_settings(env={f"CONSUMER_{name}": value for name, value in env.items()}, cwd=Path("/nonexistent"))


def local(**env: str) -> dict[str, str]:
    return {"SOURCES__LABS__KIND": "local", "SOURCES__LABS__PATH": "q"} | env


def sqs(**env: str) -> dict[str, str]:
    return {"SOURCES__LABS__KIND": "sqs", "SOURCES__LABS__QUEUE_URL": "http://q"} | env


def refused(**env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**env)
    return str(caught.value)


def test_source_inherits_what_it_does_not_say() -> None:
    """A limit given for all sources holds for each, until the source has its own; the origin tells."""
    loaded = load(**local(MAX_ATTEMPTS="3", MAX_IN_FLIGHT="7", SOURCES__LABS__MAX_IN_FLIGHT="9"))
    source = loaded.settings.source("labs")
    assert (source.max_attempts, source.max_in_flight, source.handler_timeout) == (3, 9, 30.0)
    assert loaded.origins["sources.labs.max_attempts"] == "environment CONSUMER_MAX_ATTEMPTS"
    assert loaded.origins["sources.labs.max_in_flight"] == "environment CONSUMER_SOURCES__LABS__MAX_IN_FLIGHT"


def test_signature_is_merged_key_by_key() -> None:
    """A source changes the parts of its provider's signature it names, and keeps the others."""
    loaded = load(
        **local(
            THRIVE__SIGNATURE__SECRETS="shared",
            THRIVE__SIGNATURE__ALGORITHM="sha512",
            THRIVE__SIGNATURE__FIELDS__BODY="payload",
            SOURCES__LABS__SIGNATURE__ENCODING="hex",
            SOURCES__LABS__SIGNATURE__FIELDS__SIGNATURE="sig",
        )
    )
    signature = loaded.settings.source("labs").signature
    assert isinstance(signature, ThriveSignatureSettings)
    assert [one.get_secret_value() for one in signature.secrets] == ["shared"]
    assert (signature.algorithm, signature.encoding) == ("sha512", "hex")
    assert (signature.fields.body, signature.fields.signature) == ("payload", "sig")
    assert loaded.origins["sources.labs.signature.secrets"] == "environment CONSUMER_THRIVE__SIGNATURE__SECRETS"


def test_source_with_its_own_secrets_is_opened_by_those_alone() -> None:
    """The provider's secrets do not open a source that has its own."""
    loaded = load(**local(THRIVE__SIGNATURE__SECRETS="shared", SOURCES__LABS__SIGNATURE__SECRETS="own"))
    assert [one.get_secret_value() for one in loaded.settings.source("labs").signature.secrets] == ["own"]


def test_sahha_source_has_sahhas_signature() -> None:
    """The provider decides which signature settings a source has, and only those are accepted."""
    env = local(SOURCES__LABS__PROVIDER="sahha", SAHHA__SIGNATURE__SECRETS="s")
    signature = load(**env).settings.source("labs").signature
    assert isinstance(signature, SahhaSignatureSettings)
    assert signature.max_age == 60 * DAY
    assert "sources.labs.signature.template" not in load(**env).origins
    line = refused(**env, SOURCES__LABS__SIGNATURE__TEMPLATE="{body}")
    assert line == "CONSUMER_SOURCES__LABS__SIGNATURE__TEMPLATE: not a setting of this provider's signatures"


def test_source_is_found_by_any_spelling_of_its_name() -> None:
    """Letter case and dashes do not matter; an unknown name is answered with the known ones."""
    settings = load(SOURCES__LAB_RESULTS__KIND="local", SOURCES__LAB_RESULTS__PATH="q").settings
    assert settings.source("Lab-Results").name == "lab_results"
    with pytest.raises(SettingsError, match=r"'lab_result' is not a source; .* did you mean lab_results"):
        settings.source("lab_result")
    with pytest.raises(SettingsError, match=r"is not a source"):
        settings.source("a b\n")
    with pytest.raises(SettingsError, match="no source is configured"):
        Settings().source("x")


def test_source_settings_stand_alone() -> None:
    """An adapter can be built from a source's settings without any others."""
    source = SourceSettings(name="labs", kind="sqs", queue_url="http://q")
    assert (source.visibility_timeout, source.max_in_flight, source.poll_wait) == (60.0, 200, 10.0)


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ({"SOURCES__LABS__PATH": "q"}, "CONSUMER_SOURCES__LABS__KIND: missing, expected local, sqs"),
        ({"SOURCES__LABS__KIND": "local"}, "CONSUMER_SOURCES__LABS__PATH: missing, expected a path"),
        ({"SOURCES__LABS__KIND": "sqs"}, "CONSUMER_SOURCES__LABS__QUEUE_URL: missing, expected text"),
    ],
)
def test_source_without_what_its_kind_needs_is_refused(env: dict[str, str], line: str) -> None:
    """What is missing is named, not the source as a whole."""
    assert refused(**env).startswith(line)


def test_missing_key_of_a_source_in_toml_is_named_as_in_the_file(tmp_path: Path) -> None:
    """A key to be added to the file is spelled as the file would have it."""
    (tmp_path / "consumer.toml").write_text("[sources.labs]\nkind = 'sqs'\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^sources\.labs\.queue_url in consumer\.toml: missing"):
        load_settings(env={}, cwd=tmp_path)
    (tmp_path / "consumer.toml").write_text("[sources.labs]\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^sources\.labs\.kind in consumer\.toml: missing"):
        load_settings(env={}, cwd=tmp_path)


def test_a_kind_of_ones_own_is_settings_all_the_same() -> None:
    """Whether a kind can be built is not for the settings to say."""
    kind = "partner.queues:Kafka"
    assert load(SOURCES__LABS__KIND=kind, SOURCES__LABS__OPTIONS__TOPIC="t").settings.source("labs").kind == kind


@pytest.mark.parametrize(
    ("env", "line"),
    [
        (local(VISIBILITY_TIMEOUT="1s"), "CONSUMER_VISIBILITY_TIMEOUT: expected 2s or more"),
        (local(SOURCES__LABS__VISIBILITY_TIMEOUT="1s"), "CONSUMER_SOURCES__LABS__VISIBILITY_TIMEOUT: expected 2s"),
        (sqs(VISIBILITY_TIMEOUT="13h"), "CONSUMER_VISIBILITY_TIMEOUT: expected 12h or less"),
        (sqs(SOURCES__LABS__POLL_WAIT="21s"), "CONSUMER_SOURCES__LABS__POLL_WAIT: expected 20s or less"),
        (
            sqs(SOURCES__LABS__POLL_WAIT="10s", DRAIN_TIMEOUT="5s"),
            "CONSUMER_SOURCES__LABS__POLL_WAIT: expected no more than drain_timeout",
        ),
        (sqs(MAX_MESSAGE_BYTES="65MiB"), "CONSUMER_MAX_MESSAGE_BYTES: expected no more than max_in_flight_bytes"),
        (local(THRIVE__SIGNATURE__TEMPLATE="{body}"), "CONSUMER_THRIVE__SIGNATURE__TEMPLATE: expected {signed_at}"),
        ({"INBOX__RETENTION": "10d"}, "CONSUMER_INBOX__RETENTION: expected at least thrive.signature.max_age +"),
        (
            sqs(INBOX__RETENTION="76d"),
            "CONSUMER_INBOX__RETENTION: expected at least sources.labs.signature.max_age + 14d",
        ),
        (sqs(THRIVE__SIGNATURE__MAX_AGE="20d"), "CONSUMER_INBOX__RETENTION: expected at least"),
        ({"DEAD_LETTERS__MAX_AGE": "88d"}, "CONSUMER_INBOX__RETENTION: expected at least"),
        ({"THRIVE__SIGNATURE__MAX_AGE": "off"}, "CONSUMER_INBOX__RETENTION: expected forever, since thrive"),
        ({"DEAD_LETTERS__MAX_AGE": "0"}, "CONSUMER_INBOX__RETENTION: expected forever, since dead_letters"),
        (
            local(SOURCES__LABS__SIGNATURE__MAX_AGE="off"),
            "CONSUMER_INBOX__RETENTION: expected forever, since sources.labs.signature.max_age is off",
        ),
        ({"RETRY__BASE": "1h"}, "CONSUMER_RETRY__BASE: expected no more than retry.cap"),
    ],
)
def test_contradicting_timers_are_refused(env: dict[str, str], line: str) -> None:
    """Settings that cannot both hold stop the start; the setting to change is named."""
    assert refused(**env).startswith(line)


@pytest.mark.parametrize(
    "env",
    [
        sqs(),
        sqs(SOURCES__LABS__PROVIDER="sahha"),
        sqs(INBOX__RETENTION="77d"),
        sqs(DRAIN_TIMEOUT="2s"),
        local(DRAIN_TIMEOUT="0"),
        local(HANDLER_TIMEOUT="1h"),
        local(THRIVE__SIGNATURE__MAX_AGE="off", INBOX__RETENTION="forever"),
        local(THRIVE__SIGNATURE__MAX_AGE="0", INBOX__RETENTION="Forever", THRIVE__SIGNATURE__TEMPLATE="{body}"),
    ],
)
def test_what_goes_together_is_accepted(env: dict[str, str]) -> None:
    """Defaults, short drains and long handlers are no contradictions."""
    load(**env).settings.validate_timers()


def test_default_retention_covers_a_sahha_source() -> None:
    """Sahha's longer ages need a longer memory than the usual default, so its default is theirs added up."""
    env = sqs(SOURCES__LABS__PROVIDER="sahha")
    assert load(**env).settings.inbox.retention == 134 * DAY
    assert refused(**env, INBOX__RETENTION="90d").startswith("CONSUMER_INBOX__RETENTION: expected at least")


def test_poll_wait_is_shortened_for_a_short_drain() -> None:
    """A poll wait nobody asked for gives way to the drain timeout."""
    assert load(**sqs(DRAIN_TIMEOUT="2s")).settings.source("labs").poll_wait == 1.0
    assert load(**sqs()).settings.source("labs").poll_wait == 10.0


@pytest.mark.parametrize("change", [{"base": 3600.0}, {"base": "1h"}])
def test_models_alone_find_contradictions(change: dict[str, Any]) -> None:
    """Settings built in code can be checked too, under their dotted names."""
    with pytest.raises(SettingsError, match=r"^retry\.base: expected"):
        Settings.model_validate({"retry": change}).validate_timers()
