"""What can be said of the images without building them; `make image-test` builds them and tries them out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from consumer.project import write_project
from consumer.settings_loading import load_settings

ROOT = Path(__file__).parent.parent.parent
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.fixture(params=["own", "partner's"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A Dockerfile, and the folder it is used in: of this project, or of the one that `consumer init` writes."""
    if request.param == "own":
        return ROOT / "deploy" / "Dockerfile", ROOT
    write_project(tmp_path)
    return tmp_path / "Dockerfile", tmp_path


def instructions(path: Path) -> list[tuple[str, str]]:
    """Of a Dockerfile, in order: its words of command and what follows each."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def locked(name: str) -> dict[str, str]:
    """What a lock says of each package: its version and hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S.*(?:\n .*)*)", text, flags=re.MULTILINE))


def test_a_linter_has_nothing_to_say(context: tuple[Path, Path]) -> None:
    """hadolint, whose checks of shell lines are shellcheck's, finds nothing."""
    result = subprocess.run([HADOLINT, "--no-color", context[0]], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "")


def test_what_is_copied_is_all_that_is_let_in(context: tuple[Path, Path]) -> None:
    """The ignore file begins with everything, and lets in what is copied and exists, and no more."""
    dockerfile, folder = context
    copies = [text.split()[:-1] for word, text in instructions(dockerfile) if word == "COPY" and "--from" not in text]
    copied = {source for sources in copies for source in sources}
    first, *rest = (folder / ".dockerignore").read_text().splitlines()
    assert first == "*"
    assert {line.removeprefix("!") for line in rest if line.startswith("!")} == copied
    assert all((folder / source).exists() for source in copied)


def test_the_images_settings_are_right(tmp_path: Path) -> None:
    """The image's variables are settings by their right names, and put what is kept into its volume."""
    words = instructions(ROOT / "deploy" / "Dockerfile")
    (variables,) = (text for word, text in words if word == "ENV")
    env = dict(pair.split("=", 1) for pair in variables.split())
    settings = load_settings(env=env, cwd=tmp_path).settings
    assert ("VOLUME", "/data") in words
    assert settings.database.url.get_secret_value().endswith(":////data/consumer.db")
    assert settings.dead_letters.path == Path("/data/dead-letters")
    assert (settings.health.host, settings.relay.host) == ("0.0.0.0", "0.0.0.0")
    ports = {settings.health.port, settings.relay.port}
    assert ports < {int(port) for word, text in words if word == "EXPOSE" for port in text.split()}


def test_the_images_settings_stand_in_nobodys_way(tmp_path: Path) -> None:
    """A file that names the database is what counts, and dead letters may be elsewhere."""
    (variables,) = (text for word, text in instructions(ROOT / "deploy" / "Dockerfile") if word == "ENV")
    (tmp_path / "url").write_text("postgresql://host/name\n")
    env = dict(pair.split("=", 1) for pair in variables.split()) | {
        "CONSUMER_DATABASE__URL_FILE": "url",
        "CONSUMER_DEAD_LETTERS__KIND": "s3",
        "CONSUMER_DEAD_LETTERS__BUCKET": "dead-letters",
    }
    settings = load_settings(env=env, cwd=tmp_path).settings
    assert settings.database.url.get_secret_value() == "postgresql://host/name"
    assert settings.dead_letters.kind == "s3"


def test_it_is_nobody_in_particular_and_hears_signals() -> None:
    """The last word on the user is a number, which Kubernetes can judge; no shell stands between a signal and it."""
    words = instructions(ROOT / "deploy" / "Dockerfile")
    assert [text for word, text in words if word == "USER"] == ["10001:10001"]
    assert [text for word, text in words if word in {"ENTRYPOINT", "CMD"}] == ['["consumer"]', '["run"]']


def test_a_partners_packages_are_for_the_same_python(tmp_path: Path) -> None:
    """Both files start from the same Python, which this package says it supports."""
    write_project(tmp_path)
    pattern = r"^ARG (?:BASE|PYTHON)=(python:(3\.\d+)-slim-\w+)$"
    own = re.search(pattern, (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    theirs = re.search(pattern, (tmp_path / "Dockerfile").read_text(), re.MULTILINE)
    assert own is not None
    assert theirs is not None
    assert own[1] == theirs[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Programming Language :: Python :: {own[2]}" in project["classifiers"]


def test_the_lock_of_the_build() -> None:
    """It has the build backend and what that needs, all of it, as the tests have them."""
    needed, names = set[str](), ["hatchling"]
    while names:
        name = names.pop()
        needed.add(name)
        found = [Requirement(text) for text in requires(name) or []]
        names += [each.name for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]
    build, tests = locked("build"), locked("test")
    assert set(build) == needed
    assert build == {name: tests[name] for name in build}
