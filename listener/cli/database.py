"""The database, for a command that needs it once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from listener.config.environment import Environment
from listener.db.applied import verify_async
from listener.db.pool import Pool
from listener.db.session import probe


@asynccontextmanager
async def opened(env: Environment) -> AsyncIterator[Pool]:
    """Open a pool of one connection on a schema of this release. Raises Unreachable, DatabaseError, Unmigrated."""
    url = env.database_url.get_secret_value()
    await probe(url)  # says at once what is wrong with the address, instead of a pool's time-out
    async with Pool(url, schema=env.schema_name, is_pooled=env.is_pooled, min_size=0, max_size=1) as pool:
        await pool.transaction(lambda conn: verify_async(conn, env.schema_name), name="verify")
        yield pool
