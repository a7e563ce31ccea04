"""`consumer settings`: every setting, its value and where it comes from."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from consumer.cli.common import config_option, load
from consumer.cli.console import print_table
from consumer.settings_loading import Loaded
from consumer.settings_names import Key, Leaf, env_name, find, markdown_table
from consumer.settings_types import MASK

__all__ = ["Line", "command", "lines"]

_USER_INFO = re.compile(r"://[^/@]*@")
_QUERY = re.compile(r"\?.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One setting as it is shown; secrets are masked."""

    setting: str
    environment: str
    value: str
    origin: str


@click.command(name="settings", epilog="Example: CONSUMER_LOG__LEVEL=debug consumer settings --json")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--markdown", is_flag=True, help="Print the table of all settings and defaults, in Markdown, and stop.")
def command(*, config: Path | None, as_json: bool, markdown: bool) -> None:
    """Print every setting with its value and origin; secrets are masked.

    A flag beats the environment (CONSUMER_*, `__` between levels), which beats the TOML file, which beats the
    default. A secret X may be given as X_FILE.
    """
    if markdown:
        click.echo(markdown_table(), nl=False)
        return
    found = lines(load(config))
    if as_json:
        click.echo(json.dumps([asdict(line) for line in found], indent=2, ensure_ascii=False))
    else:
        print_table(("setting", "value", "origin"), [(line.setting, line.value, line.origin) for line in found])


def lines(loaded: Loaded) -> list[Line]:
    """Every setting as it is shown; of a source, those that say something."""
    shown = []
    for name, origin in loaded.origins.items():
        key = _key(name)
        leaf = find(key)
        value = _value(loaded, key)
        if leaf is None or (key[0] == "sources" and origin == "default" and value in (None, [], {})):
            continue
        shown.append(Line(name, env_name(key), _shown(leaf, value, hidden=_is_private(loaded, key)), origin))
    return shown


def _key(name: str) -> Key:
    """An option's own name may have dots in it."""
    parts = name.split(".")
    return (*parts[:3], ".".join(parts[3:])) if parts[0] == "sources" and parts[2] == "options" else tuple(parts)


def _value(loaded: Loaded, key: Key) -> Any:
    value: Any = loaded.settings.source(key[1]) if key[0] == "sources" else loaded.settings
    for part in key[2:] if key[0] == "sources" else key:
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def _is_private(loaded: Loaded, key: Key) -> bool:
    """What a class of the user's own calls an option, and whether it is a secret, is not known."""
    return key[0] == "sources" and key[2] == "options" and ":" in loaded.settings.source(key[1]).kind


def _shown(leaf: Leaf, value: Any, *, hidden: bool) -> str:
    if value is None:
        return leaf.expected.empty
    if hidden:
        return MASK
    text = leaf.expected.show(value)
    if leaf.expected.secret or "://" not in text:
        return text
    return _QUERY.sub(f"?{MASK}", _USER_INFO.sub(f"://{MASK}@", text))
