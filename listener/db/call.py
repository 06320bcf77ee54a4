"""The one way to run a statement: shielded and bounded.

anyio cancels again at each await (level), which would cut psycopg's own clean-up: the connection is closed while the
statement runs on, and a claim could commit after its caller has given up (measured, psycopg 3.3.9, anyio 4.16). So a
cancelled caller leaves before the first statement or after the commit, never between, and the bound is asyncio's
(edge) timeout, under which psycopg cancels the statement on the server and keeps the connection.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
import psycopg
import psycopg_pool

from listener.core.errors import DatabaseError, Unreachable
from listener.db.trouble import explain

T = TypeVar("T")

# Cut by an administrator or by shutdown, read-only after a failover, starting up, too many connections.
_TRANSIENT_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "25006", "53300", "08006", "08003", "08001"})


async def shielded(work: Callable[[], Awaitable[T]], *, limit_s: float) -> T:
    """Run `work` to its end whatever the caller's cancel scope does, for at most `limit_s` seconds.

    Raises Unreachable when the connection fails or time is up, DatabaseError when the server refuses the statement.
    """
    await anyio.lowlevel.checkpoint()
    with translated(limit_s), anyio.CancelScope(shield=True):
        async with asyncio.timeout(limit_s):
            result = await work()
    return result  # a cancelled caller learns at its own next await; what was committed is in its hands


@contextmanager
def translated(limit_s: float) -> Iterator[None]:
    """Turn the driver's errors into ours, so that nothing outside db/ needs to know psycopg."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"the database did not answer within {limit_s:g} s") from error
    except psycopg_pool.PoolTimeout as error:
        raise Unreachable(f"no database connection became free: {error}") from error
    except psycopg.Error as error:
        if is_transient(error):
            raise Unreachable(explain(error)) from error
        raise DatabaseError(explain(error)) from error


def is_transient(error: psycopg.Error) -> bool:
    """Tell whether the connection or the server is at fault, rather than the statement."""
    if error.sqlstate is not None:
        return error.sqlstate in _TRANSIENT_STATES or error.sqlstate.startswith("08")
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
