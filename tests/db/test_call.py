"""The one way to run a statement: bounded, cancelled on the server, and the connection lives on."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from conftest import Database
from psycopg import sql
from queues import open_pool
from waiting import until_async

from listener.core.errors import DatabaseError, Unreachable
from listener.db.call import is_transient, make_settings, shielded
from listener.db.pool import Pool

pytestmark = pytest.mark.anyio

SLOW = sql.SQL("SELECT pg_sleep(30)")


@pytest.fixture(params=[False, True], ids=["direct", "pooled"])
async def pool(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Pool]:
    async with open_pool(database, is_pooled=request.param, min_size=1, max_size=1, statement_timeout_s=0.3) as pool:
        yield pool


async def backend(pool: Pool) -> int:
    return int((await pool.run(sql.SQL("SELECT pg_backend_pid() AS pid"), name="test"))[0]["pid"])


def running(database: Database) -> list[tuple[object, ...]]:
    return database.execute("SELECT query FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active'"
                            " AND pid <> pg_backend_pid() AND datname = current_database()")  # fmt: skip


async def test_the_servers_limit_ends_a_statement_and_keeps_the_connection(database: Database, pool: Pool) -> None:
    """It may have waited for a lock that a person holds: to be tried again."""
    before = await backend(pool)

    with pytest.raises(Unreachable):
        await pool.run(SLOW, name="test")

    assert running(database) == []
    assert await backend(pool) == before


async def test_our_own_limit_cancels_on_the_server_and_keeps_the_connection(database: Database) -> None:
    """The second line of defence: the server's limit did not end it."""
    conn = await psycopg.AsyncConnection.connect(database.service_url, autocommit=True)
    try:
        with pytest.raises(Unreachable, match=r"did not answer within 0\.3 s"):
            await shielded(lambda: conn.execute("SELECT pg_sleep(30)"), limit_s=0.3)

        assert running(database) == []
        assert await (await conn.execute("SELECT 1")).fetchone() == (1,)
    finally:
        await conn.close()


async def test_the_callers_own_deadline_neither_cuts_nor_shortens_it(database: Database) -> None:
    """What anyio alone would do: close the connection and leave the statement running. The shield prevents it."""
    conn = await psycopg.AsyncConnection.connect(database.service_url, autocommit=True)
    try:
        with anyio.move_on_after(0.05) as scope:
            cursor = await shielded(lambda: conn.execute("SELECT 1 FROM pg_sleep(0.3)"), limit_s=5)
            assert await cursor.fetchone() == (1,)
        assert scope.cancel_called
        assert not conn.closed
    finally:
        await conn.close()


async def test_a_cancelled_caller_gets_the_statement_finished(database: Database) -> None:
    """It leaves after the commit, never in between; the connection goes back to the pool."""
    database.execute("CREATE TABLE done (n int); GRANT ALL ON done TO PUBLIC")
    slow = sql.SQL("INSERT INTO done SELECT 1 FROM pg_sleep(0.3)")
    async with open_pool(database, min_size=1, max_size=1) as pool:
        before = await backend(pool)
        with anyio.move_on_after(0.1) as scope:
            await pool.run(slow, name="test")
            await anyio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert database.execute("SELECT * FROM done") == [(1,)]
        assert await backend(pool) == before


async def test_a_caller_that_is_cancelled_already_runs_nothing(database: Database) -> None:
    database.execute("CREATE TABLE done (n int); GRANT ALL ON done TO PUBLIC")
    async with open_pool(database) as pool:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.run(sql.SQL("INSERT INTO done VALUES (1)"), name="test")
        assert scope.cancelled_caught
    assert database.execute("SELECT * FROM done") == []


async def test_waiting_for_a_connection_is_bounded(database: Database) -> None:
    """A pool that is busy is no order's fault."""
    async with open_pool(database, min_size=1, max_size=1, statement_timeout_s=0.5) as pool:
        await backend(pool)
        release = anyio.Event()

        async def hold(_conn: psycopg.AsyncConnection[Any]) -> None:
            await release.wait()

        async with anyio.create_task_group() as group:
            # longer than the wait, shorter than the cut of a connection that does not answer
            group.start_soon(pool.inspect, hold)
            await until_async(lambda: pool.stats()["pool_available"] == 0, what="the connection to be taken")
            with pytest.raises(Unreachable, match="no database connection became free"):
                await pool.run(sql.SQL("SELECT 1"), name="test")
            release.set()
        assert await backend(pool)


async def test_a_cut_connection_is_unreachable_and_is_replaced(database: Database, pool: Pool) -> None:
    pid = await backend(pool)
    database.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    with pytest.raises(Unreachable):
        await pool.run(sql.SQL("SELECT 1"), name="test")

    async def works() -> bool:
        try:
            return await backend(pool) != pid
        except Unreachable:
            return False

    await until_async(works, what="another connection")


async def test_a_refused_statement_keeps_the_connection(database: Database, pool: Pool) -> None:
    """And says what the server said."""
    before = await backend(pool)
    for text in ("SELECT 1/0", "SELEC", "SELECT 'x'::jsonb", "SELECT * FROM nowhere"):
        with pytest.raises(DatabaseError) as caught:
            await pool.run(sql.SQL(text), name="test")
        assert not isinstance(caught.value, Unreachable)
    assert await backend(pool) == before


async def test_nothing_of_ours_is_left_in_a_transaction(database: Database, pool: Pool) -> None:
    await backend(pool)
    states = database.execute(
        "SELECT DISTINCT state FROM pg_stat_activity WHERE application_name LIKE 'order-listener%'"
        " AND datname = current_database()"
    )
    assert states == [("idle",)]


async def test_errors_of_the_work_itself_pass_unchanged() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shielded(work, limit_s=1.0)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.CannotConnectNow(), True),
        (psycopg.errors.ReadOnlySqlTransaction(), True),
        (psycopg.errors.TooManyConnections(), True),
        (psycopg.errors.ConnectionFailure(), True),
        (psycopg.errors.QueryCanceled(), True),
        (psycopg.errors.LockNotAvailable(), True),
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.SerializationFailure(), True),
        (psycopg.errors.DiskFull(), True),
        (psycopg.OperationalError("no SQLSTATE: the connection itself"), True),
        (psycopg.errors.UniqueViolation(), False),
        (psycopg.errors.InvalidTextRepresentation(), False),
        (psycopg.DataError("client side"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_is_tried_again(error: psycopg.Error, transient: bool) -> None:
    assert is_transient(error) is transient


async def test_settings_are_made_although_a_preset_limit_cuts_them(database: Database) -> None:
    """The preset is lifted first, by a statement that takes next to nothing."""
    database.execute(f"ALTER DATABASE {database.name} SET statement_timeout = '20ms'")
    slow = sql.SQL("SELECT pg_sleep(0.05), set_config('statement_timeout', %(limit)s, false)")
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as conn:
        with pytest.raises(psycopg.errors.QueryCanceled):
            await conn.execute(slow, {"limit": "70ms"})
        await make_settings(conn, slow, {"limit": "70ms"})
        cursor = await conn.execute("SHOW statement_timeout")
        assert await cursor.fetchone() == ("70ms",)
