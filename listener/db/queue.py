"""One queue table. Nobody else names it: claim, settle, rescue and the person's verbs are all here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from psycopg import DataError, sql
from psycopg.errors import UniqueViolation

from listener.core.errors import ConfigError, DatabaseError
from listener.core.job import Job, Settlement
from listener.core.queue import Queue
from listener.core.trail import Place
from listener.db.line import Line, Reply
from listener.db.pool import Pool
from listener.db.queries import numbered, query, template
from listener.db.session import Session, lock_class_oid
from listener.db.values import arrays

# Enough for a person to read "10000 and more"; counting further would cost more than the claim.
COUNT_LIMIT = 10_000
# Longer than any operation: what a living session holds is left alone.
_NEVER_S = 10 * 365 * 86_400.0
# Priority and due time; not the key: Python need not be able to compare what Postgres can.
_urgency = itemgetter(0, 1)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one claim brought. next_due_s: seconds until the next row that is not due yet, None = there is none.

    passed_over: there was room for more, and a due row that somebody has locked. last: where the last job of each
    priority stood.
    search_s: how long the server needed, of a quick claim up to the first row; None = it claimed none. A quick claim
    knows neither what is due next nor what it passed over.
    """

    jobs: list[Job]
    next_due_s: float | None = None
    passed_over: bool = False
    last: Sequence[Place] = ()
    search_s: float | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What one settle wrote. lost: jobs whose claim was gone. reopened: jobs that are Pending again and due now,
    an edited one also when its outcome was to be tried later."""

    lost: list[Job]
    reopened: list[Job]


@dataclass(frozen=True, slots=True)
class Depth:
    """A queue's figures. oldest_pending_s: how long the oldest due row has been waiting, in seconds."""

    pending: int
    processing: int
    failed: int
    oldest_pending_s: float


class QueueTable:
    """The statements of one queue, composed once. Every method is one statement and one transaction.

    A statement's first words say what it is (`/* order-listener upload claim */`): pg_stat_activity shows them also
    while it waits. The connection is named after the queue alone: another name would be another round trip.

    key_is_text: keys come and go as text, and so do the jobs' ids. line: for quick claims.
    All raise Unreachable when the connection fails and DatabaseError when the server refuses.
    """

    def __init__(self, pool: Pool, queue: Queue, *, key_type: str = "bigint", key_is_text: bool = False) -> None:
        self.queue = queue
        self.line: Line | None = None
        self._pool = pool
        self._lock_class = lock_class_oid(pool.schema)
        fields = _fields(queue, key_type, key_is_text=key_is_text)

        def composed(name: str, **more: sql.Composable) -> bytes:
            label = f"order-listener {queue.name} {name.removesuffix('_quick')}".replace("%", "%%").replace("*/", "* /")
            return f"/* {label} */ ".encode() + template("queue", name, fields | more).as_bytes(None)

        self._fields = fields
        self._claim = composed("claim")
        known = template("queue", "known_priorities", fields)
        self._claim_onward = composed("claim", priorities=known)
        self._claim_quick = composed("claim_quick")
        self._claim_sent = numbered(self._claim_quick, ("limit", "session_key"))
        self._settle = composed("settle")
        self._rescue = composed("rescue")
        self._stranded = composed("stranded")
        self._release_strays = composed("release_strays")
        self._ring = composed("ring")
        self._arm = composed("arm")
        self._silence = composed("silence")
        self._waiting = composed("waiting")
        self._depth = composed("depth")
        self._retry_failed = composed("retry_failed")
        self._retry_keys = composed("retry_keys")

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        """Take at most `limit` due rows, highest priority first; with `onward`, one place for a priority, none that
        stands before the place of its own."""
        statement = self._claim
        params: dict[str, Any] = {"limit": limit, "session_key": session_key}
        if onward:
            statement = self._claim_onward
            params["priorities"] = [place.priority for place in onward]
            params["scheduled_at_s"] = [place.scheduled_at_s for place in onward]
            params["keys"] = [place.key for place in onward]
        try:
            rows = await self._pool.fetch(statement, params, name=self.queue.name)
        except DatabaseError as error:
            if self.queue.concurrency_key and isinstance(error.__cause__, UniqueViolation):
                return Claim([], None, passed_over=True)  # another listener was quicker with a row of the same key
            raise
        next_due_s, passed_over, search_s = rows[-1][-3:]
        if rows[0][2] is None:
            return Claim([], next_due_s, passed_over, search_s=search_s)
        return Claim(self._jobs(rows), next_due_s, passed_over, _places(rows), search_s)

    def send_quick(self, *, limit: int, session_key: int) -> Reply | None:
        """Have a quick claim on its way at once, for `claim_quick` to bring what it finds. None = not now."""
        return None if self.line is None else self.line.send(self._claim_sent, (limit, session_key))

    async def claim_quick(self, *, limit: int, session_key: int, sent: Reply | None = None) -> Claim:
        """The same with less work, without a word of the rows that are not claimed: more may be due."""
        sent = sent or self.send_quick(limit=limit, session_key=session_key)
        if self.line is not None and sent is not None:
            rows = await self.line.answer(sent)
        else:
            params = {"limit": limit, "session_key": session_key}
            rows = await self._pool.fetch(self._claim_quick, params, name=self.queue.name)
            if self.line is not None:
                self.line.learn(self._claim_sent)
        if not rows:
            return Claim([])
        ordered = sorted(rows, key=_urgency)
        return Claim(self._jobs(ordered), last=_places(ordered), search_s=rows[0][-1])

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Write outcomes, each fenced by its claim. All or nothing: one bad value refuses the whole statement."""
        rows = await self._pool.fetch(self._settle, self._settle_params(settlements), name=self.queue.name)
        if len(rows) == len(settlements) and not any(row[2] for row in rows):
            return Settled([], [])  # as nearly always
        is_due = {(key, claim_id): due for key, claim_id, due in rows}
        jobs = [s.job for s in settlements]
        return Settled(
            lost=[job for job in jobs if (job.id, job.claim_id) not in is_due],
            reopened=[job for job in jobs if is_due.get((job.id, job.claim_id))],
        )

    async def rescue(self, *, stale_s: float = _NEVER_S) -> int:
        """Free the rows of sessions that are gone, and those claimed more than `stale_s` seconds ago."""
        params = {"lock_class": self._lock_class, "stale_s": stale_s}
        rows = await self._pool.run(self._rescue, params, name=self.queue.name)
        return int(rows[0]["rows"])

    def survey(self, number: int) -> sql.Composed:
        """Compose what the safety poll asks about this queue, as the `number`th of those it asks about."""
        stranded = query("queue", "is_stranded").format(stale_s=query("queue", "nth_stale_s").format(number=number))
        return template("queue", "survey", self._fields | {"number": sql.Literal(number), "is_stranded": stranded})

    async def stranded(self) -> list[dict[str, Any]]:
        """Read the rows of sessions that are gone: job_key, claimed_by, claimed_at as text."""
        return await self._pool.run(self._stranded, {"lock_class": self._lock_class}, name=self.queue.name)

    async def release_strays(self, *, session_key: int, held: Collection[int]) -> int:
        """Free rows that our session holds under a claim which is not in `held`."""
        params = {"session_key": session_key, "held": list(held)}
        rows = await self._pool.run(self._release_strays, params, name=self.queue.name)
        return int(rows[0]["rows"])

    async def ring(self, session: Session) -> None:
        """Wake the other listeners. On the session, which answers within seconds or is lost: a pool whose database is
        away would keep a process that ends. Raises SessionLost."""
        await session.ask(self._ring, {})

    async def arm(self, session: Session) -> str:
        """Try to turn the doorbell on: "held" by us from now on, "elsewhere" = another session has it on, "busy" =
        writers are in flight. Not while we hold it. Raises SessionLost."""
        return str((await session.ask(self._arm, {}))[0]["bell"])

    def silence(self, session: Session) -> None:
        """Turn the doorbell off that `arm` turned on; before the session's next statement, nobody waits for it."""
        session.post(self._silence, {})

    async def waiting(self) -> int:
        """Count due rows, up to COUNT_LIMIT."""
        rows = await self._pool.run(self._waiting, {"most": COUNT_LIMIT}, name=self.queue.name)
        return int(rows[0]["waiting"])

    async def depth(self) -> Depth:
        """Read the queue's figures."""
        return Depth(**(await self._pool.run(self._depth, {}, name=self.queue.name))[0])

    async def retry_failed(self) -> int:
        """Put every `Failed` row back to `Pending`; returns how many."""
        return len(await self._pool.run(self._retry_failed, {}, name=self.queue.name))

    async def retry_keys(self, keys: Sequence[str]) -> tuple[list[str], int]:
        """Put the named rows back to `Pending`; returns the keys of those that were `Failed` or done, and their number.

        keys: as text, whatever their type. Raises ConfigError for one that is none of the column's type.
        """
        try:
            rows = await self._pool.run(self._retry_keys, {"keys": list(keys)}, name=self.queue.name)
        except DatabaseError as error:
            if isinstance(error.__cause__, DataError):
                raise ConfigError(
                    f"no key of {self.queue.table}: --id: {error.__cause__.diag.message_primary}"
                ) from error
            raise
        return [row["job_key"] for row in rows], rows[0]["rows"] if rows else 0

    def _settle_params(self, settlements: Sequence[Settlement]) -> dict[str, Any]:
        try:
            return arrays(settlements)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DatabaseError(
                f"queue {self.queue.name}: an outcome cannot be written to {self.queue.table}: {error}"
            ) from error

    def _jobs(self, rows: Sequence[tuple[Any, ...]]) -> list[Job]:
        queue, columns, label = self.queue.name, self.queue.columns, self.queue.label  # in one go: the innermost loop
        return [
            Job(
                queue=queue,
                id=row[2],
                claim_id=row[3],
                attempt=row[4],
                revision=row[5],
                due_for_s=max(row[6], 0.0),
                row=(content := dict(zip(columns, row[7:]))),  # noqa: B905 - strict=False takes 0.2 of 0.6 µs
                label=None if label is None else content[label],
            )
            for row in rows
        ]


def _places(rows: Sequence[tuple[Any, ...]]) -> list[Place]:
    last = {row[0]: row for row in rows}  # they are in order
    return [Place(*row[:3]) for row in last.values()]


def _fields(queue: Queue, key_type: str, *, key_is_text: bool = False) -> dict[str, sql.Composable]:
    columns = [
        # numbered: a prefix would make a long name longer than a name can be
        sql.SQL(", q.{} AS {}").format(_escaped(sql.Identifier(name)), sql.Identifier(f"row_{n}"))
        for n, name in enumerate(queue.columns)
    ]
    table = sql.Identifier(*([queue.schema] if queue.schema else []), queue.table)
    key = _escaped(sql.Identifier(queue.key))
    result = query("queue", "result_column")
    results = [
        result.format(column=_escaped(sql.Identifier(name)), name=_escaped(sql.Literal(name)), table=_escaped(table))
        for name in queue.results
    ]
    fields = {
        "table": _escaped(table),
        "relation": _escaped(sql.Literal(table.as_string(None))),
        "table_name": _escaped(sql.Literal(queue.table)),
        "key": key,
        "job_key": sql.SQL("q.{}" + "::text" * key_is_text).format(key),
        "key_type": _escaped(sql.SQL(key_type)),
        "sent_key_type": _escaped(sql.SQL("text" if key_is_text else key_type)),
        "ready": _escaped(sql.Literal(queue.ready_word)),
        "done": _escaped(sql.Literal(queue.done_word)),
        "columns": sql.SQL("").join(columns),
        "names": sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(f"row_{n}")) for n in range(len(columns))),
        "results": sql.SQL("").join(results),
        "claim_sequence": sql.Literal("listener_claim_id"),
        "unblocked": _unblocked(queue, _escaped(table)),
        "alive": query("queue", "alive"),
        "is_stranded": query("queue", "is_stranded").format(stale_s=sql.Placeholder("stale_s")),
        "has_bell": query("queue", "has_bell").format(relation=_escaped(sql.Literal(table.as_string(None)))),
    }
    return fields | {"priorities": template("queue", "all_priorities", fields)}


def _unblocked(queue: Queue, table: sql.Composable) -> sql.Composable:
    if not queue.concurrency_key:
        return sql.SQL("")
    column = query("queue", "same_key")
    same = [sql.SQL(" ") + column.format(column=_escaped(sql.Identifier(name))) for name in queue.concurrency_key]
    return sql.SQL(" ") + query("queue", "unblocked").format(table=table, same_key=sql.SQL("").join(same))


def _escaped(part: sql.Composable) -> sql.SQL:
    # in a statement with parameters a % of a name or a word would begin one; so every statement here has parameters
    return sql.SQL(part.as_string(None).replace("%", "%%"))
