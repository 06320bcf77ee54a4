"""Bring a database schema to this release, and tell whether it is there.

Called by ``listener migrate`` (`migrate`, `status`, `dry_run`) and at every start of the service (`verify`). Forward
only. Needs a session, so the address must not lead through a transaction pooler: an advisory lock held by the session
makes a second run wait until the first one is done.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg import sql

from listener.core.errors import ConfigError, DatabaseError
from listener.db.applied import (
    Applied,
    place_of,
    read_applied,
    refuse_changed,
    refuse_foreign,
    refuse_newer,
    require_version,
    verify,
    verify_async,
)
from listener.db.call import LIFTS
from listener.db.files import SqlFile, schema_files
from listener.db.pool import KEEPALIVES, search_path, wanted_server
from listener.db.queries import query, template
from listener.db.trouble import explain, explained

__all__ = [
    "FileStatus",
    "Plan",
    "Report",
    "connected",
    "dry_run",
    "migrate",
    "plan",
    "status",
    "verify",
    "verify_async",
]

#: A waiting DDL statement makes every writer behind it wait, so it gives up early and is tried again.
_LOCK_TRY_S = 2.0
#: Shorter than deadlock_timeout (1 s): CREATE INDEX CONCURRENTLY of the run before us waits for our statement to end.
_QUEUE_TRY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `migrate` would do."""

    schema: str
    creates_schema: bool
    #: To apply, in this order.
    files: tuple[SqlFile, ...]
    #: Functions and triggers on the books that this release no longer has: struck after the migrations.
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `migrate` did."""

    schema: str
    created_schema: bool
    #: Names of the files applied now, in order; empty when the schema was up to date.
    applied: tuple[str, ...]
    unchanged_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStatus:
    """One file, compared with the database."""

    name: str
    kind: str
    #: ``unknown`` = on the books, but not a file of this release.
    state: Literal["applied", "pending", "changed", "unknown"]
    applied_at: datetime | None


def plan(conn: psycopg.Connection, schema: str, files: Sequence[SqlFile] | None = None) -> Plan:
    """Compare the files with the database; reads only.

    Raises Unmigrated when a migration was changed after it was applied, or the database is newer than this code.
    """
    files = schema_files() if files is None else files
    applied = read_applied(conn, schema) or {}
    refuse_newer(applied, files, schema, place_of(conn))
    refuse_changed(applied, files, schema, place_of(conn))
    return Plan(
        schema=schema,
        creates_schema=conn.execute(query("books", "has_schema"), {"schema": schema}).fetchone() != (True,),
        files=tuple(f for f in files if f.name not in applied or applied[f.name].checksum != f.checksum),
        stale=tuple(sorted(applied.keys() - {f.name for f in files})),
    )


def migrate(url: str, schema: str, *, wait_s: float = 60.0, files: Sequence[SqlFile] | None = None) -> Report:
    """Apply what is missing, and say what that was; running it again changes nothing.

    Args:
        url: of a session, not of a transaction pooler.
        schema: where everything goes; created when missing.
        wait_s: how long, in seconds, to wait for another run, and for the locks of each file.
        files: of the schema; default: those of this release.

    Raises DatabaseError (Unmigrated for what `plan` refuses). Every file that was applied before it stays applied.
    """
    files = schema_files() if files is None else files
    with explained(url), connected(url, schema) as conn:
        _wait_for_turn(conn, schema, wait_s)
        refuse_foreign(conn, schema, files)
        todo = plan(conn, schema, files)
        if todo.creates_schema:
            conn.execute(_of_schema("create_schema", schema))
        if todo.files or todo.stale:
            conn.execute(query("books", "create_books"))
        for batch in _batches(todo.files):
            _apply(conn, schema, batch, wait_s, url)
        for name in todo.stale:
            conn.execute(_strike(name))
    return Report(
        schema=schema,
        created_schema=todo.creates_schema,
        applied=tuple(f.name for f in todo.files),
        unchanged_count=len(files) - len(todo.files),
    )


def dry_run(url: str, schema: str, *, files: Sequence[SqlFile] | None = None) -> str:
    """Return the SQL that `migrate` would run, as a script for psql; changes nothing."""
    with explained(url), connected(url, schema) as conn:
        refuse_foreign(conn, schema, files)
        todo = plan(conn, schema, files)
        if not (todo.files or todo.stale or todo.creates_schema):
            return f"-- schema {schema} of {place_of(conn)} is up to date\n"
        script = [f"-- what `listener migrate` would run in schema {schema} of {place_of(conn)}"]
        head = [_of_schema("create_schema", schema)] if todo.creates_schema else []
        head += [_of_schema("script_head", schema), template("books", "create_books", {})]
        script += [f"{statement.as_string(conn)};" for statement in head]
        for batch in _batches(todo.files):
            script += ["BEGIN;"] if batch[0].needs_transaction else []
            for file in batch:
                script += [f"\n-- {file.name}", file.text.rstrip(), f"{_entry(file).as_string(conn)};"]
            script += ["COMMIT;"] if batch[0].needs_transaction else []
        script += [f"{_strike(name).as_string(conn)};" for name in todo.stale]
    return "\n".join(script) + "\n"


def status(url: str, schema: str, *, files: Sequence[SqlFile] | None = None) -> tuple[FileStatus, ...]:
    """Compare every file with the database, in the order of application; unknown ones come last."""
    files = schema_files() if files is None else files
    with explained(url), connected(url, schema) as conn:
        refuse_foreign(conn, schema, files)
        applied = read_applied(conn, schema) or {}
    return (
        *(_compare(file, applied.get(file.name)) for file in files),
        *(
            FileStatus(name=row.name, kind=row.kind, state="unknown", applied_at=row.applied_at)
            for row in sorted(applied.values(), key=lambda row: row.name)
            if row.name not in {f.name for f in files}
        ),
    )


def _compare(file: SqlFile, row: Applied | None) -> FileStatus:
    if row is None:
        return FileStatus(name=file.name, kind=file.kind, state="pending", applied_at=None)
    state: Literal["applied", "changed"] = "applied" if row.checksum == file.checksum else "changed"
    return FileStatus(name=file.name, kind=file.kind, state=state, applied_at=row.applied_at)


def _batches(files: Sequence[SqlFile]) -> Iterator[tuple[SqlFile, ...]]:
    """Each migration alone; functions and triggers change together, so that no writer meets half of them."""
    for file in files:
        if file.kind == "migration":
            yield (file,)
    rest = tuple(f for f in files if f.kind != "migration")
    if rest:
        yield rest


def _apply(conn: psycopg.Connection, schema: str, batch: Sequence[SqlFile], wait_s: float, url: str) -> None:
    """Run the files of *batch* and enter them in the books, all or nothing; try again while others hold locks."""
    deadline_s = time.monotonic() + wait_s
    current = batch[0]
    while True:
        try:
            if not current.needs_transaction:
                _apply_outside(conn, schema, current)
                return
            with conn.transaction():
                _set_lock_timeout(conn, min(_LOCK_TRY_S, wait_s))
                for current in batch:
                    conn.execute(current.text.encode())
                    conn.execute(_entry(current))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() >= deadline_s:
                raise DatabaseError(f"{current.name}: {explain(error, url)}") from error
        except psycopg.Error as error:
            detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
            raise DatabaseError(f"{current.name}: {explain(error, url)}{detail}") from error
        else:
            return


def _apply_outside(conn: psycopg.Connection, schema: str, file: SqlFile) -> None:
    """Run statement by statement; a concurrent index build blocks nobody, so it may wait as long as it needs."""
    _set_lock_timeout(conn, None)
    for (index,) in conn.execute(query("books", "invalid_indexes"), {"schema": schema}).fetchall():
        if re.search(rf"\b{re.escape(index)}\b", file.text):
            conn.execute(template("books", "drop_index", {"index": sql.Identifier(schema, index)}))
    for statement in file.statements:
        conn.execute(statement.encode())
    conn.execute(_entry(file))


def _entry(file: SqlFile) -> sql.Composed:
    fields = {"name": file.name, "kind": file.kind, "checksum": file.checksum}
    return template("books", "enter", {name: sql.Literal(value) for name, value in fields.items()})


def _strike(name: str) -> sql.Composed:
    return template("books", "strike", {"name": sql.Literal(name)})


def _of_schema(statement: str, schema: str) -> sql.Composed:
    return template("books", statement, {"schema": sql.Identifier(schema)})


@contextmanager
def connected(url: str, schema: str, *, name: str = "listener migrate") -> Iterator[psycopg.Connection]:
    """Open a session in which unqualified names mean *schema*; name: what pg_stat_activity calls it."""
    if not schema or "\0" in schema or len(schema.encode()) > 63 or schema.startswith("pg_"):
        raise ConfigError(f"not a name for a schema (1 to 63 bytes, not pg_…): LISTENER_SCHEMA={schema!r}")
    limit_s = KEEPALIVES["connect_timeout"]  # without one, a server that accepts and stays silent holds us for ever
    with psycopg.connect(
        url,
        autocommit=True,
        client_encoding="utf8",
        application_name=name,
        connect_timeout=limit_s,
        target_session_attrs=wanted_server(url),
    ) as conn:
        require_version(conn)
        _lift_limit(conn)
        conn.execute(query("books", "prepare_session"), {"search_path": search_path(schema)})
        yield conn


def _wait_for_turn(conn: psycopg.Connection, schema: str, wait_s: float) -> None:
    """Take the lock that makes runs on one schema follow each other; it ends with the session."""
    key = int.from_bytes(hashlib.sha256(f"listener migrate {schema}".encode()).digest()[:8], signed=True)
    deadline_s = time.monotonic() + wait_s
    _set_lock_timeout(conn, min(_QUEUE_TRY_S, wait_s))
    while True:
        try:
            conn.execute(query("books", "take_turn"), {"turn": key})
        except psycopg.errors.LockNotAvailable as error:
            if time.monotonic() >= deadline_s:
                raise DatabaseError(
                    f"another `listener migrate` of schema {schema} in {place_of(conn)} is running: wait for its end"
                ) from error
        else:
            return


def _set_lock_timeout(conn: psycopg.Connection, limit_s: float | None) -> None:
    """Bound every wait for a lock in this session; None = wait for ever."""
    limit_ms = 0 if limit_s is None else max(1, round(limit_s * 1000))
    conn.execute(query("books", "limit_lock_waits"), {"limit_ms": str(limit_ms)})


def _lift_limit(conn: psycopg.Connection) -> None:
    """A preset statement_timeout may cut the very statement that lifts it: then it is tried again."""
    for left in reversed(range(LIFTS)):
        try:
            conn.execute(query("session", "unlimited"))
        except psycopg.errors.QueryCanceled:
            if not left:
                raise
        else:
            return
