"""The survey's statement: all that the safety poll asks, of all queues at once.

It does not name its connection: it says in its first words what it is, and a name would be one more statement each
time.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from psycopg import sql

from listener.db.configuration import Rows, rows_of
from listener.db.pool import Pool
from listener.db.queries import Statement, query, template
from listener.db.queue import QueueTable
from listener.db.session import lock_class_oid

# A survey that takes longer waits for somebody's lock on one of the tables. Then each is asked by itself, so that the
# others do not wait with it; the usual one takes a millisecond or two. A whole one may take so many times as long as
# the last: with millions of dead entries to visit it grows.
_SURVEY_LIMIT_S, _PATIENCE = 2.0, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One queue. stale_s: age at which a claim of a living session counts as stranded. held: claims that are worked on
    here. asks_bell: look whether anybody has its doorbell on."""

    table: QueueTable
    stale_s: float
    held: Collection[int]
    asks_bell: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """What there is to do in one queue. next_due_s: seconds until its first ready row is due, 0 = one is due now, or
    only a look will tell, None = there is none. has_stranded: a rescue would give rows back. has_strays: our session
    holds rows of other claims than those that are held. has_bell: somebody has the doorbell on, None = not asked."""

    next_due_s: float | None
    has_stranded: bool
    has_strays: bool
    has_bell: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """A survey's answer: queue → what was found, the configuration's rows, and how long it took."""

    queues: Mapping[str, Todo]
    configuration: Rows
    duration_s: float


class SurveyStatement:
    """One statement over any number of queues, at least one; composed once for the same ones."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tables: list[QueueTable] = []
        self._statement: Statement = b""

    async def read(
        self, session_key: int, questions: Sequence[Question], *, is_whole: bool, usual_s: float
    ) -> Surveyed:
        """Ask; unless it is whole, nothing of the rows. usual_s: what a whole one took last. Raises Unreachable,
        DatabaseError: also when only one of the tables cannot be read."""
        started_s = perf_counter()
        self._compose([question.table for question in questions])
        params = {
            "session_key": session_key,
            "lock_class": lock_class_oid(self._pool.schema),
            "stale_s": [question.stale_s for question in questions],
            "held": [f"{{{','.join(map(str, question.held))}}}" for question in questions],
            "asks_bell": [question.asks_bell for question in questions],
            "is_whole": is_whole,
        }
        limit_s = max(_SURVEY_LIMIT_S, _PATIENCE * usual_s) if is_whole else _SURVEY_LIMIT_S
        rows = await self._pool.run(self._statement, params, name=None, limit_s=limit_s)
        found = {
            question.table.queue.name: Todo(
                next_due_s=row["next_due_s"],
                has_stranded=row["has_stranded"],
                has_strays=row["has_strays"],
                has_bell=row["has_bell"],
            )
            for question, row in zip(questions, rows, strict=True)
        }
        return Surveyed(queues=found, configuration=rows_of(rows[0]), duration_s=perf_counter() - started_s)

    def _compose(self, tables: list[QueueTable]) -> None:
        if tables == self._tables:
            return
        parts = [sql.SQL("({})").format(table.survey(number)) for number, table in enumerate(tables, start=1)]
        fields: dict[str, Any] = {
            "queues": sql.SQL(" UNION ALL ").join(parts),
            "configuration": query("configuration", "configuration"),
        }
        composed = template("survey", "survey_all", fields).as_bytes(None)
        self._statement, self._tables = b"/* order-listener survey */ " + composed, tables
