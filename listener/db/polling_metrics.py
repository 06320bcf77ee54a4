"""`polling_metrics`: what the reports of the older polling scripts read."""

import json
from collections.abc import Mapping

from psycopg import sql

from listener.core.tally import Tally
from listener.db.pool import Pool
from listener.db.queries import query

DAYS_TO_KEEP = 7
# A statement that deletes more could hit the statement timeout, and would never get further.
_MOST_ROWS = 10_000
# What nobody waits for must not keep a process from ending whose database is away.
_WRITE_LIMIT_S = 5.0


class PollingLog:
    """The table's gateway. All raise Unreachable, DatabaseError."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, tallies: Mapping[str, Tally]) -> None:
        """Write one row for each workflow: all checks of its tally. One statement, so all or none of them."""
        rows = [
            {
                "workflow": workflow,
                "claimed": tally.claimed,
                "action": "skipped" if tally.skipped == tally.checks else "processed",
                "duration_ms": round(tally.duration_s * 1000),
                "checks": tally.checks,
                "skipped": tally.skipped,
                "longest_ms": round(tally.longest_s * 1000),
            }
            for workflow, tally in tallies.items()
        ]
        statement = sql.SQL("/* order-listener polling metrics */ ") + query("polling_metrics", "write")
        await self._pool.run(statement, {"rows": json.dumps(rows)}, name=None, limit_s=_WRITE_LIMIT_S)

    async def clean(self) -> int:
        """Delete rows older than a week; returns how many."""
        total = 0
        while True:
            params = {"days_to_keep": DAYS_TO_KEEP, "most": _MOST_ROWS}
            rows = await self._pool.run(query("polling_metrics", "clean"), params, name="polling metrics clean-up")
            deleted = int(rows[0]["deleted"])
            total += deleted
            if deleted < _MOST_ROWS:
                return total
