"""`python -m consumer`: the same as the `consumer` command."""

from __future__ import annotations

from consumer.cli import main

if __name__ == "__main__":
    main(prog_name="consumer")
