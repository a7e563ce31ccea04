"""Making the worker's own tables, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from consumer import tables
from consumer.database import Database
from consumer.errors import DatabaseError
from consumer.inbox import Inbox
from consumer.migrations import MIGRATIONS, migrate, schema_state


async def test_the_tables_have_the_described_shape(database: Database) -> None:
    """The migrations make exactly the tables that `consumer.tables` describes."""

    def shape(session: Session) -> dict[str, Any]:
        found = inspect(session.connection())
        return {
            table.name: (
                [(c["name"], c["type"]._type_affinity, c["nullable"]) for c in found.get_columns(table.name)],
                found.get_pk_constraint(table.name)["constrained_columns"],
                sorted(i["name"] for i in found.get_indexes(table.name) if not i.get("duplicates_constraint")),
            )
            for table in tables.metadata.sorted_tables
        }

    described = {
        table.name: (
            [(c.name, c.type._type_affinity, c.nullable) for c in table.columns],
            [c.name for c in table.primary_key],
            sorted(str(index.name) for index in table.indexes),
        )
        for table in tables.metadata.sorted_tables
    }
    async with Inbox(database).transaction() as unit:
        found = await unit.session.run_sync(shape)
    if database.dialect == "sqlite":
        for columns, _, _ in (*found.values(), *described.values()):
            columns[:] = [(name, None, nullable) for name, _, nullable in columns]
    assert found == described


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
