"""`consumer relay`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="relay")
def command() -> None:
    """Not written yet."""
