"""A queue without the engine: its statements as the product composes them, rows to run them on, held leases."""

from collections.abc import Sequence
from typing import Any

import psycopg
from conftest import Database
from psycopg import sql
from psycopg.rows import dict_row
from waiting import until

from listener.core.queue import Queue
from listener.db.pool import Pool, search_path
from listener.db.queries import query, template
from listener.db.queue import _fields
from listener.db.session import lock_class, lock_class_oid
from listener.workflows.queues import UPLOAD

#: A lease key that no session of a test holds unless `lease` says so.
SESSION = 7


def statement(name: str, queue: Queue = UPLOAD) -> sql.Composed:
    """Return one of the queue's statements."""
    return template("queue", name, _fields(queue, "bigint"))


def open_pool(database: Database, *, schema: str = "public", **options: Any) -> Pool:
    """Return a pool of the product's, to be entered."""
    settings = {"is_pooled": False, "min_size": 1, "max_size": 2, **options}
    return Pool(database.service_url, schema=schema, **settings)


def engine_connection(database: Database, *, schema: str = "public") -> psycopg.Connection[dict[str, Any]]:
    """Open a connection with the settings of the engine's pool connections."""
    conn = database.connect(as_service=True, row_factory=dict_row)
    params = {"statement_timeout_ms": "60000", "search_path": search_path(schema)}
    conn.execute(query("session", "engine_settings"), params)
    return conn


def claim(conn: psycopg.Connection[Any], limit: int, *, session_key: int = SESSION, **options: Any) -> list[Any]:
    """Run the claim; the rows of what it claimed."""
    rows = conn.execute(statement("claim"), {"limit": limit, "session_key": session_key}, **options).fetchall()
    return [row for row in rows if row["job_key"] is not None]


def due(database: Database) -> list[int]:
    """Return the ids of what is due, in the order in which it is to be claimed."""
    rows = database.execute(
        "SELECT id FROM orders_inbox WHERE status = 'Pending' AND scheduled_at <= now()"
        " ORDER BY priority, scheduled_at, id"
    )
    return [key for (key,) in rows]


def lease(database: Database, key: int = SESSION, *, schema: str = "public") -> psycopg.Connection[Any]:
    """Open a session that holds the lease `key`; closing it is the death of its process."""
    conn = database.connect(as_service=True)
    conn.execute("SELECT pg_advisory_lock(%s, %s)", [lock_class(schema), key])
    return conn


def rescue(conn: psycopg.Connection[Any], *, stale_s: float = 300.0, schema: str = "public") -> int:
    """Run the rescue; how many rows it freed."""
    params = {"lock_class": lock_class_oid(schema), "stale_s": stale_s}
    return int(conn.execute(statement("rescue"), params).fetchall()[0]["rows"])


def insert(database: Database, count: int = 1, *, due: str = "now()", **columns: Any) -> list[int]:
    """Insert pending orders that come due at the SQL expression `due`; their ids."""
    names = [sql.SQL(", {}").format(sql.Identifier(name)) for name in columns]
    text = sql.SQL(
        "INSERT INTO orders_inbox (order_number, scheduled_at{}) SELECT gen_random_uuid()::text, {}{}"
        " FROM generate_series(1, {}) RETURNING id"
    ).format(
        sql.SQL("").join(names),
        sql.SQL(due),
        sql.SQL("").join(sql.SQL(", {}").format(sql.Literal(value)) for value in columns.values()),
        sql.Literal(count),
    )
    return [row[0] for row in database.execute(text)]


def read(database: Database, key: int) -> dict[str, Any]:
    """Return one row."""
    return read_all(database, [key])[0]


def read_all(database: Database, keys: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Return rows in the order of their ids, without the payload."""
    with database.connect(row_factory=dict_row) as conn:
        where = sql.SQL("") if keys is None else sql.SQL(" WHERE id = ANY ({})").format(sql.Literal(list(keys)))
        found = conn.execute(sql.SQL("SELECT * FROM orders_inbox") + where + sql.SQL(" ORDER BY id")).fetchall()
    return [{name: value for name, value in row.items() if name != "payload"} for row in found]


def counts(database: Database) -> dict[str, int]:
    """Status → rows."""
    return dict(database.execute("SELECT status, count(*) FROM orders_inbox GROUP BY status"))


class Bell:
    """A second connection that LISTENs and, as whoever sleeps does, turns the doorbells of queues on and off."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        self._conn = conn
        conn.execute("LISTEN listener_wake")

    def rings(self) -> list[str]:
        """Payloads heard since the last call. What was committed before this round trip has arrived with it."""
        self._conn.execute("SELECT 1")
        return [notify.payload for notify in self._conn.notifies(timeout=0)]

    def turn_on(self, queue: Queue = UPLOAD) -> str:
        """held, elsewhere or busy."""
        [(state,)] = self._conn.execute(statement("arm", queue), {}).fetchall()
        return str(state)

    def turn_off(self, queue: Queue = UPLOAD) -> None:
        """Ring no more."""
        self._conn.execute(statement("silence", queue), {})


def waiting(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """The backends whose statement of that name waits for a lock."""
    return database.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s"
        " AND wait_event_type = 'Lock'",
        [f"/* {statement} */%"],
    )


def until_waiting(database: Database, statement: str) -> None:
    until(lambda: waiting(database, statement), deadline_s=120, what=f"{statement} waiting for a lock")
