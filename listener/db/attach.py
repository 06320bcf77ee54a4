"""Make a table that is in use a queue, and a queue a plain table again, without keeping its writers waiting.

What is to be done is one plan, made by the database (`attach_queue_plan`), which `attach_queue` runs inside a
transaction. Here its steps are run one by one: indexes are built concurrently, and what needs the table to itself for a
moment waits for it for `LOCK_TRY_S` at most and then lets the writers pass before it tries again.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from listener.core.errors import ConfigError, DatabaseError
from listener.db.applied import place_of, verify
from listener.db.migrate import connected
from listener.db.queries import query, template
from listener.db.trouble import explain, explained

#: How long, in seconds, a writer may have to wait behind one of our tries.
LOCK_TRY_S = 0.1
#: The writers' time between two tries, in seconds.
_PAUSE_S = 0.4
#: What the functions raise for a wrong argument, and for rows that are being worked on.
_REFUSED, _BUSY = "22023", "55006"

Conn = psycopg.Connection[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which table, and as what queue; None = as it is attached already, else the default.

    table, schema: names as they are, unquoted; without a schema, that of the installation, or the one before a dot.
    """

    table: str
    schema: str | None = None
    key: str | None = None
    ready: str | None = None
    done: str | None = None
    content: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One statement. alone: outside of any transaction; steps between two of those are one transaction."""

    alone: bool
    statement: str


@dataclass(slots=True)
class Report:
    """What was done, or would be. queue: its name. details: what it is attached as. notes: for the person."""

    queue: str
    steps: Sequence[Step]
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def script(self) -> str:
        """The steps, to be pasted into psql."""
        lines: list[str] = []
        for alone, steps in _groups(self.steps):
            texts = [f"{step.statement};" for step in steps]
            lines += texts if alone else ["BEGIN;", f"{_limit_locks().as_string(None)};", *texts, "COMMIT;"]
        return "\n".join(lines)


def attach(
    url: str,
    home: str,
    wish: Wish,
    *,
    dry_run: bool = False,
    wait_s: float = 60.0,
    tell: Callable[[Step], None] = lambda _step: None,
) -> Report:
    """Make a table a queue, or add what is missing; running it again changes nothing.

    Args:
        url: of a session, not of a transaction pooler.
        home: the installation's schema.
        dry_run: only say what would be done.
        wait_s: how long to try for the locks of each transaction, in seconds.
        tell: called before each step.

    Raises ConfigError for what cannot be, DatabaseError (Unmigrated). What was done before an error stays; the next
    run goes on from there.
    """
    with _session(url, home) as conn:
        notes: list[str] = []
        conn.add_notice_handler(lambda diag: notes.append(diag.message_primary or ""))
        target = _find(conn, wish.table, wish.schema, home)
        if target is None:
            raise _nowhere(conn, wish.table, wish.schema or home)
        if not dry_run:
            _take_turn(conn, target, wish.table)
        params = {
            "target": target,
            "key": wish.key,
            "ready": wish.ready,
            "done": wish.done,
            "content": None if wish.content is None else list(wish.content),
        }
        entry = conn.execute(query("attached", "attach_entry"), params).fetchall()[0]
        steps = [Step(**row) for row in conn.execute(query("attached", "attach_steps"), params)]
        if not dry_run:
            _run(conn, steps, wait_s, tell, url)
        return Report(entry["name"], steps, entry, notes)


def detach(
    url: str,
    home: str,
    table: str,
    *,
    schema: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    wait_s: float = 60.0,
) -> Report:
    """Take away what attach added; `force`: also while rows are being worked on. The rest as for `attach`."""
    with _session(url, home) as conn:
        target = _find(conn, table, schema, home)
        if target is None:
            return _forget(conn, table, schema, home, dry_run=dry_run)
        if not dry_run:
            _take_turn(conn, target, table)
        steps = [
            Step(alone=False, **row) for row in conn.execute(query("attached", "detach_steps"), {"target": target})
        ]
        if not dry_run:

            def work() -> None:
                conn.execute(query("attached", "detach"), {"target": target, "force": force})

            _together(conn, work, wait_s, url)
        return Report(table, steps)


def _run(conn: Conn, steps: Sequence[Step], wait_s: float, tell: Callable[[Step], None], url: str) -> None:
    for alone, group in _groups(steps):
        for step in group:
            tell(step)
        if alone:
            # A concurrent build waits for older transactions, and no writer waits for it.
            for step in group:
                conn.execute(step.statement.encode())
        else:

            def work(group: Sequence[Step] = group) -> None:
                for step in group:
                    conn.execute(step.statement.encode())

            _together(conn, work, wait_s, url)


def _together(conn: Conn, work: Callable[[], None], wait_s: float, url: str) -> None:
    """Do the work in one transaction; try again while others hold locks on the table."""
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            with conn.transaction():
                conn.execute(_limit_locks())
                work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() >= deadline_s:
                raise DatabaseError(
                    f"the table did not become free within {wait_s:g} s: {explain(error, url)}"
                ) from error
            time.sleep(_PAUSE_S)
        else:
            return


def _groups(steps: Sequence[Step]) -> Iterator[tuple[bool, Sequence[Step]]]:
    for alone, group in itertools.groupby(steps, key=lambda step: step.alone):
        yield alone, tuple(group)


def _limit_locks() -> sql.Composed:
    return template("attached", "limit_locks", {"limit": sql.Literal(f"{LOCK_TRY_S * 1000:.0f}ms")})


def _find(conn: Conn, table: str, schema: str | None, home: str) -> int | None:
    """Return the table's oid."""
    for place in _places(table, schema, home):
        for row in conn.execute(query("attached", "find_table"), place):
            return int(row["target"])
    return None


def _nowhere(conn: Conn, table: str, schema: str) -> ConfigError:
    """Say that there is no such table, with a guess at what was meant."""
    names: dict[str, str] = {}
    for row in conn.execute(query("attached", "all_tables")).fetchall():
        is_near = row["schema"] == schema
        name = row["table"] if is_near else f"{row['schema']}.{row['table']}"
        names |= {key.casefold(): name for key in (name, row["table"]) if is_near or key.casefold() not in names}
    near = get_close_matches(table.casefold(), names, n=1)
    guess = f"did you mean {names[near[0]]}?" if near else "create it first"
    return ConfigError(f"there is no table {table} in schema {schema} of {place_of(conn)}; {guess}")


def _forget(conn: Conn, table: str, schema: str | None, home: str, *, dry_run: bool) -> Report:
    """Take a table that was dropped off the books. Raises ConfigError when it is not on them."""
    with conn.transaction(force_rollback=dry_run):
        for place in _places(table, schema, home):
            for row in conn.execute(query("attached", "forget"), place):
                return Report(row["name"], [], notes=["the table is no longer there: it comes off the books"])
    attached = ", ".join(row["name"] for row in conn.execute(query("attached", "attached"))) or "none"
    where = f"schema {schema or home} of {place_of(conn)}"
    raise ConfigError(f"there is no table {table} in {where}; attached are: {attached}")


def _places(table: str, schema: str | None, home: str) -> list[dict[str, str]]:
    before, _, after = table.partition(".")
    places = [(schema or home, table), *([(before, after)] if schema is None and after else [])]
    return [{"schema": schema_name, "table": table_name} for schema_name, table_name in places]


def _take_turn(conn: Conn, target: int, table: str) -> None:
    if not conn.execute(query("attached", "attach_turn"), {"target": target}).fetchall()[0]["taken"]:
        raise DatabaseError(f"table {table} is just being attached or detached by somebody else: wait for its end")


@contextmanager
def _session(url: str, home: str) -> Iterator[Conn]:
    """Open a session on a schema of this release; turn what the server refuses into our errors."""
    with explained(url), connected(url, home, name="listener attach") as plain:
        verify(plain, home)
        conn = cast("Conn", plain)
        conn.row_factory = dict_row
        try:
            yield conn
        except psycopg.Error as error:
            diag = error.diag
            more = "".join(f"; {text}" for text in (diag.message_detail, diag.message_hint) if text)
            if diag.sqlstate == _REFUSED:
                raise ConfigError(f"{diag.message_primary}{more}") from error
            text = diag.message_primary if diag.sqlstate == _BUSY else explain(error, url)
            raise DatabaseError(f"{text}{more}") from error
