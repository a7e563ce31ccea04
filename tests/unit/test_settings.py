"""Where settings come from, which wins, and how a wrong one is refused."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.settings import Settings
from consumer.settings_loading import Loaded, load_settings
from consumer.settings_names import leaves, markdown_table, settings_table

CANARY = "canary-7f3a"
LOCAL = {"CONSUMER_SOURCES__LABS__KIND": "local", "CONSUMER_SOURCES__LABS__PATH": "queue"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def load(folder: Path, toml: str | None = None, env: Mapping[str, str] | None = None, **overrides: Any) -> Loaded:
    if toml is not None:
        (folder / "consumer.toml").write_text(toml, encoding="utf-8")
    return load_settings(env=env or {}, cwd=folder, overrides=overrides)


def refused(folder: Path, toml: str | None = None, env: Mapping[str, str] | None = None, **overrides: Any) -> str:
    """The one line of the refusal; no canary is in it, in the traceback, nor in any exception chained to it."""
    with pytest.raises(SettingsError) as caught:
        load(folder, toml, env, **overrides)
    text = str(caught.value)
    assert text
    assert text.isprintable()
    error: BaseException | None = caught.value
    assert CANARY not in "".join(traceback.format_exception(caught.value))
    while error is not None:
        assert CANARY not in f"{error!s}{error!r}"
        error = error.__context__
    return text


def test_defaults_hold_together(folder: Path) -> None:
    """With nothing given, every setting has its documented default and none contradicts another."""
    loaded = load(folder)
    settings = loaded.settings
    assert (settings.handlers, settings.max_in_flight, settings.max_in_flight_bytes) == ("handlers", 200, 64 * 1024**2)
    assert (settings.max_attempts, settings.handler_timeout, settings.visibility_timeout) == (8, 30.0, 60.0)
    assert (settings.drain_timeout, settings.unknown_events, settings.app_dir) == (25.0, "dead_letter", Path())
    assert settings.thrive.signature.max_age == 72 * 3600
    assert settings.thrive.signature.max_future_skew == 300
    assert settings.sahha.signature.max_age == settings.dead_letters.max_age == 60 * 86400
    assert settings.inbox.retention == 90 * 86400
    assert settings.database.url.get_secret_value() == "sqlite+aiosqlite:///consumer.db"
    assert set(loaded.origins.values()) == {"default"}


def test_flag_beats_environment_beats_toml_beats_default(folder: Path) -> None:
    """Each level wins over those below it, key by key, and the origin says which it was."""
    toml = "max_in_flight = 1\nmax_attempts = 1\ndrain_timeout = '21s'\n"
    env = {"CONSUMER_MAX_IN_FLIGHT": "2", "CONSUMER_MAX_ATTEMPTS": "2"}
    loaded = load(folder, toml, env, max_in_flight=3, handlers=None)
    settings = loaded.settings
    assert (settings.max_in_flight, settings.max_attempts, settings.drain_timeout) == (3, 2, 21.0)
    assert [loaded.origins[key] for key in ("max_in_flight", "max_attempts", "drain_timeout", "handlers")] == [
        "flag",
        "environment CONSUMER_MAX_ATTEMPTS",
        "consumer.toml",
        "default",
    ]


def test_environment_changes_one_key_of_a_source_in_toml(folder: Path) -> None:
    """A source's name is the same in any letter case, and only the given key of it changes."""
    toml = "[sources.Lab-Results]\nkind = 'local'\npath = 'a'\nmax_attempts = 3\n"
    loaded = load(folder, toml, {"CONSUMER_SOURCES__LAB_RESULTS__PATH": "b"})
    source = loaded.settings.source("lab_results")
    assert (source.name, source.kind, source.path, source.max_attempts) == ("lab_results", "local", Path("b"), 3)
    assert loaded.origins["sources.lab_results.kind"] == "consumer.toml"
    assert loaded.origins["sources.lab_results.path"] == "environment CONSUMER_SOURCES__LAB_RESULTS__PATH"
    assert loaded.name_of("sources.lab_results.kind") == "sources.Lab-Results.kind in consumer.toml"
    assert loaded.name_of("max_attempts") == "CONSUMER_MAX_ATTEMPTS"


def test_config_is_named_by_flag_then_environment(folder: Path) -> None:
    """--config beats CONSUMER_CONFIG, which beats consumer.toml."""
    for name, number in (("consumer.toml", 1), ("env.toml", 2), ("flag.toml", 3)):
        (folder / name).write_text(f"max_attempts = {number}\n", encoding="utf-8")
    env = {"CONSUMER_CONFIG": "env.toml"}
    assert load_settings(env={}, cwd=folder).settings.max_attempts == 1
    assert load_settings(env=env, cwd=folder).settings.max_attempts == 2
    by_flag = load_settings(env=env, cwd=folder, config=Path("flag.toml"))
    assert (by_flag.settings.max_attempts, by_flag.origins["max_attempts"]) == (3, "flag.toml")


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ('["new", "old"]', ["new", "old"]),
        ("a,b", ["a,b"]),
        ("  spaces kept ", ["  spaces kept "]),
        ('"quoted"', ['"quoted"']),
        ("{}", ["{}"]),
    ],
)
def test_list_of_secrets_starts_with_a_bracket(folder: Path, text: str, secrets: list[str]) -> None:
    """Anything that does not start with [ is one secret, verbatim."""
    loaded = load(folder, env={"CONSUMER_THRIVE__SIGNATURE__SECRETS": text})
    assert [one.get_secret_value() for one in loaded.settings.thrive.signature.secrets] == secrets


def test_secret_file_holds_one_secret_a_line(folder: Path) -> None:
    """Line ends are cut, blank lines skipped, everything else is the secret; the file is named for watching."""
    (folder / "secrets").write_bytes("\ufeffnew \r\n\n  \n[old\u2028x\n".encode())
    loaded = load(folder, env={"CONSUMER_THRIVE__SIGNATURE__SECRETS_FILE": "secrets"})
    assert [one.get_secret_value() for one in loaded.settings.thrive.signature.secrets] == ["new ", "[old\u2028x"]
    assert loaded.secret_files == {"thrive.signature.secrets": folder / "secrets"}
    assert loaded.origins["thrive.signature.secrets"] == f"file {folder / 'secrets'}"


def test_any_secret_may_come_from_a_file(folder: Path) -> None:
    """A single secret, such as the database's URL, is the only line of its file; TOML may name files too."""
    (folder / "url").write_text("postgresql://u:p@h/d\n", encoding="utf-8")
    (folder / "one").write_text("s\n", encoding="utf-8")
    toml = "[database]\nurl_file = 'url'\n[sources.labs]\nkind='local'\npath='q'\n"
    loaded = load(folder, toml, {"CONSUMER_SOURCES__LABS__SIGNATURE__SECRETS_FILE": "one"})
    assert loaded.settings.database.url.get_secret_value() == "postgresql://u:p@h/d"
    assert set(loaded.secret_files) == {"database.url", "sources.labs.signature.secrets"}


def test_higher_level_wins_between_a_secret_and_its_file(folder: Path) -> None:
    """X of a higher level beats X_FILE of a lower one, and the other way round; the loser is not even read."""
    env_x = {"CONSUMER_THRIVE__SIGNATURE__SECRETS": "env"}
    loaded = load(folder, "[thrive.signature]\nsecrets_file = 'absent'\n", env_x)
    assert loaded.settings.thrive.signature.secrets[0].get_secret_value() == "env"
    assert loaded.secret_files == {}
    (folder / "file").write_text("from file", encoding="utf-8")
    env_file = {"CONSUMER_THRIVE__SIGNATURE__SECRETS_FILE": str(folder / "file")}
    loaded = load(folder, "[thrive.signature]\nsecrets = ['toml']\n", env_file)
    assert [one.get_secret_value() for one in loaded.settings.thrive.signature.secrets] == ["from file"]


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("CONSUMER_HANDLER", "CONSUMER_HANDLERS"),
        ("CONSUMER_HEALTH_PORT", "CONSUMER_HEALTH__PORT"),
        ("CONSUMER_SOURCE__LABS__KIND", "CONSUMER_SOURCES__LABS__KIND"),
        ("CONSUMER_SOURCES__LABS__QUEUEURL", "CONSUMER_SOURCES__LABS__QUEUE_URL"),
        ("CONSUMER_THRIVE__SIGNATURE__SECRET", "CONSUMER_THRIVE__SIGNATURE__SECRETS"),
        ("CONSUMER_THRIVE__SIGNATURE__SECRET_FILE", "CONSUMER_THRIVE__SIGNATURE__SECRETS_FILE"),
        ("CONSUMER_SOURCES__LABS__SIGNATURE__FIELDS__SIGNEDAT", "CONSUMER_SOURCES__LABS__SIGNATURE__FIELDS__SIGNED_AT"),
    ],
)
def test_unknown_variable_is_refused_with_the_nearest_name(folder: Path, env: str, expected: str) -> None:
    """A mistyped name is not ignored, and the right one is suggested."""
    assert refused(folder, env={env: CANARY}) == f"{env}: not a known setting; did you mean {expected}?"


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("max_atempts = 3", "max_atempts in consumer.toml: not a known setting; did you mean max_attempts?"),
        (
            "[thrve.signature]\nsecrets = ['x']",
            "thrve.signature.secrets in consumer.toml: not a known setting; did you mean thrive.signature.secrets?",
        ),
        ("thrive = 3", "thrive in consumer.toml: expected a table of settings"),
        ("[sources]\nlabs = 3", "sources.labs in consumer.toml: expected a table of settings"),
        ("sources = []", "sources in consumer.toml: expected a table of settings"),
        ("[max_attempts]\nx = 1", "max_attempts in consumer.toml: expected a whole number, 1 or more, not a table"),
        ("[zzz]", "zzz in consumer.toml: not a known setting"),
        ("[sources.'a b']\nkind='local'", "sources.a b in consumer.toml: expected a source name of letters"),
        ("[sources.'a__b']", "sources.a__b in consumer.toml: expected a source name of letters"),
        ('"a\\nb" = 1', "a?b in consumer.toml: not a known setting"),
    ],
)
def test_unknown_or_misplaced_key_of_toml_is_refused(folder: Path, toml: str, line: str) -> None:
    """The file's keys are held to the same names, wherever they stand."""
    assert refused(folder, toml).startswith(line)


SERVICE_LINKS = {
    "CONSUMER_SERVICE_HOST": "10.0.0.1",
    "CONSUMER_SERVICE_PORT": "8080",
    "CONSUMER_SERVICE_PORT_HTTP": "8080",
    "CONSUMER_PORT": "tcp://10.0.0.1:8080",
    "CONSUMER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "CONSUMER_PORT_8080_TCP_PROTO": "tcp",
    "CONSUMER_PORT_8080_TCP_PORT": "8080",
    "CONSUMER_PORT_8080_TCP_ADDR": "10.0.0.1",
    "CONSUMER_METRICS_SERVICE_HOST": "10.0.0.1",
    "CONSUMER_METRICS_SERVICE_PORT": "9090",
    "CONSUMER_METRICS_PORT": "udp://10.0.0.1:9090",
    "CONSUMER_METRICS_PORT_9090_UDP_ADDR": "10.0.0.1",
}


def test_kubernetes_service_links_are_ignored(folder: Path) -> None:
    """A Service called consumer does not stop the worker from starting."""
    assert load(folder, env=SERVICE_LINKS | {"OTHER": "x"}).settings == Settings()


@pytest.mark.parametrize("name", ["CONSUMER_PORT", "CONSUMER_HEALTH_PORT", "CONSUMER_SERVICE_PORT"])
def test_a_slip_that_looks_like_a_service_link_is_refused(folder: Path, name: str) -> None:
    """Only values that Kubernetes would set make a variable a service link."""
    assert refused(folder, env={name: CANARY}).startswith(f"{name}: not a known setting")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MAX_IN_FLIGHT", CANARY, "expected a whole number, 1 or more"),
        ("MAX_IN_FLIGHT", "0", "expected a whole number, 1 or more"),
        ("MAX_IN_FLIGHT_BYTES", CANARY, "expected a size such as"),
        ("MAX_IN_FLIGHT_BYTES", "0", "expected a size such as"),
        ("DRAIN_TIMEOUT", "-5s", "expected a duration such as"),
        ("HANDLER_TIMEOUT", "0", "expected a duration such as"),
        ("UNKNOWN_EVENTS", CANARY, "expected dead_letter or ack"),
        ("HANDLERS", "a b", "expected module or module:attribute"),
        ("UVLOOP", CANARY, "expected true or false"),
        ("HEALTH__PORT", "70000", "expected a port from 0 to 65535"),
        ("HEALTH__HOST", "", "expected text that is not empty"),
        ("LOG__LEVEL", CANARY, "expected debug or info or warning or error or critical"),
        ("DATABASE__URL", f"mysql://u:{CANARY}@h/d", "expected a URL: sqlite"),
        ("INBOX__RETENTION", CANARY, "expected a duration such as"),
        ("DEAD_LETTERS__KIND", "gcs", "expected file or s3 or blob or queue"),
        ("DEAD_LETTERS__KIND", CANARY, "expected file"),
        ("THRIVE__EVENT_TYPES__NUDGE", "[]", "expected one text, or a JSON list"),
        ("THRIVE__EVENT_TYPES__NUDGE", "[1]", "expected one text, or a JSON list"),
        ("THRIVE__SIGNATURE__SECRETS", "", "expected one secret, or a JSON list"),
        ("THRIVE__SIGNATURE__SECRETS", f'["{CANARY}", ""]', "expected one secret, or a JSON list"),
        ("THRIVE__SIGNATURE__SECRETS", f'["{CANARY}"', "expected a JSON list"),
        ("THRIVE__SIGNATURE__SECRETS", "[" * 100_000, "expected a JSON list"),
        ("THRIVE__SIGNATURE__SECRETS", f'[["{CANARY}"]]', "expected one secret, or a JSON list"),
        ("THRIVE__SIGNATURE__TEMPLATE", CANARY, "expected text with {body} in it"),
        ("THRIVE__SIGNATURE__ALGORITHM", "md5", "expected sha256 or sha384 or sha512"),
        ("THRIVE__SIGNATURE__SECRETS_FILE", CANARY, "the file cannot be read: No such file or directory"),
        ("THRIVE__SIGNATURE__SECRETS_FILE", ".", "the file cannot be read: Is a directory"),
        ("THRIVE__SIGNATURE__SECRETS_FILE", "", "expected the path of a file"),
        (
            "SOURCES__LABS__KIND",
            CANARY,
            "expected local, sqs, event_hubs, storage_queue, or package.module:SourceClass",
        ),
        ("SOURCES__LABS__PROVIDER", CANARY, "expected thrive or sahha"),
        ("CONFIG", CANARY, "expected a TOML file that can be read: No such file or directory"),
    ],
)
def test_wrong_value_is_refused_by_name(folder: Path, name: str, value: str, expected: str) -> None:
    """One line names the variable and what is expected of it; what was given is nowhere to be seen."""
    line = refused(folder, env=LOCAL | {f"CONSUMER_{name}": value})
    assert line.startswith(f"CONSUMER_{name}: {expected}")


@pytest.mark.parametrize(
    ("toml", "name"),
    [
        ("max_attempts = true", "max_attempts"),
        ("max_attempts = 2.0", "max_attempts"),
        (f"max_attempts = '{CANARY}'", "max_attempts"),
        ("handlers = 1979-05-27", "handlers"),
        ("[thrive.signature]\nsecrets = 12345", "thrive.signature.secrets"),
        (f"[thrive.signature]\nsecrets = ['{CANARY}', 5]", "thrive.signature.secrets"),
        ("[sources.labs]\nkind = 'local'\npath = 'q'\n[sources.labs.options]\na = 1", "sources.labs.options.a"),
    ],
)
def test_wrong_type_in_toml_is_refused_by_name(folder: Path, toml: str, name: str) -> None:
    """A value of another type is named as the file has it."""
    assert refused(folder, toml).startswith(f"{name} in consumer.toml: expected ")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        (f"a = 1\nb = {CANARY}\n", "consumer.toml: not valid TOML at line 2, column 5"),
        (f"a = '{CANARY}", "consumer.toml: not valid TOML at "),
        ("a = 1\na = 2\n", "consumer.toml: not valid TOML at line 2, column 6, a name is given twice"),
        ("a = " + "[" * 10_000, "consumer.toml: "),
    ],
)
def test_broken_toml_is_refused_with_its_place(folder: Path, toml: str, line: str) -> None:
    """What is wrong is said by line and column, without a word of the file."""
    assert refused(folder, toml).startswith(line)


def test_toml_in_another_encoding_is_refused(folder: Path) -> None:
    """A file that is not UTF-8 is refused, not guessed at."""
    (folder / "consumer.toml").write_bytes(b"handlers = '\xff'")
    assert refused(folder) == "consumer.toml: expected a TOML file in UTF-8"


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"\xff\xfe", b"x" * 1_048_577], ids=["empty", "blank", "bytes", "big"]
)
def test_secret_file_without_a_secret_is_refused(folder: Path, content: bytes) -> None:
    """A file that holds no usable secret stops the start."""
    (folder / "f").write_bytes(content)
    line = refused(folder, env={"CONSUMER_SAHHA__SIGNATURE__SECRETS_FILE": "f"})
    assert line.startswith("CONSUMER_SAHHA__SIGNATURE__SECRETS_FILE: the file is ")


def test_single_secret_with_two_lines_is_refused(folder: Path) -> None:
    """Which of two lines was meant is not guessed."""
    (folder / "f").write_text(f"sqlite:///{CANARY}\nsqlite:///b\n", encoding="utf-8")
    assert refused(folder, env={"CONSUMER_DATABASE__URL_FILE": "f"}).endswith("expected a file with one line")


def test_same_secret_given_twice_at_one_level_is_refused(folder: Path) -> None:
    """X and X_FILE side by side contradict each other."""
    name = "CONSUMER_THRIVE__SIGNATURE__SECRETS"
    line = refused(folder, env={name: CANARY, f"{name}_FILE": "f"})
    assert line == f"{name} and {name}_FILE: expected one of the two, not both"
    toml = f"[thrive.signature]\nsecrets = '{CANARY}'\nsecrets_file = 'f'\n"
    assert refused(folder, toml).endswith("in consumer.toml: expected one of the two, not both")


def test_the_data_dir_is_where_defaults_are_kept(folder: Path) -> None:
    """Database and dead letters go there, unless a setting of their own, from any level, says where."""
    env = {"CONSUMER_DATA_DIR": "/data"}
    settings = load_settings(env=env, cwd=folder).settings
    assert settings.database.url.get_secret_value() == "sqlite+aiosqlite:////data/consumer.db"
    assert settings.dead_letters.path == Path("/data/dead-letters")
    (folder / "consumer.toml").write_text("database.url = 'postgresql://host/name'\ndead_letters.max_age = '1d'\n")
    settings = load_settings(env=env, cwd=folder).settings
    assert settings.database.url.get_secret_value() == "postgresql://host/name"
    assert settings.dead_letters.path == Path("/data/dead-letters")
    assert refused(folder, "database = 3\n", env=env).startswith("database ")


def test_one_source_under_two_spellings_is_refused(folder: Path) -> None:
    """Two tables that mean the same source are not merged by luck."""
    line = refused(folder, "[sources.labs]\nkind = 'local'\n[sources.LABS]\nkind = 'sqs'\n")
    assert line.endswith("expected one of the two, not both")


def test_unknown_flag_is_refused(folder: Path) -> None:
    """A key given by a command is held to the same names."""
    assert refused(folder, max_attemps=3) == "--max-attemps: not a known setting; did you mean max_attempts?"
    assert refused(folder, max_attempts=CANARY).startswith("--max-attempts: expected a whole number")


def test_secrets_are_in_no_repr(folder: Path) -> None:
    """What was loaded may be printed by accident without giving a secret away."""
    env = LOCAL | {
        "CONSUMER_THRIVE__SIGNATURE__SECRETS": CANARY,
        "CONSUMER_SOURCES__LABS__SIGNATURE__SECRETS": f'["{CANARY}"]',
        "CONSUMER_SOURCES__LABS__CONNECTION_STRING": CANARY,
        "CONSUMER_SOURCES__LABS__OPTIONS__TOKEN": CANARY,
        "CONSUMER_DATABASE__URL": f"postgresql://u:{CANARY}@h/d",
    }
    loaded = load(folder, env=env)
    assert CANARY not in f"{loaded!r}{loaded.settings!s}{loaded.settings.source('labs')!r}"
    assert loaded.settings.source("labs").options == {"token": CANARY}


@given(
    st.dictionaries(
        st.sampled_from(
            sorted(row.name_env.replace("<NAME>", "LABS").replace("<OPTION>", "X") for row in settings_table())
        ),
        st.text(max_size=12).map(lambda text: CANARY + text)
        | st.sampled_from(["1", "true", "[]", "30s", "local", "off"]),
        max_size=4,
    )
)
def test_any_environment_loads_or_is_refused_in_one_line(env: dict[str, str]) -> None:
    """Whatever is given, only a SettingsError of one line comes out, and no value with it."""
    refusal: SettingsError | None = None
    try:
        load_settings(env=env, cwd=Path("/nonexistent"))
    except SettingsError as error:
        refusal = error
    assert str(refusal).isprintable()
    assert refusal is None or CANARY not in "".join(traceback.format_exception(refusal))


def test_every_setting_is_described_once() -> None:
    """The documentation's table has each setting with a type and a description."""
    rows = settings_table()
    assert len({row.name_env for row in rows}) == len(rows) == len(leaves())
    assert all(row.type and row.description.endswith(".") for row in rows)
    names = {row.name_env: row for row in rows}
    assert names["CONSUMER_SOURCES__<NAME>__KIND"].default == "(required)"
    assert names["CONSUMER_THRIVE__SIGNATURE__MAX_AGE"].default == "72h"
    assert names["CONSUMER_MAX_IN_FLIGHT_BYTES"].toml_key == "max_in_flight_bytes"
    assert markdown_table().count("\n") == len(rows) + 2
    assert all(line.count("|") == 6 for line in markdown_table().splitlines())
