"""The watch's connection: it waits for the end of another process's session, so that its death is an event."""

import anyio
import psycopg
from psycopg.rows import DictRow

from listener.core.errors import DatabaseError
from listener.db.call import cut, cut_after, make_settings, shielded, translated
from listener.db.pool import Pool, connect, search_path
from listener.db.queries import query
from listener.db.session import lock_class, read_live_sessions

# A waiting statement holds back VACUUM; a minute of dead rows is nothing.
WAIT_S = 60.0
_LIMIT_S = 5.0


async def announce(pool: Pool) -> None:
    """Tell every other process that there is a new one. Raises Unreachable, DatabaseError."""
    await pool.run(query("watch", "announce"), name="announce")


async def read_peers(pool: Pool) -> list[int]:
    """Return the keys of the sessions that live now, sorted. Raises Unreachable, DatabaseError."""
    return [row["session_key"] for row in await read_live_sessions(pool)]


class WatchConnection:
    """A direct connection that does nothing but wait."""

    def __init__(self, conn: psycopg.AsyncConnection[DictRow], schema: str) -> None:
        self._conn = conn
        self._schema = schema

    @classmethod
    async def open(cls, url: str, *, schema: str) -> "WatchConnection":
        """Connect. Raises Unreachable, DatabaseError."""
        connection = cls(await connect(url, "order-listener watch"), schema)
        try:
            with cut_after(connection._conn, _LIMIT_S):
                await shielded(connection._set_up, limit_s=2 * _LIMIT_S, url=url)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def wait_for_end(self, session_key: int) -> bool:
        """Wait up to a minute for the end of a session; True = it has ended. Raises Unreachable, DatabaseError.

        Cancelled, it also ends the statement on the server: a backend that waits for a lock would wait on.
        """
        done = anyio.Event()
        answers: list[bool] = []
        failures: list[DatabaseError] = []

        async def ask() -> None:
            with anyio.CancelScope(shield=True):
                try:
                    answers.append(await self._await_end(session_key))
                except DatabaseError as error:  # out of a task group it would arrive wrapped
                    failures.append(error)
                done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            try:
                await done.wait()
            finally:
                if not done.is_set():
                    with anyio.CancelScope(shield=True):
                        await self._end_statement(done)
        if failures:
            raise failures[0]
        return answers[0]

    async def close(self) -> None:
        """End the connection."""
        with anyio.CancelScope(shield=True):
            await self._conn.close()

    async def _set_up(self) -> None:
        settings = {"search_path": search_path(self._schema)}
        await make_settings(self._conn, query("watch", "settings"), settings)
        await self._conn.execute(query("session", "live_on"))
        try:
            await self._conn.execute(query("watch", "notice_our_end"))
        except psycopg.errors.InvalidParameterValue:
            return  # a server on Windows cannot: a backend of ours then outlives a kill by up to a minute

    async def _await_end(self, session_key: int) -> bool:
        params = {"lock_class": lock_class(self._schema), "session_key": session_key, "limit_ms": int(WAIT_S * 1000)}
        with translated(WAIT_S):
            row = await (await self._conn.execute(query("watch", "await_end"), params)).fetchone()
        return row is not None and bool(row["has_ended"])

    async def _end_statement(self, done: anyio.Event) -> None:
        with anyio.move_on_after(_LIMIT_S):
            try:
                await self._conn.cancel_safe(timeout=_LIMIT_S)
            except psycopg.Error:
                cut(self._conn)  # the network is away: the statement fails, and the server ends it by its own limit
            await done.wait()
        if not done.is_set():
            cut(self._conn)
