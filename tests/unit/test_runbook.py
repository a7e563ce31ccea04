"""Whoever follows the runbook types commands that exist, and follows links that lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from consumer.cli import main

DOCS = Path(__file__).parents[2] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text()
_BLOCKS = re.findall(r"^```sh\n(.*?)^```", RUNBOOK, re.MULTILINE | re.DOTALL)
_INLINE = re.findall(r"`(consumer [^`]+)`", re.sub(r"^```.*?^```", "", RUNBOOK, flags=re.MULTILINE | re.DOTALL))
COMMANDS = sorted({line for block in _BLOCKS for line in block.splitlines()})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_exists(line: str) -> None:
    """With those options, and as many arguments as it takes."""
    command, options = _parse(line)
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.required:
            assert options.get(parameter.name or ""), f"{line}: {parameter.name} is missing"


@pytest.mark.parametrize("text", sorted(set(_INLINE)))
def test_a_command_that_is_only_named_exists(text: str) -> None:
    """In the text, perhaps without its arguments."""
    _parse(text)


def _parse(line: str) -> tuple[click.Command, dict[str, Any]]:
    program, *words = shlex.split(line)
    assert program == "consumer"
    command: click.Command = main
    context = click.Context(main, info_name=program)
    while isinstance(command, click.Group):
        assert words, line
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"{line}: no command {name}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    options, rest, _ = command.make_parser(context).parse_args(words)
    assert not rest, f"{line}: {rest}"
    return command, dict(options)


def test_every_link_leads_somewhere() -> None:
    """To a heading of the page, or to a file."""
    headings = re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        page, _, anchor = target.partition("#")
        if page:
            assert (DOCS / page).exists(), target
        else:
            assert anchor in anchors, target
