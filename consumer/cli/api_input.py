"""What the commands of the platforms' REST APIs are given: times, fields, files. No error repeats a value."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final

import click

from consumer.cli.common import Failed

__all__ = [
    "FILE",
    "MEBIBYTE",
    "TIME",
    "assigned",
    "json_object",
    "json_objects",
    "merged",
    "read_file",
    "read_secret",
    "set_option",
]

MEBIBYTE: Final = 1024 * 1024
_LARGEST_SECRET: Final = 64 * 1024
_STDIN: Final = Path("-")


class _Time(click.ParamType[date]):
    """A date, or a time with an offset, in ISO 8601."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """A `date` for a date, an aware `datetime` for a time."""
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail("expected ISO 8601, such as 2026-03-16 or 2026-03-16T08:00:00Z", param, ctx)
        if time.tzinfo is None:
            self.fail("expected an offset, such as 2026-03-16T08:00:00Z or 2026-03-16T08:00:00+12:00", param, ctx)
        return time


TIME: Final = _Time()
FILE: Final = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
"""A file that is there, or `-` for standard input."""


def set_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--set FIELD=VALUE`, as often as wanted; see `assigned`."""
    return click.option(
        "--set",
        "pairs",
        metavar="FIELD=VALUE",
        multiple=True,
        help="Send this field; a.b for one inside another. The value is JSON if it reads as JSON, else text.",
    )(function)


def assigned(pairs: Sequence[str], files: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object that `--set PATH=VALUE` and `--set-file PATH=FILE` describe.

    A path is dotted. A value is JSON if it reads as JSON, else text; what a file holds is text, without the line end.
    Raises `click.UsageError`, which names paths only: values may be secrets.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        path, text = _split(pair, "--set", "FIELD=VALUE")
        _put(found, path, _value(text))
    for pair in files:
        path, name = _split(pair, "--set-file", "FIELD=FILE")
        _put(found, path, read_secret(Path(name)))
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` has, object by object; anything else of `over` takes the place of what was there."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def json_object(file: Path, *, limit: int = MEBIBYTE) -> dict[str, Any]:
    """The JSON object in a file. Raises `click.ClickException`, naming the file."""
    return _object(_json(read_file(file, limit=limit), _name(file)), _name(file))


def json_objects(file: Path, *, limit: int) -> list[dict[str, Any]]:
    """The JSON objects in a file: those of one array, or one in each line.

    Raises `click.ClickException`, naming the file and the place.
    """
    data, name = read_file(file, limit=limit), _name(file)
    if data.lstrip().startswith(b"["):
        return [_object(item, f"{name}: item {number}") for number, item in enumerate(_json(data, name))]
    lines = enumerate(data.splitlines(), 1)
    return [_object(_json(line, f"{name}:{number}"), f"{name}:{number}") for number, line in lines if line.strip()]


def read_secret(file: Path) -> str:
    """The text in a file, without the white space around it. Raises `click.ClickException`, naming the file."""
    try:
        text = read_file(file, limit=_LARGEST_SECRET).decode().strip()
    except UnicodeDecodeError:
        raise Failed(f"{_name(file)}: expected text in UTF-8") from None
    if not text:
        raise Failed(f"{_name(file)}: there is nothing in it")
    return text


def read_file(file: Path, *, limit: int) -> bytes:
    """What is in a file, or on standard input for `-`. Raises `click.ClickException`, also beyond `limit` bytes."""
    try:
        with click.open_file(str(file), "rb") as opened:
            data: bytes = opened.read(limit + 1)
    except OSError as error:
        raise Failed(f"{_name(file)}: {error.strerror}") from None
    if len(data) > limit:
        raise Failed(f"{_name(file)}: larger than {limit} bytes")
    return data


def _name(file: Path) -> str:
    return "standard input" if file == _STDIN else str(file)


def _json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise Failed(f"{where}: expected JSON") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Failed(f"{where}: expected a JSON object")
    return value


def _split(pair: str, option: str, form: str) -> tuple[list[str], str]:
    path, equals, text = pair.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise click.UsageError(f"{option}: expected {form}")
    return parts, text


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return text


def _refused(_: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise click.UsageError(f"{'.'.join(path)}: given as a value and as an object")
    if path[-1] in target:
        raise click.UsageError(f"{'.'.join(path)}: given twice")
    target[path[-1]] = value
