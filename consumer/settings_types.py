"""The types settings are made of: how each is read from text, what is expected of it, how it is shown.

A type is an annotation that carries its validator and an `Expected`. Validators take text, as the environment has
it, and native values, as TOML has them. None of them repeats a value in an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from consumer.durations import DURATION, SIZE, format_duration, format_size, parse_duration, parse_size

__all__ = [
    "MASK",
    "AgeLimit",
    "Count",
    "DatabaseUrl",
    "Duration",
    "Expected",
    "FilePath",
    "HandlersName",
    "OptionalDuration",
    "OptionalFilePath",
    "OptionalPattern",
    "OptionalRate",
    "OptionalSecret",
    "OptionalSize",
    "OptionalText",
    "Port",
    "PositiveDuration",
    "Prefetch",
    "Retention",
    "Secrets",
    "Size",
    "SourceKind",
    "StartAt",
    "Text",
    "Texts",
    "lower_case",
]

MASK = "********"
"""What stands for a secret wherever settings are shown."""

KINDS = ("local", "sqs", "event_hubs", "storage_queue")

_CLASS_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_HANDLERS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(:[A-Za-z_]\w*)?", re.ASCII)
_DATABASE = re.compile(r"(?P<scheme>(sqlite|postgresql|postgres)(\+[a-z0-9]+)?)://", re.ASCII)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a setting's value has to be, and how it is shown."""

    type: str
    """One or two words, for tables."""
    text: str
    """To stand after "expected" in an error."""
    show: Callable[[Any], str] = str
    """Writes a value (never None) the way it could be given."""
    secret: bool = False
    """It has a twin `X_FILE`, and is masked wherever settings are shown."""
    several: bool = False
    """It is a list; of a secret file each line is one."""
    empty: str = ""
    """How None is shown, and can be given."""


def _boundary(check: Callable[[Any], bool], message: str) -> AfterValidator:
    def validate(value: Any) -> Any:
        if value is not None and not check(value):
            raise ValueError(f"expected {message}")
        return value

    return AfterValidator(validate)


def _pattern(pattern: re.Pattern[str], message: str) -> AfterValidator:
    return _boundary(lambda text: pattern.fullmatch(text) is not None, message)


def _or_word(word: str, zero_too: bool, rest: str) -> BeforeValidator:
    """Read a duration, or the word (and perhaps 0) that stands for none."""

    def validate(value: object) -> float | None:
        if value is None or (isinstance(value, str) and value.strip().lower() == word):
            return None
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise ValueError(f"{error}, or {rest}") from None
        return None if zero_too and seconds == 0 else seconds

    return BeforeValidator(validate)


def lower_case(value: object) -> object:
    """Let a word be written in capitals too."""
    return value.lower() if isinstance(value, str) else value


def _whole(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError("expected a whole number")  # noqa: TRY004  # pydantic turns ValueError, not TypeError, into its own
    return value


def _list(value: object) -> object:
    """A text that starts with `[` is a JSON list; any other is the only entry, verbatim."""
    if not isinstance(value, str):
        return value
    if not value.startswith("["):
        return [value]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    # Raised out here: the decoder's own error holds the whole text and would hang on as the context.
    raise ValueError('expected a JSON list, since it starts with "["')


def _none_empty(values: Sequence[str | SecretStr]) -> bool:
    return all(len(value) > 0 for value in values)


def _show_list(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)


def _show_database(url: SecretStr) -> str:
    """A file's name is no secret; of any other URL only the scheme is shown."""
    plain = url.get_secret_value()
    match = _DATABASE.match(plain)
    if match and match[2] == "sqlite" and not {"?", "@"} & set(plain):
        return plain
    return f"{match['scheme']}://{MASK}" if match else MASK


def _start(value: object) -> object:
    """Read a position: a word, or a time that says where on the globe it is meant."""
    if isinstance(value, str):
        if value.strip().lower() in _POSITIONS:
            return value.strip().lower()
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value
    raise ValueError(f"expected {_POSITION}")


def _show_start(value: str | datetime) -> str:
    return value if isinstance(value, str) else value.isoformat()


_POSITIONS = ("earliest", "latest")
_POSITION = "earliest, latest or a time with its zone such as 2026-03-16T08:00:00Z"
_MOST_PREFETCHED = 5000
_AGE = f"{DURATION}, or off"
_LIFE = f"{DURATION}, or forever"
_SECRETS = 'one secret, or a JSON list of secrets such as ["new", "old"], none of them empty'
_TEXTS = "one text, or a JSON list of texts, none of them empty"
_KIND = f"{', '.join(KINDS)}, or package.module:SourceClass"
_URL = "a URL: sqlite+aiosqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"

Duration = Annotated[float, BeforeValidator(parse_duration), Expected("duration", DURATION, format_duration)]
"""Seconds, 0 or more."""
PositiveDuration = Annotated[
    float,
    BeforeValidator(parse_duration),
    _boundary(lambda seconds: seconds > 0, f"{DURATION}, longer than 0"),
    Expected("duration", f"{DURATION}, longer than 0", format_duration),
]
"""Seconds, more than 0."""
OptionalDuration = Annotated[
    float | None,
    BeforeValidator(lambda value: None if value is None else parse_duration(value)),
    Expected("duration", DURATION, format_duration),
]
"""Seconds, or None where it is not given."""
AgeLimit = Annotated[
    float | None, _or_word("off", True, "off"), Expected("duration", _AGE, format_duration, empty="off")
]
"""Seconds; None where it is off, written `off` or 0."""
Retention = Annotated[
    float | None, _or_word("forever", False, "forever"), Expected("duration", _LIFE, format_duration, empty="forever")
]
"""Seconds; None for `forever`."""
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    _boundary(lambda size: size > 0, f"{SIZE}, more than 0"),
    Expected("size", f"{SIZE}, more than 0", format_size),
]
"""Bytes, 1 or more."""
OptionalSize = Annotated[
    int | None,
    BeforeValidator(lambda value: None if value is None else parse_size(value)),
    _boundary(lambda size: size > 0, f"{SIZE}, more than 0"),
    Expected("size", f"{SIZE}, more than 0", format_size),
]
"""Bytes, 1 or more, or None where it is not given."""
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1), Expected("number", "a whole number, 1 or more")]
OptionalRate = Annotated[
    float | None,
    Field(gt=0, allow_inf_nan=False),
    Expected("number", "a number, more than 0", "{:g}".format),
]
"""So many a second, or None for no limit."""
Prefetch = Annotated[
    int,
    BeforeValidator(_whole),
    Field(ge=1, le=_MOST_PREFETCHED),
    Expected("number", f"a whole number from 1 to {_MOST_PREFETCHED}"),
]
StartAt = Annotated[
    Literal["earliest", "latest"] | datetime, BeforeValidator(_start), Expected("position", _POSITION, _show_start)
]
"""Where reading begins; a time is aware."""
Port = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=65_535), Expected("number", "a port from 0 to 65535")]
Text = Annotated[str, _boundary(bool, "text that is not empty"), Expected("text", "text that is not empty")]
OptionalText = Annotated[
    str | None, _boundary(bool, "text that is not empty"), Expected("text", "text that is not empty")
]
Texts = Annotated[
    list[str],
    BeforeValidator(_list),
    _boundary(_none_empty, _TEXTS),
    Expected("list", _TEXTS, _show_list, several=True),
]
OptionalPattern = Annotated[
    list[str] | None,
    BeforeValidator(_list),
    _boundary(lambda values: bool(values) and _none_empty(values), f"{_TEXTS}, at least one"),
    Expected("list", f"{_TEXTS}, at least one", _show_list, several=True),
]
FilePath = Annotated[Path, Expected("path", "a path")]
OptionalFilePath = Annotated[Path | None, Expected("path", "a path")]
Secrets = Annotated[
    list[SecretStr],
    BeforeValidator(_list),
    _boundary(_none_empty, _SECRETS),
    Expected("secrets", _SECRETS, lambda values: ", ".join([MASK] * len(values)), secret=True, several=True),
]
OptionalSecret = Annotated[
    SecretStr | None,
    _boundary(bool, "text that is not empty"),
    Expected("secret", "text that is not empty", lambda _: MASK, secret=True),
]
DatabaseUrl = Annotated[
    SecretStr,
    _boundary(lambda url: _DATABASE.match(url.get_secret_value()) is not None, _URL),
    Expected("secret", _URL, _show_database, secret=True),
]
"""Secret, since it may hold a password; shown as its scheme."""
SourceKind = Annotated[
    str,
    _boundary(lambda kind: kind in KINDS or _CLASS_NAME.fullmatch(kind) is not None, _KIND),
    Expected("kind", _KIND),
]
HandlersName = Annotated[
    str, _pattern(_HANDLERS, "module or module:attribute"), Expected("text", "module or module:attribute")
]
