"""The settings of the dead-letter stores: what each kind needs, and what it has no use for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from consumer.dead_letters import blob_objects, s3_objects
from consumer.dead_letters.objects import open_objects
from consumer.errors import SettingsError
from consumer.settings import DeadLetterSettings
from consumer.settings_loading import load_settings

CANARY = "zq-canary"
_STRING = f"AccountName=letters;AccountKey=AAAA{CANARY.replace('-', '')};EndpointSuffix=core.windows.net"


def load(tmp_path: Path, **settings: str) -> DeadLetterSettings:
    env = {f"CONSUMER_DEAD_LETTERS__{name}": value for name, value in settings.items()}
    return load_settings(env=env, cwd=tmp_path).settings.dead_letters


@pytest.mark.parametrize(
    "given",
    [
        {"KIND": "s3", "BUCKET": "letters"},
        {"KIND": "s3", "BUCKET": "arn:aws:s3:eu-west-1:123456789012:accesspoint/letters", "PREFIX": "a/b=c/"},
        {"KIND": "s3", "BUCKET": "letters", "ENDPOINT_URL": "http://store:9000", "REGION": "x", "SSE_KMS_KEY_ID": "k"},
        {"KIND": "blob", "CONTAINER": "letters", "ACCOUNT_URL": "https://letters.blob.core.windows.net"},
        {"KIND": "blob", "CONTAINER": "letters", "CONNECTION_STRING": "UseDevelopmentStorage=true"},
        {"KIND": "file", "PATH": "letters", "ROLL_AFTER": "10m"},
    ],
    ids=lambda given: "-".join(given).lower(),
)
def test_each_kind_with_what_it_needs(tmp_path: Path, given: Mapping[str, str]) -> None:
    """What a kind of store needs is enough."""
    assert load(tmp_path, **given).kind == given["KIND"]


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"KIND": "s3"}, "BUCKET", "missing, expected the bucket's name"),
        ({"KIND": "s3", "BUCKET": f"s3://{CANARY}"}, "BUCKET", "expected a bucket's name"),
        ({"KIND": "s3", "BUCKET": "letters", "PREFIX": f"../{CANARY}"}, "PREFIX", "expected a folder"),
        ({"KIND": "s3", "BUCKET": "letters", "PREFIX": f"/{CANARY}"}, "PREFIX", "expected a folder"),
        ({"KIND": "s3", "BUCKET": "letters", "ENDPOINT_URL": CANARY}, "ENDPOINT_URL", "expected a URL"),
        ({"KIND": "s3", "BUCKET": "letters", "ENDPOINT_URL": f"http://u:{CANARY}@h"}, "ENDPOINT_URL", "expected a URL"),
        ({"KIND": "s3", "BUCKET": "letters", "CONTAINER": CANARY}, "CONTAINER", "expected none, since"),
        ({"BUCKET": CANARY}, "BUCKET", "expected none, since dead_letters.kind is file"),
        ({"PREFIX": CANARY}, "PREFIX", "expected none, since dead_letters.kind is file"),
        ({"KIND": "blob", "CONNECTION_STRING": _STRING}, "CONTAINER", "missing, expected a name of 3 to 63"),
        ({"KIND": "blob", "CONTAINER": "letters"}, "CONNECTION_STRING", "missing, expected it or account_url"),
        ({"KIND": "blob", "CONTAINER": "letters", "CONNECTION_STRING": CANARY}, "CONNECTION_STRING", "expected a conn"),
        (
            {"KIND": "blob", "CONTAINER": "letters", "CONNECTION_STRING": _STRING, "ACCOUNT_URL": "https://a.b"},
            "ACCOUNT_URL",
            "expected either this or connection_string, not both",
        ),
        ({"KIND": "blob", "CONTAINER": "letters", "ACCOUNT_URL": f"https://a.b?sig={CANARY}"}, "ACCOUNT_URL", "expect"),
        ({"KIND": "gcs"}, "KIND", "expected file or s3 or blob or queue"),
        ({"ROLL_AFTER": "0"}, "ROLL_AFTER", "expected a duration"),
    ],
    ids=lambda one: one if isinstance(one, str) and one.isupper() else "",
)
def test_wrong_settings_are_one_line(tmp_path: Path, given: Mapping[str, str], name: str, expected: str) -> None:
    """What a kind lacks, cannot use or has no use for is refused by name, and its value is not shown."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **given)
    line = str(caught.value)
    assert line.startswith(f"CONSUMER_DEAD_LETTERS__{name}: {expected}")
    assert CANARY not in line
    assert "\n" not in line


def test_the_connection_string_is_a_secret(tmp_path: Path) -> None:
    """It may be in a file, and is not in what is shown of the settings."""
    (tmp_path / "string").write_text(_STRING)
    letters = load(tmp_path, KIND="blob", CONTAINER="letters", CONNECTION_STRING_FILE=str(tmp_path / "string"))
    assert letters.connection_string is not None
    assert letters.connection_string.get_secret_value() == _STRING
    assert CANARY.replace("-", "") not in repr(letters)


@pytest.mark.parametrize(
    ("letters", "module", "extra"),
    [
        (DeadLetterSettings(kind="s3", bucket="letters"), s3_objects, "sqs"),
        (DeadLetterSettings(kind="blob", container="letters", account_url="https://a.b"), blob_objects, "event-hubs"),
    ],
    ids=["s3", "blob"],
)
def test_a_missing_sdk_names_its_extra(
    letters: DeadLetterSettings, module: object, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the SDK of its cloud a store says in one line what to install."""

    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(SettingsError, match=rf"dead_letters\.kind is .*health-event-consumer\[{extra}\]"):
        open_objects(letters)


def test_a_region_that_is_none_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 checks regions when a client is made; that is told by the setting's name."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    letters = DeadLetterSettings(kind="s3", bucket="letters", region="not a region")
    with pytest.raises(SettingsError, match=r"^dead_letters\.region: "):
        open_objects(letters)
