"""What docs/scale.md tells people to do to a database works with the worker's own statements."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from consumer.database import Database
from consumer.inbox import Inbox, InboxRow, LostRace
from consumer.migrations import migrate, schema_state

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


async def test_the_partitioned_inbox(postgres_url: str) -> None:
    """The SQL of the page turns a fresh database's inbox into a partitioned one that remembers, refuses and forgets."""
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    database = Database(postgres_url)
    try:
        await database.open()
        await migrate(database)
        async with database.engine.connect() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            await raw.execute(sql)
        assert (await schema_state(database)).problem is None
        inbox = Inbox(database)
        rows = [InboxRow(os.urandom(32), os.urandom(32)) for _ in range(40)]
        async with inbox.transaction() as unit:
            await unit.commit(rows)
        with pytest.raises(LostRace):
            async with inbox.transaction() as unit:
                await unit.commit(rows[:1])
        assert (await inbox.lookup([row.key for row in rows])).keys() == {row.key for row in rows}
        ((used,),) = await database.read("SELECT count(DISTINCT tableoid) FROM consumer_inbox", ())
        assert used > 1
        assert await inbox.prune(0.0) == 40
    finally:
        await database.close()
