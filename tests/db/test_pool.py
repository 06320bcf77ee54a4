"""The pool's connections: what one statement leaves behind for the next."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from conftest import Database
from psycopg import sql
from queues import open_pool

from listener.core.errors import DatabaseError, Unreachable
from listener.db.pool import Pool

pytestmark = pytest.mark.anyio

#: psycopg prepares a statement that it has run five times.
OFTEN_ENOUGH = 7
READ = sql.SQL("SELECT * FROM things")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """One connection, straight to the server."""
    async with open_pool(database, min_size=1, max_size=1) as pool:
        yield pool


async def backend(pool: Pool) -> int:
    return int((await pool.run(sql.SQL("SELECT pg_backend_pid() AS pid"), name="backend"))[0]["pid"])


@pytest.mark.parametrize("text", ["SELEC", "SELECT * FROM nowhere", "SELECT 1/0"])
async def test_a_failed_statement_takes_neither_its_name_nor_its_connection_along(
    database: Database, pool: Pool, text: str
) -> None:
    """The name is a transaction of its own: a process frozen between the two holds no lock."""
    before = await backend(pool)

    with pytest.raises(DatabaseError):
        await pool.run(sql.SQL(text), name="failing")

    seen = database.execute("SELECT application_name, state FROM pg_stat_activity WHERE pid = %s", [before])
    assert seen == [("order-listener failing", "idle")]
    assert await backend(pool) == before


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE things ADD COLUMN more int", "ALTER TABLE things ALTER COLUMN n TYPE text"],
)
async def test_a_table_that_was_altered_costs_one_statement(database: Database, pool: Pool, change: str) -> None:
    """ "cached plan must not change result type": the connection is replaced, because it would say so for ever."""
    database.execute("CREATE TABLE things (n int); GRANT ALL ON things TO PUBLIC")
    for _ in range(OFTEN_ENOUGH):
        await pool.run(READ, name="read")
    before = await backend(pool)
    database.execute(change)

    with pytest.raises(Unreachable, match="cached plan"):
        await pool.run(READ, name="read")

    assert await pool.run(READ, name="read") == []
    assert await backend(pool) != before


async def test_a_forgotten_prepared_statement_costs_one_statement(database: Database, pool: Pool) -> None:
    """Somebody between us and the server cleaned up."""
    database.execute("CREATE TABLE things (n int); GRANT ALL ON things TO PUBLIC")
    for _ in range(OFTEN_ENOUGH):
        await pool.run(READ, name="read")
    before = await backend(pool)
    await pool.run(sql.SQL("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"), name="clean up")

    with pytest.raises(Unreachable, match="does not exist"):
        await pool.run(READ, name="read")

    assert await pool.run(READ, name="read") == []
    assert await backend(pool) != before


@pytest.mark.parametrize("is_pooled", [False, True])
async def test_how_a_database_writes_its_values_is_not_how_we_read_them(database: Database, is_pooled: bool) -> None:
    """The driver reads ISO and nothing else: a preset of another style would fail every claim."""
    database.execute(
        sql.SQL(
            "ALTER DATABASE {0} SET datestyle = 'German'; ALTER DATABASE {0} SET intervalstyle = 'iso_8601'"
        ).format(sql.Identifier(database.name))
    )
    values = sql.SQL(
        "SELECT timestamptz '2026-11-22 01:02+00' AS at, date '2026-11-22' AS day, interval '90 s' AS span"
    )
    async with open_pool(database, min_size=1, max_size=1, is_pooled=is_pooled) as pool:
        [row] = await pool.run(values, name="read")
    assert row == {
        "at": datetime(2026, 11, 22, 1, 2, tzinfo=UTC), "day": date(2026, 11, 22), "span": timedelta(seconds=90)
    }  # fmt: skip
