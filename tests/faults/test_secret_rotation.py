"""A signing secret is replaced while the worker runs: no restart, and no event put aside."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.rig import Rig, eventually, program, signed
from tests.faults.harness import WorkerProcess


def _rewrite(folder: Path, text: str) -> None:
    (folder / "secrets").write_text(text)


def _replace(folder: Path, text: str) -> None:
    new = folder / "secrets.new"
    new.write_text(text)
    new.replace(folder / "secrets")


def _swap_link(folder: Path, text: str) -> None:
    """As Kubernetes does it: `secrets` leads through `..data`, a link to a folder that is replaced as a whole."""
    version = folder / f"..version-{len(list(folder.iterdir()))}"
    version.mkdir()
    (version / "secrets").write_text(text)
    link = folder / "..data.new"
    link.symlink_to(version.name)
    link.replace(folder / "..data")
    if not (folder / "secrets").is_symlink():
        (folder / "secrets").symlink_to("..data/secrets")


@pytest.mark.parametrize("write", [_rewrite, _replace, _swap_link])
async def test_rotation(local_rig: Rig, write: Callable[[Path, str], None]) -> None:
    """Old, then old and new, then new alone: what each signs is handled while it is valid, by the same process."""
    folder = local_rig.folder / "mounted"
    folder.mkdir()
    write(folder, "old\n")
    local_rig.changes["THRIVE__SIGNATURE__SECRETS_FILE"] = str(folder / "secrets")
    local_rig.without.add("THRIVE__SIGNATURE__SECRETS")

    async def handled(*events: tuple[str, str]) -> None:
        await local_rig.publish(signed(program(name), secret=secret) for name, secret in events)
        await eventually(lambda: all(local_rig.effects()[name] for name, _ in events))

    with WorkerProcess(local_rig) as worker:
        await handled(("a1", "old"))
        write(folder, "new\nold\n")
        await worker.logged("secrets_reloaded")
        await handled(("b1", "old"), ("b2", "new"))
        write(folder, "new\n")
        await worker.logged("secrets_reloaded", 2)
        await handled(("c1", "new"))
        assert local_rig.reasons() == Counter()
        await local_rig.publish([signed(program("d1"), secret="old")])
        await eventually(lambda: local_rig.reasons() == Counter(bad_signature=1))
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0
    assert local_rig.effects() == Counter(["a1", "b1", "b2", "c1"])
    assert "old" not in [word for line in worker.text.splitlines() for word in line.split('"')]
