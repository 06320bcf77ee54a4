"""The session: the process's dedicated connection. It LISTENs, and its life is the lease of the rows it claimed.

One task owns the socket: it has it read when it becomes readable and runs the short statements that others hand it: two
readers of one socket would steal each other's bytes. `notifies()` of psycopg is not used: it wakes ten times a
second and holds the connection's lock (measured: 50 wakeups in 5 s against 1).
"""

import asyncio
import os
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from listener.core.errors import Pooled, SessionLost, Unreachable
from listener.db.applied import verify_async
from listener.db.call import cut_after, make_settings, shielded
from listener.db.pool import Connection, Pool, connect, search_path
from listener.db.queries import Statement, query

Heard = Callable[[str, str], None]

WAKE_CHANNEL = "listener_wake"
CONFIG_CHANNEL = "config_changed"
ECHO_CHANNEL = "listener_echo"
PEERS_CHANNEL = "listener_peers"
_CHANNELS = (WAKE_CHANNEL, CONFIG_CHANNEL, ECHO_CHANNEL, PEERS_CHANNEL)
_STATEMENT_LIMIT_S = 5.0

POOLER_CURE = (
    "notifications do not arrive on the listener's session: its address leads through a transaction pooler; "
    "set LISTENER_DIRECT_URL to an address that is not a transaction pooler"
)
_TWO_DATABASES = (
    "DATABASE_URL and LISTENER_DIRECT_URL lead to two databases ({pool} and {session}): no notification of the one"
    " arrives in the other; set both to the same database"
)


def lock_class(schema: str) -> int:
    """First half of the lease's advisory lock key: two installations in one database never meet."""
    unsigned = zlib.crc32(f"order-listener {schema}".encode())
    return unsigned - (1 << 32) if unsigned >= 1 << 31 else unsigned


def lock_class_oid(schema: str) -> int:
    """The same number as pg_locks shows it (unsigned)."""
    return lock_class(schema) % (1 << 32)


@dataclass(slots=True)
class _Request:
    statement: Statement
    params: Mapping[str, Any] | None
    done: anyio.Event = field(default_factory=anyio.Event)
    rows: list[DictRow] = field(default_factory=list)
    error: BaseException | None = None


class Session:
    """An open session. `key` names it in `claimed_by`; `backend_pid` is the server's process."""

    def __init__(self, conn: Connection, *, schema: str, key: int, backend_pid: int) -> None:
        self._conn = conn
        self._schema = schema
        self.key = key
        self.backend_pid = backend_pid
        self._requests: deque[_Request] = deque()
        self._hearing: asyncio.Future[None] | None = None
        self._unread: Exception | None = None
        self._echoes: dict[str, anyio.Event] = {}
        self._heard: Heard = lambda _channel, _payload: None
        self._is_lost = False
        conn.add_notify_handler(lambda notify: self._hear(notify.channel, notify.payload))

    @classmethod
    async def open(cls, url: str, *, schema: str) -> "Session":
        """Connect, LISTEN, take a fresh key and the lease. Raises Unreachable, DatabaseError."""
        conn = await connect(url, "order-listener session")

        async def prepare() -> "Session":
            settings = {"statement_timeout_ms": str(int(_STATEMENT_LIMIT_S * 1000)), "search_path": search_path(schema)}
            await make_settings(conn, query("session", "settings"), settings)
            await conn.execute(query("session", "live_on"))
            await verify_async(conn, schema)  # before the first name of ours: its absence has one cure, and a name
            for channel in _CHANNELS:
                await conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            opened = await (await conn.execute(query("session", "open"))).fetchone()
            if opened is None or opened["read_only"]:
                raise Unreachable("the server is a read-only standby; the listener needs the primary")
            key = int(opened["session_key"])
            lease = {"lock_class": lock_class(schema), "session_key": key}
            taken = await (await conn.execute(query("session", "take_lease"), lease)).fetchone()
            if taken is None or not taken["taken"]:
                raise Unreachable(f"session key {key} is still in use; trying another")
            await conn.execute(
                query("session", "name_connection"), {"application_name": f"order-listener session {key}"}
            )
            return cls(conn, schema=schema, key=key, backend_pid=int(opened["backend_pid"]))

        try:
            with cut_after(conn, _STATEMENT_LIMIT_S):
                return await shielded(prepare, limit_s=2 * _STATEMENT_LIMIT_S, url=url)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await conn.close()
            raise

    async def close(self) -> None:
        """End the session; the server drops the lease with it."""
        self._is_lost = True
        with anyio.CancelScope(shield=True):
            await self._conn.close()

    def on_heard(self, heard: Heard) -> None:
        """Call `heard(channel, payload)` for each notification; it must not block."""
        self._heard = heard

    async def listen(self) -> None:
        """Own the socket until the session is lost: hear notifications and run the statements of others.

        Raises SessionLost. Cancel-safe: between statements only.
        """
        try:
            while True:
                while self._requests:
                    await self._serve(self._requests.popleft())
                self._read()
                await self._hear_until_asked()
        except (psycopg.Error, OSError, Unreachable) as error:
            raise SessionLost(
                f"the session {self.key} was lost: {str(error).strip() or type(error).__name__}"
            ) from error
        finally:
            self._is_lost = True
            self._refuse_all()

    async def check(self) -> None:
        """Ask whether our own lock still stands on a server that takes writes. Raises SessionLost."""
        params = {"lock_class_oid": lock_class_oid(self._schema), "session_key": self.key}
        rows = await self.ask(query("session", "check_lease"), params)
        if not rows[0]["held"]:
            raise SessionLost(f"the lease of session {self.key} is gone although its connection stands")
        if rows[0]["read_only"]:
            raise SessionLost("the server has become a read-only standby")

    async def ask(self, statement: Statement, params: Mapping[str, Any] | None = None) -> list[DictRow]:
        """Run a short statement on the session. Raises SessionLost; a failed statement loses the session."""
        if self._is_lost:
            raise SessionLost(f"the session {self.key} was lost")
        request = self.post(statement, params)
        await request.done.wait()
        if request.error is not None:
            raise SessionLost(f"the session {self.key} was lost: {request.error}") from request.error
        return request.rows

    def post(self, statement: Statement, params: Mapping[str, Any] | None = None) -> _Request:
        """Have a short statement run in its turn; nobody needs to wait for it, its failure is the session's loss."""
        request = _Request(statement, params)
        self._requests.append(request)
        self._end_hearing()
        return request

    async def self_test(self, pool: Pool, *, limit_s: float = 5.0) -> None:
        """Ring from a pool connection and hear it here: the only test that a pooler cannot pass.

        Needs `listen` to be running. Raises Pooled when the token does not arrive in `limit_s` seconds, and says
        whether a pooler or another database is why.
        """
        token = os.urandom(8).hex()
        arrived = self._echoes[token] = anyio.Event()
        try:
            await pool.run(query("session", "echo"), {"token": token}, name="self-test")
            with anyio.move_on_after(limit_s) as waiting:
                await arrived.wait()
            if waiting.cancelled_caught:
                raise Pooled(await self._why_unheard(pool))
        finally:
            del self._echoes[token]

    async def _why_unheard(self, pool: Pool) -> str:
        [ours] = await self.ask(query("session", "identity"))
        return different(await identity(pool), ours) or POOLER_CURE

    def _hear(self, channel: str, payload: str) -> None:
        if channel == ECHO_CHANNEL:
            if payload in self._echoes:
                self._echoes[payload].set()
            return
        self._heard(channel, payload)

    async def _hear_until_asked(self) -> None:
        """The socket's own callback reads: a task that is woken for it would hear 0.1 ms later (measured)."""
        loop, socket = asyncio.get_running_loop(), self._conn.pgconn.socket
        self._hearing = loop.create_future()
        loop.add_reader(socket, self._read_or_fail, loop, socket)
        try:
            await self._hearing
        finally:
            if self._unread is None:
                loop.remove_reader(socket)
            self._hearing = None
        if self._unread is not None:
            raise self._unread

    def _read_or_fail(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - raised by the task; the loop would only log it
            # at once: libpq has closed the socket, and the next one that anybody opens gets its number
            loop.remove_reader(socket)
            self._unread = error
            self._end_hearing()

    def _end_hearing(self) -> None:
        if self._hearing is not None and not self._hearing.done():
            self._hearing.set_result(None)

    def _read(self) -> None:
        pgconn = self._conn.pgconn
        pgconn.consume_input()
        while (notify := pgconn.notifies()) is not None:
            self._hear(notify.relname.decode(), notify.extra.decode())

    async def _serve(self, request: _Request) -> None:
        async def work() -> list[DictRow]:
            cursor = await self._conn.execute(request.statement, request.params)
            return await cursor.fetchall()

        try:
            with cut_after(self._conn, _STATEMENT_LIMIT_S):
                request.rows = await shielded(work, limit_s=2 * _STATEMENT_LIMIT_S)
        except BaseException as error:
            request.error = error
            raise
        finally:
            request.done.set()

    def _refuse_all(self) -> None:
        while self._requests:
            request = self._requests.popleft()
            request.error = SessionLost(f"the session {self.key} was lost")
            request.done.set()


async def end_former(pool: Pool, *, schema: str, session_key: int, backend_pid: int) -> bool:
    """End our own former session if it still stands on the server; True when there was one. Needs no privilege
    beyond being the same role. Raises Unreachable, DatabaseError."""
    params = {"lock_class_oid": lock_class_oid(schema), "session_key": session_key, "backend_pid": backend_pid}
    return bool(await pool.run(query("session", "end_former"), params, name="end former session"))


async def identity(pool: Pool) -> DictRow:
    """Return which database a pool leads to: `place` in words, and a `token` that tells it from any other."""
    return (await pool.run(query("session", "identity"), {}, name="self-test"))[0]


def different(pool: DictRow, session: DictRow) -> str:
    """Say that the two addresses lead to two databases, and what to do; empty when they are one. Pure."""
    same = pool["token"] == session["token"]
    return "" if same else _TWO_DATABASES.format(pool=pool["place"], session=session["place"])


async def probe(url: str) -> None:
    """Connect once and leave: says at once, and in words, what is wrong with an address.

    Raises Unreachable, DatabaseError.
    """
    conn = await connect(url, "order-listener probe")
    await conn.close()


async def count_connections(pool: Pool) -> int:
    """Return how many connections to this database the service holds, all replicas together."""
    [row] = await pool.run(query("session", "connections"), {}, name="metrics")
    return int(row["connections"])


async def read_live_sessions(pool: Pool) -> list[DictRow]:
    """Return the sessions that hold a lease now: key, backend pid, application name, start."""
    params = {"lock_class_oid": lock_class_oid(pool.schema)}
    return await pool.run(query("session", "live_sessions"), params, name="status")
