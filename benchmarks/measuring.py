"""Taking measurements that can be compared, and showing them.

Every ratio comes from one run: the contestants take turns, A B A B, and the median of each one's turns counts. So a
machine that is busier in one minute than in the next is unfair to all of them alike.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Plan", "Result", "as_json", "interleaved", "machine", "say", "table"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much time to spend."""

    rounds: int = 5
    quick: bool = False

    def size(self, full: int) -> int:
        """How many messages to use where a whole run uses `full`."""
        return max(1, full // 4) if self.quick else full


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table; an aim is for the ratio where there is a reference, else for our own figure."""

    what: str
    ours: float
    unit: str
    reference: float | None = None
    against: str = ""
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by the reference's."""
        return self.ours / self.reference if self.reference else None

    @property
    def aim(self) -> str:
        """The aim in words."""
        sign = "x" if self.reference else f" {self.unit}"
        if self.least is not None:
            return f">= {self.least:g}{sign}"
        return f"<= {self.most:g}{sign}" if self.most is not None else ""

    @property
    def met(self) -> bool | None:
        """Whether the aim was met; None without one."""
        measured = self.ours if self.ratio is None else self.ratio
        if self.least is not None:
            return measured >= self.least
        return measured <= self.most if self.most is not None else None


def interleaved(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each contestant's figures over `rounds` rounds, in each of which everybody has one turn."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, turn in contestants.items():
            figures[name].append(turn())
            say(f"  round {number + 1}/{rounds}  {name}: {figures[name][-1]:,.1f}")
    return {name: statistics.median(values) for name, values in figures.items()}


def say(text: str) -> None:
    """Tell on standard error what is going on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def machine() -> str:
    """What it was measured on."""
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} CPUs, {sys.implementation.name} {version}, {sys.platform}, loopback"


def table(results: list[Result]) -> str:
    """The results as aligned text."""
    head = ("what", "ours", "reference", "ratio", "aim", "", "against / note")
    rows = [head, *map(_cells, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"on {machine()}"])


def as_json(results: list[Result]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "machine": machine(),
        "results": [{**asdict(result), "ratio": result.ratio, "met": result.met} for result in results],
    }


def _cells(result: Result) -> tuple[str, ...]:
    met = {True: "met", False: "BELOW", None: ""}[result.met]
    return (
        result.what,
        f"{_figure(result.ours)} {result.unit}",
        f"{_figure(result.reference)} {result.unit}" if result.reference is not None else "-",
        f"{result.ratio:.2f}" if result.ratio is not None else "-",
        result.aim,
        met,
        "; ".join(filter(None, (result.against, result.note))),
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
