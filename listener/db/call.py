"""The one way to run a statement: shielded and bounded.

anyio cancels again at each await (level), which would cut psycopg's own clean-up: the connection is closed while the
statement runs on, and a claim could commit after its caller has given up (measured, psycopg 3.3.9, anyio 4.16). So a
cancelled caller leaves before the first statement or after the commit, never between, and the bound is asyncio's
(edge) timeout, under which psycopg cancels the statement on the server and keeps the connection.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import psycopg
import psycopg_pool

from listener.core.errors import DatabaseError, Ungranted, Unreachable
from listener.db.queries import Statement, query
from listener.db.trouble import explain, where

T = TypeVar("T")

# Of the statement that lifts a preset statement_timeout: 0.05 ms of work, which a busy server may well give too late.
LIFTS = 100

# Cut by an administrator or by shutdown, read-only after a failover, starting up; and what only others' work makes
# fail: a lock that was not free in time, a deadlock. An outcome must not be given up because a person holds its row.
_TRANSIENT_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "25006", "57014", "55P03", "40001", "40P01"})
# "cached plan must not change result type", "prepared statement does not exist": somebody altered the table.
STALE_PLAN_STATES = frozenset({"0A000", "26000"})
# Connection trouble; no room left (connections, memory, disk): both pass.
_TRANSIENT_CLASSES = ("08", "53")


async def shielded(work: Callable[[], Awaitable[T]], *, limit_s: float, url: str | None = None) -> T:
    """Run `work` to its end whatever the caller's cancel scope does, for at most `limit_s` seconds.

    url: where it goes, for the errors.
    Raises Unreachable when the connection fails or time is up, DatabaseError when the server refuses the statement.
    """
    await anyio.lowlevel.checkpoint_if_cancelled()
    with translated(limit_s, url), anyio.CancelScope(shield=True):
        async with asyncio.timeout(limit_s):
            result = await work()
    return result  # a cancelled caller learns at its own next await; what was committed is in its hands


@contextmanager
def cut_after(conn: psycopg.AsyncConnection[Any], limit_s: float) -> Iterator[None]:
    """Cut the connection when the block takes longer than the server may: nobody is there to answer.

    A half-open socket would keep psycopg's own attempts to cancel busy for 10 s more (measured).
    """
    timer = asyncio.get_running_loop().call_later(limit_s, cut, conn)
    try:
        yield
    finally:
        timer.cancel()


async def make_settings(conn: psycopg.AsyncConnection[Any], statement: Statement, params: Mapping[str, Any]) -> None:
    """Run the statement that makes a fresh connection ours, also where a preset statement_timeout cuts it.

    Not by `options` at the connect, which poolers refuse. Raises psycopg.Error.
    """
    try:
        await conn.execute(statement, params)
    except psycopg.errors.QueryCanceled:
        await _lift_limit(conn)
        await conn.execute(statement, params)


async def _lift_limit(conn: psycopg.AsyncConnection[Any]) -> None:
    for left in reversed(range(LIFTS)):
        try:
            await conn.execute(query("session", "unlimited"))
        except psycopg.errors.QueryCanceled:
            if not left:
                raise
        else:
            return


def cut(conn: psycopg.AsyncConnection[Any]) -> None:
    """End both directions of the socket: whoever waits on it learns at once."""
    try:
        with socket.socket(fileno=os.dup(conn.pgconn.socket)) as same:
            same.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        return  # the peer was quicker; the pending statement fails all the same


@contextmanager
def translated(limit_s: float, url: str | None = None) -> Iterator[None]:
    """Turn the driver's errors into ours, so that nothing outside db/ needs to know psycopg; url: as in `explain`."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(
            f"the database{f' at {where(url)}' if url else ''} did not answer within {limit_s:g} s"
        ) from error
    except psycopg_pool.PoolTimeout as error:
        raise Unreachable(f"no database connection became free: {error}") from error
    except psycopg.Error as error:
        raise ours(error, url) from error


def ours(error: psycopg.Error, url: str | None) -> DatabaseError:
    """Return our error for the driver's; url: as in `explain`."""
    if is_transient(error):
        return Unreachable(explain(error, url))
    return (Ungranted if isinstance(error, psycopg.errors.InsufficientPrivilege) else DatabaseError)(
        explain(error, url)
    )


def is_transient(error: psycopg.Error) -> bool:
    """Tell whether the connection or the server is at fault, rather than the statement."""
    if error.sqlstate is not None:
        return error.sqlstate in _TRANSIENT_STATES | STALE_PLAN_STATES or error.sqlstate.startswith(_TRANSIENT_CLASSES)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
