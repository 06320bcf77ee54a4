"""The line: one connection of the pool, kept in hand, so that a statement is on its way from the very callback that
heard of the work: the server is at it while the loop still wakes the task that will read the answer (measured, commit
to handler while idle: 1.38 → 0.98 ms).

One statement at a time. Who finds it taken, or not there, goes to the pool. The socket's own callback reads.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import TypeAlias

import anyio
import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from listener.core.errors import DatabaseError
from listener.db.call import cut, cut_after, ours, shielded
from listener.db.pool import Connection, Pool
from listener.db.queries import query

Reply: TypeAlias = asyncio.Future[PGresult]

# Then the pool has a look at its age, and replaces it when it is old (R157: 600 s).
_KEPT_S = 300.0
# After a failure, before the next attempt to keep one.
_PAUSE_S = 5.0
# A connection that was cut, and that neither answers nor ends within so many seconds, is given up.
_CUT_S = 1.0


class Line:
    """The connection, while `run` keeps one. on_trouble: told why there is none."""

    def __init__(self, pool: Pool, *, on_trouble: Callable[[DatabaseError], None]) -> None:
        self._pool = pool
        self._on_trouble = on_trouble
        self._conn: Connection | None = None
        self._reading: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._transformer = Transformer()
        self._stirred = anyio.Event()
        self._unknown: bytes | None = None
        self._numbers = count(1)
        self._names: dict[bytes, bytes] = {}
        self._reply: Reply | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._result: PGresult | None = None

    async def run(self) -> None:
        """Keep a connection until cancelled; none where the pool has no more than two, or leads through a pooler."""
        while self._pool.spares_one:
            try:
                async with self._pool.kept() as conn:
                    await self._name(conn)
                    await self._keep(conn)
            except DatabaseError as error:
                self._on_trouble(error)
                await anyio.sleep(_PAUSE_S)

    def send(self, statement: bytes, params: Sequence[int]) -> Reply | None:
        """Send it at once, from wherever we are, for `answer`. None = not now, or it has not been learnt.

        statement: with $1, $2 … for its params.
        """
        if (conn := self._conn) is None or self._reply is not None or (name := self._names.get(statement)) is None:
            return None
        return self._ask(conn, lambda: conn.pgconn.send_query_prepared(name, [b"%d" % value for value in params]))

    def learn(self, statement: bytes) -> None:
        """Have it prepared, unless it is; one that has just been run elsewhere, so that no lock is in its way."""
        if statement not in self._names:
            self._unknown = statement
            self._stirred.set()

    async def answer(self, reply: Reply) -> list[TupleRow]:
        """Return the rows of what was sent. Raises Unreachable, DatabaseError."""
        try:
            with anyio.CancelScope(shield=True):  # it ends: `_ask` has set a limit
                result = await reply
            self._transformer.set_pgresult(result)
            return self._transformer.load_rows(0, result.ntuples, tuple)
        except psycopg.Error as error:
            raise ours(error, self._pool.url) from error

    async def _name(self, conn: Connection) -> None:
        name = {"application_name": "order-listener line"}
        with cut_after(conn, self._pool.limit_s):
            await shielded(
                lambda: conn.execute(query("session", "name_connection"), name), limit_s=self._pool.whole_limit_s
            )

    async def _keep(self, conn: Connection) -> None:
        self._conn, self._stirred, self._transformer = conn, anyio.Event(), Transformer(conn)
        self._reading = loop, descriptor = asyncio.get_running_loop(), conn.pgconn.socket
        loop.add_reader(descriptor, self._read, conn)
        try:
            with anyio.move_on_after(_KEPT_S):
                while self._conn is not None:
                    await self._stirred.wait()
                    self._stirred = anyio.Event()
                    if self._conn is not None and self._reply is None:
                        await self._prepare(conn)
        finally:
            self._conn, self._names = None, {}
            if self._reply is not None:  # a claim must not come true after those who look for what is left have been
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([self._reply])
            self._stop_reading()

    async def _prepare(self, conn: Connection) -> None:
        statement, self._unknown = self._unknown, None
        if statement is not None and statement not in self._names:
            name = b"line_%d" % next(self._numbers)
            reply = self._ask(conn, lambda: conn.pgconn.send_prepare(name, statement))
            try:
                await asyncio.wait([reply])
            finally:
                if not reply.done():  # we are cancelled, and somebody's lock is in the way: nothing to wait for
                    cut(conn)
            try:
                reply.result()
            except psycopg.Error as error:
                raise ours(error, self._pool.url) from error
            self._names[statement] = name

    def _ask(self, conn: Connection, send: Callable[[], None]) -> Reply:
        loop = asyncio.get_running_loop()
        failure: psycopg.Error | None = None
        try:
            send()  # first of all: from here on the server works too
            conn.pgconn.flush()  # in one go: the socket has nothing else to send, as all else was answered
        except psycopg.Error as error:
            failure = error
        reply = self._reply = loop.create_future()
        # one second more than the server gives a statement: then nobody is there to answer
        self._timer = loop.call_later(self._pool.limit_s + 1.0, self._cut, conn)
        if failure is not None:
            self._fail(failure)
        return reply

    def _cut(self, conn: Connection) -> None:
        cut(conn)
        silent = psycopg.OperationalError("the server does not answer")
        self._timer = asyncio.get_running_loop().call_later(_CUT_S, self._fail, silent)

    def _read(self, conn: Connection) -> None:
        pgconn = conn.pgconn
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                if (result := pgconn.get_result()) is None:
                    self._end()
                    return
                self._result = result
        except psycopg.Error as error:
            self._fail(error)

    def _end(self) -> None:
        result, self._result = self._result, None
        if result is None:  # nothing that was asked for: a notice
            return
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            self._fail(error_from_result(result))
        elif (reply := self._take_reply()) is not None:
            reply.set_result(result)
            if self._unknown is not None:
                self._stirred.set()

    def _fail(self, error: psycopg.Error) -> None:
        """Give the connection up, whatever it was: the pool has others, and knows when one is broken."""
        self._conn = self._result = None
        self._stop_reading()
        if (reply := self._take_reply()) is not None:
            reply.set_exception(error)
            reply.exception()  # whoever sent it may be gone: nobody need hear of it then
        self._stirred.set()

    def _take_reply(self) -> Reply | None:
        reply, self._reply = self._reply, None
        if self._timer is not None:
            self._timer.cancel()
        return None if reply is None or reply.done() else reply

    def _stop_reading(self) -> None:
        """Once, and at once: libpq closes a broken socket, and the next one that anybody opens gets its number."""
        if self._reading is not None:
            loop, descriptor = self._reading
            self._reading = None
            loop.remove_reader(descriptor)
