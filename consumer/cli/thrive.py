"""`consumer thrive`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="thrive")
def command() -> None:
    """Not written yet."""
