"""The README says what is true of the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from consumer.cli import main
from consumer.clients.sahha import SahhaClient
from consumer.clients.thrive import ThriveClient
from consumer.outcomes import REASONS
from consumer.settings_names import markdown_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PLATFORMS = (ROOT / "docs" / "platforms.md").read_text()
_IMPORTS = """
from typing import ClassVar
from pydantic import BaseModel
from consumer.events import NudgeEvent, ThriveEvent
class Journey(BaseModel): ...
"""
_JOURNEY = """
@table.on(JourneyEvent)
async def journey(event: JourneyEvent, context: Context) -> None: ...
"""


def test_the_table_of_settings_is_the_programs_own() -> None:
    """Made by `consumer settings --markdown`; a setting that changes must change there too."""
    between = README.split("<!-- settings: made by `consumer settings --markdown` -->")[1]
    assert between.split("<!-- end of settings -->")[0].strip() == markdown_table().strip()


def test_every_command_is_named() -> None:
    """And each answers --help with an example."""
    for name in main.list_commands(None):
        assert re.search(rf"`(consumer )?{name}\b", README), name
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Example" in result.output, name


def test_every_dead_letter_reason_is_explained() -> None:
    """In the table of reasons."""
    for reason in REASONS:
        assert f"`{reason}`" in README, reason


def test_the_example_works(tmp_path: Path) -> None:
    """The handlers and their test, copied as they are, pass."""
    handlers, event, test, nudge = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "handlers.py").write_text(f"{_IMPORTS}{handlers}{event}{_JOURNEY}{nudge}")
    (tmp_path / "test_it.py").write_text(test)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", "test_it.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in result.stdout, result.stdout + result.stderr


def test_the_two_commands_are_there() -> None:
    """What a newcomer types first."""
    assert "make demo" in README
    assert "make test" in README


@pytest.mark.parametrize(
    ("client", "title"),
    [
        (ThriveClient(tenant_key=None), "Thrive"),
        (SahhaClient(base_url="https://api.sahha.ai", client_id=None, client_secret=None), "Sahha"),
    ],
    ids=["thrive", "sahha"],
)
def test_every_call_of_a_client_is_listed(client: object, title: str) -> None:
    """In docs/platforms.md, by the client's part; and nothing there that is not."""
    section = PLATFORMS.split(f"\n## {title}\n")[1].split("\n## ")[0]
    listed = {
        name.strip(" `"): set(re.findall(r"`(\w+)`", calls))
        for name, calls in re.findall(r"^  \| (`?\w+`?) \| (`.*) \|$", section, re.MULTILINE)
    }
    parts = {name: part for name, part in vars(client).items() if not name.startswith("_")}
    assert set(listed) == {"itself", *parts}
    plumbing = {"close", "replace_tenant_key", "replace_client_secret", *parts}
    assert listed["itself"] == _calls(client) - plumbing
    for name, part in parts.items():
        assert listed[name] == _calls(part), name


def _calls(part: object) -> set[str]:
    return {name for name in dir(part) if not name.startswith("_") and callable(getattr(part, name))}
