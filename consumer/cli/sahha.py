"""`consumer sahha`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="sahha")
def command() -> None:
    """Not written yet."""
