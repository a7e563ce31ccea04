"""Where settings come from: flag, then environment, then TOML file, then default, merged key by key.

This is done here rather than by pydantic-settings because four things are wanted that it does not give: the origin
of every single value, the refusal of unknown names with the nearest one, secrets from files (`X_FILE`) at each
level, and sources named by the user. Pydantic still does the validation; its errors are rewritten, since they
show what was given.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from consumer.errors import SettingsError
from consumer.secret_files import read_secret_file
from consumer.settings import INHERITED, Settings, contradictions, fold_source_name
from consumer.settings_names import (
    ANY,
    PREFIX,
    Key,
    dotted,
    env_name,
    find,
    is_service_link,
    is_table,
    leaves,
    nearest,
    spread,
)

__all__ = ["DEFAULT_CONFIG", "Loaded", "load_settings"]

DEFAULT_CONFIG = "consumer.toml"
"""The file read from the current folder, if it is there, when no other is named."""

_CONFIG_VARIABLE = "CONSUMER_CONFIG"
_LINE = re.compile(r"at line (\d+), column (\d+)")
_LONGEST_ERROR = 500


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each came from. Keys are dotted: `sources.labs.kind`."""

    settings: Settings
    origins: Mapping[str, str]
    """flag, environment NAME, the TOML file's name, file PATH, or default; an inherited value has its giver's."""
    secret_files: Mapping[str, Path]
    """The files secrets came from, under the key of the secret: what there is to watch."""
    spellings: Mapping[str, str]
    """How the user wrote each setting that was given."""

    def name_of(self, key: str) -> str:
        """How to name a setting to the user: as it was written, or as the environment spells it."""
        return self.spellings.get(key) or env_name(tuple(key.split(".")))


@dataclass(frozen=True, slots=True)
class _Given:
    """One value, as some level gave it."""

    value: Any = field(repr=False)
    origin: str
    spelling: str
    is_file: bool = False


_Level = dict[Key, _Given]


def load_settings(
    *,
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
) -> Loaded:
    """Read all settings: `overrides` (flags, by dotted key; None means not given), `env`, the TOML file, defaults.

    `config` names the TOML file, else `CONSUMER_CONFIG`, else `consumer.toml` in `cwd` if there is one. `env` is
    `os.environ` unless given; `cwd`, the current folder unless given, is what relative paths of the TOML file and
    of secret files start from.

    Raises SettingsError with one line that names the setting as the user wrote it and says what is expected. No
    value is in it, nor in any exception chained to it.
    """
    env = os.environ if env is None else env
    cwd = Path() if cwd is None else cwd
    document, file = _config_file(config, env, cwd)
    declared = _declared(document, file)
    given = _toml_level(document, file)
    given |= _env_level(env, set(declared))
    given |= _flag_level(overrides or {}, set(declared))
    files: dict[Key, Path] = {}
    for key, one in list(given.items()):
        if one.is_file:
            given[key], files[key] = _from_file(key, one, cwd)
    names = _Spellings(given, dict.fromkeys(declared, file))
    settings = _validated(given, declared, names)
    names.settle(settings)
    for conflict, text in contradictions(settings):
        raise _refusal(names.of(tuple(conflict.split("."))), text)
    return Loaded(
        settings=settings,
        origins={dotted(key): names.origin(key) for key in _all_keys(settings)},
        secret_files={dotted(key): path for key, path in files.items()},
        spellings={dotted(key): one.spelling for key, one in given.items()},
    )


def _config_file(config: Path | None, env: Mapping[str, str], cwd: Path) -> tuple[dict[str, Any], str]:
    """The parsed TOML file and its name; empty when there is none."""
    name, asked = (str(config), "--config") if config is not None else (env.get(_CONFIG_VARIABLE), _CONFIG_VARIABLE)
    if name is None:
        if not (cwd / DEFAULT_CONFIG).exists():
            return {}, DEFAULT_CONFIG
        name = asked = DEFAULT_CONFIG
    try:
        return tomllib.loads((cwd / name).read_bytes().decode()), name
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        problem = error
        text = _toml_problem(problem)
    raise _refusal(name if isinstance(problem, tomllib.TOMLDecodeError) else asked, text)


def _toml_problem(error: Exception) -> str:
    """What is wrong with a TOML file, without the parser's own words: they can hold a part of a value."""
    if isinstance(error, OSError):
        return f"expected a TOML file that can be read: {error.strerror or 'it cannot'}"
    if isinstance(error, UnicodeDecodeError):
        return "expected a TOML file in UTF-8"
    if not isinstance(error, tomllib.TOMLDecodeError):
        return "expected a TOML file"
    where = _LINE.search(str(error))
    place = f"at line {where[1]}, column {where[2]}" if where else "at its end"
    twice = ", a name is given twice" if str(error).startswith("Cannot ") else ""
    return f"not valid TOML {place}{twice}"


def _toml_level(document: Mapping[str, Any], file: str) -> _Level:
    level: _Level = {}
    for written, value in _flat(document, ()):
        spelling = f"{'.'.join(written)} in {file}"
        key = _folded(written, spelling)
        found = spread(key)
        if found is None and is_table(key):
            raise _refusal(spelling, "expected a table of settings")
        if found is None:
            raise _unknown(spelling, nearest(".".join(key), environment=False, sources=_sources(level)))
        leaf = find(found[0])
        if leaf is not None and isinstance(value, dict):
            raise _refusal(spelling, f"expected {leaf.expected.text}, not a table")
        _add(level, found[0], _Given(value, file, spelling, is_file=found[1]))
    return level


def _flat(table: Mapping[str, Any], prefix: Key) -> Iterator[tuple[Key, Any]]:
    """Every value of a TOML document under the names above it, in tables nobody knows too."""
    for name, value in table.items():
        key = (*prefix, name)
        if isinstance(value, dict) and find(key) is None and (value or is_table(key)):
            yield from _flat(value, key)
        else:
            yield key, value


def _declared(document: Mapping[str, Any], file: str) -> list[str]:
    """The sources a TOML document has a table for, empty or not."""
    sources = document.get("sources", {})
    names = [name for name in sources if isinstance(sources[name], dict)] if isinstance(sources, dict) else []
    return [_folded(("sources", name), f"sources.{name} in {file}")[1] for name in names]


def _env_level(env: Mapping[str, str], sources: set[str]) -> _Level:
    level: _Level = {}
    for name in sorted(env):
        if not name.startswith(PREFIX) or name == _CONFIG_VARIABLE or is_service_link(name, env[name]):
            continue
        key = _folded(tuple(name.removeprefix(PREFIX).lower().split("__")), name)
        found = spread(key)
        if found is None:
            raise _unknown(name, nearest(name, environment=True, sources=sources | _sources(level)))
        _add(level, found[0], _Given(env[name], f"environment {name}", name, is_file=found[1]))
    return level


def _flag_level(overrides: Mapping[str, Any], sources: set[str]) -> _Level:
    level: _Level = {}
    for name, value in overrides.items():
        if value is None:
            continue
        spelling = name if "." in name else f"--{name.replace('_', '-')}"
        found = spread(_folded(tuple(name.split(".")), spelling))
        if found is None:
            raise _unknown(spelling, nearest(name, environment=False, sources=sources))
        _add(level, found[0], _Given(value, "flag", spelling, is_file=found[1]))
    return level


def _folded(key: Key, spelling: str) -> Key:
    """The key with the source's name in it, if any, as it is used everywhere."""
    if key[0] != "sources" or len(key) == 1:
        return key
    try:
        return ("sources", fold_source_name(key[1]), *key[2:])
    except ValueError as error:
        raise _refusal(spelling, str(error)) from None


def _add(level: _Level, key: Key, one: _Given) -> None:
    """X and X_FILE at one level, or one source under two spellings: neither can be said to win."""
    if key in level:
        raise _refusal(f"{level[key].spelling} and {one.spelling}", "expected one of the two, not both")
    level[key] = one


def _from_file(key: Key, one: _Given, cwd: Path) -> tuple[_Given, Path]:
    if not isinstance(one.value, str | Path) or not str(one.value):
        raise _refusal(one.spelling, "expected the path of a file that holds the secret")
    path = cwd / one.value
    try:
        secrets = read_secret_file(path)
    except SettingsError as error:
        raise _refusal(one.spelling, str(error)) from None
    leaf = find(key)
    several = leaf is not None and leaf.expected.several
    if not several and len(secrets) > 1:
        raise _refusal(one.spelling, "expected a file with one line")
    value = secrets if several else secrets[0]
    return _Given(value, f"file {path}", one.spelling), path


def _validated(given: _Level, declared: list[str], names: _Spellings) -> Settings:
    tree: dict[str, Any] = {"sources": {name: {} for name in declared}}
    for key, one in given.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        node[key[-1]] = one.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
    # Raised out here: as the context of another exception, pydantic's would keep every value within reach.
    raise _translated(next(one for one in problems if one["type"] != "default_factory_not_called"), names)


def _translated(problem: Mapping[str, Any], names: _Spellings) -> SettingsError:
    """A pydantic error in the user's words: the name as written, and what is expected, never what was given."""
    kind, context = problem["type"], problem.get("ctx", {})
    key = tuple(str(part) for part in problem["loc"])
    if kind in {"needed", "unfit"}:
        key = (*key, *context["key"].split("."))
    while key and find(key) is None:
        key = key[:-1]
    leaf = find(key) if key else None
    name = names.of(key) if key else "settings"
    expected = f"expected {leaf.expected.text}" if leaf else "expected a table of settings"
    if kind in {"needed", "missing"}:
        return _refusal(name, f"missing, {expected}")
    if kind == "extra_forbidden":
        return _refusal(name, "not a setting of this provider's signatures")
    if kind == "unfit":
        return _refusal(name, context["text"])
    # The text of a value_error is a validator's of ours, and says more than the type alone can.
    return _refusal(name, str(context["error"]) if kind == "value_error" else expected)


class _Spellings:
    """Names and origins of settings, those that a source inherits included."""

    def __init__(self, given: _Level, files: Mapping[str, str]) -> None:
        self._given = given
        self._files = files
        self._providers: Mapping[str, str] = {}

    def settle(self, settings: Settings) -> None:
        """From here on it is known what is inherited from where."""
        self._providers = {name: source.provider for name, source in settings.sources.items()}

    def of(self, key: Key) -> str:
        one = self._given.get(self._giver(key))
        if one is not None:
            return one.spelling
        giver = self._giver(key)
        # What is missing from a source that stands in a file is best named as one of that file.
        in_file = giver[0] == "sources" and giver[1] in self._files
        return f"{dotted(giver)} in {self._files[giver[1]]}" if in_file else env_name(giver)

    def origin(self, key: Key) -> str:
        one = self._given.get(self._giver(key))
        return one.origin if one else "default"

    def _giver(self, key: Key) -> Key:
        """The key that sets what is asked for: its own, or the one it is inherited from."""
        if key in self._given or key[0] != "sources" or key[1] not in self._providers:
            return key
        if key[2] in INHERITED:
            return key[2:]
        return (self._providers[key[1]], *key[2:]) if key[2] == "signature" else key


def _all_keys(settings: Settings) -> Iterator[Key]:
    """Every setting there is, with each source's; those another provider's signatures have are left out."""
    for leaf in leaves():
        if leaf[0] != "sources":
            yield leaf
    for name, source in settings.sources.items():
        for leaf in leaves():
            if leaf[0] != "sources" or leaf[-1] == ANY:
                continue
            if leaf[2] != "signature" or leaf[3] in type(source.signature).model_fields:
                yield ("sources", name, *leaf[2:])
        for option in source.options:
            yield ("sources", name, "options", option)


def _sources(level: _Level) -> set[str]:
    return {key[1] for key in level if key[0] == "sources"}


def _unknown(spelling: str, hint: str) -> SettingsError:
    return _refusal(spelling, f"not a known setting{hint}")


def _refusal(name: str, text: str) -> SettingsError:
    """One line, whatever is in it."""
    line = f"{name}: {text}"[:_LONGEST_ERROR]
    return SettingsError("".join(char if char.isprintable() else "?" for char in line))
