"""What the worker tells Python's garbage collector."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import gc, sys
from consumer.collector import settle_collector

settle_collector()


class Knot:
    pass


def tie():
    knot = Knot()
    knot.self = knot


known = gc.get_freeze_count()
for _ in range(100_000):
    tie()
left = sum(isinstance(thing, Knot) for thing in gc.get_objects())
sys.exit(0 if known > 1_000 and left < 20_000 else 1)
"""


def test_what_is_loaded_is_left_alone_and_new_cycles_are_still_collected() -> None:
    """What exists at the start is looked at no more, and cycles made later do not pile up."""
    run = subprocess.run([sys.executable, "-c", _PROGRAM], check=False, timeout=60)
    assert run.returncode == 0
