"""Making the worker's own tables, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import sys

import pytest
from sqlalchemy import text

from consumer.database import Database
from consumer.errors import DatabaseError
from consumer.migrations import MIGRATIONS, migrate, schema_state


async def test_four_processes_migrate_at_once(database_url: str) -> None:
    """Whichever of several processes comes first makes the tables; the others find nothing left to do."""
    program = (
        "import asyncio, sys\n"
        "from consumer.database import Database\n"
        "from consumer.migrations import migrate\n"
        "async def main():\n"
        "    database = Database(sys.argv[1])\n"
        "    await database.open()\n"
        "    print(await migrate(database))\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, database_url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(4)
    ]
    answers = [(await process.communicate())[0].decode().strip() for process in processes]
    assert sorted(answers) == ["[1]", "[]", "[]", "[]"]


async def test_tables_one_release_newer_will_do(database: Database) -> None:
    """A worker runs against tables one step ahead of it, and refuses those further ahead."""
    needed = MIGRATIONS[-1].version
    assert (await schema_state(database)).problem is None
    for lead, accepted in ((1, True), (2, False)):
        async with database.engine.begin() as connection:
            await connection.execute(text("INSERT INTO consumer_schema (version) VALUES (:v)"), {"v": needed + lead})
        assert ((await schema_state(database)).problem is None) == accepted
    with pytest.raises(DatabaseError, match="newer release"):
        await migrate(database)
