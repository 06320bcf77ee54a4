"""One transaction for what takes longer than a statement, on a connection of its own.

Not the pool's: two files that are imported for minutes would leave the engine without connections for its claims. Each
statement is shielded and bounded as everywhere (`call.py`); a caller that is cancelled leaves between two of them, and
what was done is rolled back.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from psycopg.rows import DictRow

from listener.db.call import cut_after, shielded
from listener.db.pool import Connection, Pool, connect, search_path
from listener.db.queries import Statement, query

T = TypeVar("T")

# As in the pool. A batch takes a fraction of a second; the rest is waiting for rows that others have locked. Whoever
# cancels waits for the statement under way.
STATEMENT_LIMIT_S = 10.0
# Waiting for a lock ends before the statement's time is up: that error says for which row.
LOCK_LIMIT_S = 5.0


class Transaction:
    """An open transaction. All methods raise Unreachable, DatabaseError; it is of no use afterwards."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def run(self, statement: Statement, params: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Run one statement and return its rows."""

        async def work() -> list[DictRow]:
            cursor = await self._conn.execute(statement, params)
            return await cursor.fetchall() if cursor.description is not None else []

        return await self._bounded(work)

    async def copy_in(self, statement: Statement, text: bytes) -> None:
        """Run a COPY … FROM STDIN with rows in Postgres's text format."""

        async def work() -> None:
            async with self._conn.cursor() as cursor, cursor.copy(statement) as copy:
                await copy.write(text)

        await self._bounded(work)

    async def commit(self) -> None:
        """Make it last; without it, everything is undone."""
        await self._bounded(self._conn.commit)

    async def _bounded(self, work: Callable[[], Awaitable[T]]) -> T:
        with cut_after(self._conn, STATEMENT_LIMIT_S + 1.0):
            return await shielded(work, limit_s=STATEMENT_LIMIT_S + 5.0)


@asynccontextmanager
async def transaction(pool: Pool, *, name: str) -> AsyncIterator[Transaction]:
    """Open a transaction on the pool's database; what is not committed when the block ends is rolled back.

    name: shown in pg_stat_activity.application_name. Raises Unreachable, DatabaseError.
    """

    async def opened() -> Connection:
        conn = await connect(pool.url, f"order-listener {name}"[:63])
        conn.prepare_threshold = None
        settings = {
            "statement_timeout_ms": str(int(STATEMENT_LIMIT_S * 1000)),
            "lock_timeout_ms": str(int(LOCK_LIMIT_S * 1000)),
            "search_path": search_path(pool.schema),
        }
        try:
            await conn.set_autocommit(False)
            await conn.execute(query("session", "long_transaction_settings"), settings)
        except BaseException:
            await conn.close()
            raise
        return conn

    conn = await shielded(opened, limit_s=15.0, url=pool.url)
    try:
        yield Transaction(conn)
    finally:
        with anyio.CancelScope(shield=True):
            await conn.close()  # the server rolls back what was not committed
