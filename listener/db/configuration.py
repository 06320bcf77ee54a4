"""Reads `configuration_params`."""

from listener.db.pool import Pool
from listener.db.queries import query


async def read_configuration(pool: Pool) -> list[tuple[str, str | None]]:
    """Return every (key, value) row. Raises Unreachable, DatabaseError: never an empty answer for a failed query."""
    rows = await pool.run(query("configuration", "configuration"), name="configuration")
    return [(row["param_key"], row["param_value"]) for row in rows]
