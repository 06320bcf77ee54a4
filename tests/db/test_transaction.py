"""A few statements as one transaction: whole or not at all, and the connection is back in every case."""

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import pytest
from conftest import Database
from psycopg import sql
from queues import open_pool
from waiting import until_async

from listener.core.errors import DatabaseError
from listener.db.pool import Connection, Pool
from listener.db.transaction import transaction

pytestmark = pytest.mark.anyio

INSERT = sql.SQL("INSERT INTO things (n) VALUES (1)")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    """One connection: who does not give it back keeps everybody waiting."""
    database.execute("CREATE TABLE things (n int); GRANT ALL ON things TO PUBLIC")
    async with open_pool(database, min_size=1, max_size=1) as pool:
        yield pool


def count(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM things")[0][0])


async def test_what_ends_well_is_committed(database: Database, pool: Pool) -> None:
    async def twice(conn: Connection) -> str:
        await conn.execute(INSERT)
        await conn.execute(INSERT)
        assert count(database) == 0
        return "done"

    assert await pool.transaction(twice, name="twice") == "done"
    assert count(database) == 2
    await pool.run(INSERT, name="next")


@pytest.mark.parametrize("error", [RuntimeError("no"), None], ids=["its own", "the server's"])
async def test_what_fails_is_rolled_back_and_the_connection_is_back(
    database: Database, pool: Pool, error: Exception | None
) -> None:
    async def fail(conn: Connection) -> None:
        await conn.execute(INSERT)
        if error is not None:
            raise error
        await conn.execute(sql.SQL("SELECT 1/0"))

    with pytest.raises(RuntimeError if error else DatabaseError):
        await pool.transaction(fail, name="fail")
    assert count(database) == 0
    await pool.run(INSERT, name="next")
    assert count(database) == 1


async def test_on_a_connection_of_its_own_only_a_commit_makes_it_last(database: Database, pool: Pool) -> None:
    """Left without it, by an error or by a cancellation, nothing has happened, and no connection is left behind."""
    async with transaction(pool, name="kept") as kept:
        await kept.run(INSERT)
        await kept.commit()
    assert count(database) == 1

    with suppress(RuntimeError):
        async with transaction(pool, name="dropped") as dropped:
            await dropped.run(INSERT)
            raise RuntimeError("no")
    with anyio.CancelScope() as scope:
        async with transaction(pool, name="cancelled") as cancelled:
            await cancelled.run(INSERT)
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert count(database) == 1
    left = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name ~ '(kept|dropped|cancelled)$' AND state LIKE '%in transaction%'"
    )
    await until_async(lambda: database.execute(left) == [(0,)], what="the server's end of what was cut")
