"""The pool: short statements, each its own transaction. No connection is held while a handler runs."""

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

import anyio
import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import AsyncRowFactory, DictRow, TupleRow, dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from listener.core.errors import Unreachable
from listener.db.call import STALE_PLAN_STATES, cut_after, make_settings, shielded, translated
from listener.db.queries import Statement, query
from listener.db.trouble import explain_read_only, is_read_only
from listener.db.values import tolerant

Connection: TypeAlias = psycopg.AsyncConnection[DictRow]
T = TypeVar("T")
Row = TypeVar("Row")

_NAME = "order-listener"
# None is kept of so few; who wants one waits so many seconds at most, as the end of a session may wait for that.
_FEW, _KEPT_WAIT_S = 2, 2.0

# Of every connection. Keepalives: a dead server is noticed after 5 + 3 × 2 s, unanswered data after 10 s.
KEEPALIVES: Mapping[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "connect_timeout": 10,
    "target_session_attrs": "read-write",
    "client_encoding": "utf8",
}


class _Quiet(logging.Filter):
    """Whoever needs a connection says once, in words, why there is none; the pool would for every attempt, for ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        return repr(_NAME) not in record.getMessage()


logging.getLogger("psycopg.pool").addFilter(_Quiet())


def search_path(schema: str) -> str:
    """Return the schema as one quoted element of a search_path."""
    return '"' + schema.replace('"', '""') + '"'


def wanted_server(url: str) -> str:
    """Which server of a list a session of its own goes to: the one that takes writes, unless the address says else."""
    parts = conninfo_to_dict(url)
    several = "," in str(parts.get("host") or parts.get("hostaddr") or "")
    return str(parts.get("target_session_attrs") or ("read-write" if several else "any"))


async def connect(url: str, name: str, *, limit_s: int = KEEPALIVES["connect_timeout"]) -> Connection:
    """Connect to the first server of *url* that takes writes; name: what pg_stat_activity calls it; limit_s: for each.

    Raises Unreachable, DatabaseError; where no server takes writes, saying why.
    """
    options = {
        "autocommit": True,
        "row_factory": dict_row,
        "application_name": name,
        **KEEPALIVES,
        "connect_timeout": limit_s,
    }
    try:
        return await _connect(url, options)
    except Unreachable as error:
        if not is_read_only(error.__cause__):
            raise
        conn = await _connect(url, {**options, "target_session_attrs": "any"})
        told, server = conn.pgconn.parameter_status, f"{conn.info.host}:{conn.info.port}"
        is_standby, is_preset = (told(name) == b"on" for name in (b"in_hot_standby", b"default_transaction_read_only"))
        await conn.close()
        raise Unreachable(
            explain_read_only(url, server, is_standby=is_standby, is_preset=is_preset)
        ) from error.__cause__


async def _connect(url: str, options: Mapping[str, Any]) -> Connection:
    try:
        with translated(10.0, url):
            return await psycopg.AsyncConnection[DictRow].connect(url, **options)
    except BaseException as error:
        # The connection of a connect that was cut hangs on the error's frames, and stands while anybody holds that:
        # minutes, where it is in a cycle.
        traceback.clear_frames(error.__traceback__)
        raise


class Pool:
    """Connections to `url`, shared by all queues of the process.

    is_pooled: the address leads through a transaction pooler, where no setting and no prepared statement outlives
    a transaction; every statement then carries its settings along. statement_timeout_s bounds one statement.
    """

    def __init__(
        self, url: str, *, schema: str, is_pooled: bool, min_size: int, max_size: int, statement_timeout_s: float = 10.0
    ) -> None:
        self._schema = schema
        self._is_pooled = is_pooled
        self._url = url
        self.limit_s = statement_timeout_s
        self._settings = {
            "statement_timeout_ms": str(int(statement_timeout_s * 1000)),
            "search_path": search_path(schema),
        }
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=psycopg.AsyncConnection[DictRow],
            kwargs={
                **KEEPALIVES,
                "autocommit": True,
                "row_factory": dict_row,
                "context": tolerant(),
                "application_name": "order-listener pool",
                "prepare_threshold": None if is_pooled else 5,
            },
            configure=None if is_pooled else self._configure,
            min_size=min_size if is_pooled or max_size <= _FEW else min(min_size + 1, max_size),
            max_size=max_size,
            timeout=statement_timeout_s,
            max_lifetime=600.0,  # R157: a connection older than 600 s is replaced
            reconnect_timeout=5.0,
            open=False,
            name=_NAME,
        )

    async def __aenter__(self) -> Self:
        await self._pool.open(wait=False)  # the database may be down at start: that is no error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.close(timeout=1.0)  # seconds for its own tasks: one may wait for a server that is silent

    @property
    def schema(self) -> str:
        """The installation's schema."""
        return self._schema

    @property
    def url(self) -> str:
        """Where its connections lead, for one beside them."""
        return self._url

    async def run(
        self,
        statement: Statement,
        params: Mapping[str, Any] | None = None,
        *,
        name: str | None,
        limit_s: float | None = None,
    ) -> list[DictRow]:
        """Run one statement as one transaction and return its rows.

        name: what holds the connection, shown in pg_stat_activity.application_name while it does; None = the statement
        says in its first words what it is, and the connection keeps its name, for another one is another round trip.
        limit_s: seconds for the whole, the wait for a connection included, when that is to be less than usual.
        Raises Unreachable or DatabaseError.
        """
        return await self._run(statement, params, name, dict_row, limit_s)

    async def fetch(self, statement: Statement, params: Mapping[str, Any], *, name: str) -> list[TupleRow]:
        """The same, with tuples for rows: for many of them."""
        return await self._run(statement, params, name, tuple_row)

    async def _run(
        self,
        statement: Statement,
        params: Mapping[str, Any] | None,
        name: str | None,
        rows: AsyncRowFactory[Row],
        limit_s: float | None = None,
    ) -> list[Row]:
        wanted = f"order-listener {name or 'pool'}"[:63]

        async def borrow() -> list[Row]:
            async with self._borrow() as conn:
                if self._is_pooled:
                    return await self._run_pooled(conn, statement, params, rows, wanted)
                # Not in a pipeline with the statement: a process frozen before its Sync would keep the transaction
                # open, with the account's row locked for all replicas (seen), and a failed Parse would poison the
                # connection.
                if name is not None and conn.info.parameter_status("application_name") != wanted:
                    await conn.execute(query("session", "name_connection"), {"application_name": wanted})
                return await _fetch(conn, statement, params, rows)

        return await shielded(borrow, limit_s=self.whole_limit_s if limit_s is None else limit_s, url=self._url)

    async def transaction(self, work: Callable[[Connection], Awaitable[T]], *, name: str) -> T:
        """Run `work`, a few statements, as one transaction. Raises Unreachable, DatabaseError."""
        settings = {**self._settings, "application_name": f"order-listener {name}"[:63]}

        async def run(conn: Connection) -> T:
            async with conn.transaction():
                await conn.execute(query("session", "transaction_settings"), settings)
                return await work(conn)

        return await self.inspect(run)

    async def inspect(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` on one connection. Raises Unreachable, DatabaseError."""

        async def borrow() -> T:
            async with self._borrow() as conn, conn:
                return await work(conn)

        return await shielded(borrow, limit_s=self.whole_limit_s, url=self._url)

    async def refresh(self) -> None:
        """Replace all connections: what ended the former session may have made them half-open.

        Not `check()`: it asks one connection after the other, and forgets all of them when the first one's answer
        does not come in time, for ever short of them.
        """
        await shielded(self._pool.drain, limit_s=self.whole_limit_s, url=self._url)

    def stats(self) -> dict[str, int]:
        """Return size, available, waiting, limits and counters of errors, as psycopg_pool names them."""
        return dict(self._pool.get_stats())

    @property
    def whole_limit_s(self) -> float:
        """Bounds what bounds itself already: the wait for a connection and the statement."""
        return 2 * self.limit_s + 5.0

    @property
    def spares_one(self) -> bool:
        """One connection can be kept: settings and prepared statements hold on it, and others are left."""
        return not self._is_pooled and self._pool.max_size > _FEW

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Connection]:
        """Keep one connection for the block. Raises Unreachable, DatabaseError."""
        conn = await shielded(lambda: self._pool.getconn(_KEPT_WAIT_S), limit_s=self.whole_limit_s, url=self._url)
        try:
            yield conn
        finally:
            with anyio.CancelScope(shield=True):
                await self._pool.putconn(conn)

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[Connection]:
        try:
            conn = await self._pool.getconn()
        except PoolTimeout:
            await self._say_why()
            raise
        try:
            with cut_after(conn, self.limit_s + 1.0):  # one second more than the server gives a statement
                yield conn
        except psycopg.Error as error:
            if error.sqlstate in STALE_PLAN_STATES:
                await conn.close()  # its prepared statements no longer fit the table; a fresh one's do
            raise
        finally:
            await self._pool.putconn(conn)

    async def _say_why(self) -> None:
        """The pool keeps the reason for itself: try once, to fail with it."""
        await (await connect(self._url, "order-listener probe", limit_s=2)).close()

    async def _configure(self, conn: Connection) -> None:
        with cut_after(conn, self.limit_s):  # a worker of the pool that waited for ever would be lost to it
            await make_settings(conn, query("session", "engine_settings"), self._settings)

    async def _run_pooled(
        self,
        conn: Connection,
        statement: Statement,
        params: Mapping[str, Any] | None,
        rows: AsyncRowFactory[Row],
        name: str,
    ) -> list[Row]:
        async with conn.transaction():
            await conn.execute(query("session", "transaction_settings"), {**self._settings, "application_name": name})
            return await _fetch(conn, statement, params, rows)


async def _fetch(
    conn: Connection, statement: Statement, params: Mapping[str, Any] | None, rows: AsyncRowFactory[Row]
) -> list[Row]:
    cursor = conn.cursor(row_factory=rows)
    await cursor.execute(statement, params)
    return await cursor.fetchall() if cursor.pgresult is not None and cursor.pgresult.nfields else []
