"""`consumer sandbox`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="sandbox")
def command() -> None:
    """Not written yet."""
