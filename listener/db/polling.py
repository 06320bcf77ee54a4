"""The safety poll's statements: what it asks of all queues at once, and `polling_metrics`, which older reports read.

Neither names its connection: it says in its first words what it is, and a name would be one more statement each time.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from psycopg import sql

from listener.core.tally import Tally
from listener.db.configuration import Rows, rows_of
from listener.db.pool import Pool
from listener.db.queries import Statement, query, template
from listener.db.queue import QueueTable
from listener.db.session import lock_class_oid

DAYS_TO_KEEP = 7
# A statement that deletes more could hit the statement timeout, and would never get further.
_MOST_ROWS = 10_000
# A survey that takes longer waits for somebody's lock on one of the tables. Then each is asked by itself, so that the
# others do not wait with it; the usual one takes a millisecond or two.
_SURVEY_LIMIT_S = 2.0
# What nobody waits for must not keep a process from ending whose database is away.
_WRITE_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One queue. stale_s: age at which a claim of a living session counts as stranded. held: claims that are worked on
    here. asks_bell: look whether anybody has its doorbell on."""

    table: QueueTable
    stale_s: float
    held: Collection[int]
    asks_bell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What there is to do in one queue. next_due_s: seconds until its first ready row is due, 0 = one is due now,
    None = there is none. has_stranded: a rescue would give rows back. has_strays: our session holds rows of other
    claims than those that are held. has_bell: somebody has the doorbell on, None = not asked."""

    next_due_s: float | None
    has_stranded: bool
    has_strays: bool
    has_bell: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A survey's answer: queue → what was found, the configuration's rows, and how long it took."""

    queues: Mapping[str, Finding]
    configuration: Rows
    duration_s: float


class SurveyStatement:
    """One statement over any number of queues, at least one; composed once for the same ones."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tables: list[QueueTable] = []
        self._statement: Statement = b""

    async def read(self, session_key: int, questions: Sequence[Question]) -> Findings:
        """Ask. Raises Unreachable, DatabaseError: also when only one of the tables cannot be read."""
        started_s = perf_counter()
        self._compose([question.table for question in questions])
        params = {
            "session_key": session_key,
            "lock_class": lock_class_oid(self._pool.schema),
            "stale_s": [question.stale_s for question in questions],
            "held": [f"{{{','.join(map(str, question.held))}}}" for question in questions],
            "asks_bell": [question.asks_bell for question in questions],
        }
        rows = await self._pool.run(self._statement, params, name=None, limit_s=_SURVEY_LIMIT_S)
        found = {
            question.table.queue.name: Finding(
                next_due_s=row["next_due_s"],
                has_stranded=row["has_stranded"],
                has_strays=row["has_strays"],
                has_bell=row["has_bell"],
            )
            for question, row in zip(questions, rows, strict=True)
        }
        return Findings(queues=found, configuration=rows_of(rows[0]), duration_s=perf_counter() - started_s)

    def _compose(self, tables: list[QueueTable]) -> None:
        if tables == self._tables:
            return
        parts = [sql.SQL("({})").format(table.survey(number)) for number, table in enumerate(tables, start=1)]
        fields: dict[str, Any] = {
            "queues": sql.SQL(" UNION ALL ").join(parts),
            "configuration": query("configuration", "configuration"),
        }
        composed = template("polling", "survey_all", fields).as_bytes(None)
        self._statement, self._tables = b"/* order-listener survey */ " + composed, tables


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
        statement = sql.SQL("/* order-listener polling metrics */ ") + query("polling", "write")
        await self._pool.run(statement, {"rows": json.dumps(rows)}, name=None, limit_s=_WRITE_LIMIT_S)

    async def clean(self) -> int:
        """Delete rows older than a week; returns how many."""
        total = 0
        while True:
            params = {"days_to_keep": DAYS_TO_KEEP, "most": _MOST_ROWS}
            rows = await self._pool.run(query("polling", "clean"), params, name="polling metrics clean-up")
            deleted = int(rows[0]["deleted"])
            total += deleted
            if deleted < _MOST_ROWS:
                return total
