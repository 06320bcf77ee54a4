"""The books of the migrations: what was applied to a schema, and whether that fits this code.

`verify` is asked at every start of the service; `listener.db.migrate` writes what is read here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from listener.core.errors import DatabaseError, Ungranted, Unmigrated
from listener.db.files import SqlFile, schema_files
from listener.db.queries import query, template

#: Major version of the oldest server that the tests run on.
OLDEST_SERVER = 15


@dataclass(frozen=True, slots=True)
class Applied:
    """One row of ``listener_migrations``."""

    name: str
    kind: str
    checksum: str
    applied_at: datetime


def verify(conn: psycopg.Connection[Any], schema: str, files: Sequence[SqlFile] | None = None) -> None:
    """Raise Unmigrated, with one line that says what to do, unless the schema is exactly this release's."""
    check(read_applied(conn, schema), schema, place_of(conn), files)


async def verify_async(conn: psycopg.AsyncConnection[Any], schema: str, files: Sequence[SqlFile] | None = None) -> None:
    """`verify`, for the service."""
    require_version(conn)
    applied = None
    async with conn.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(query("books", "has_books"), {"books": _books_name(schema)})
        if await cursor.fetchone() == (True,):
            await cursor.execute(_read_books(schema))
            applied = {row[0]: Applied(*row) for row in await cursor.fetchall()}
    check(applied, schema, place_of(conn), files)


async def verify_granted(conn: psycopg.AsyncConnection[Any]) -> None:
    """Raise Ungranted, with what to do, when our role lacks something that the service needs, whatever is attached."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query("doctor", "grants"), {})
        rows = [row for row in await cursor.fetchall() if row["attached_in"] is None]
    lacking = [f"{row['privilege']} on {row['object']}" for row in rows]
    if lacking:
        raise Ungranted(
            f"the role of {place_of(conn)} lacks {_names(lacking)}: run deploy/roles.sql after `listener migrate`"
        )


def check(
    applied: Mapping[str, Applied] | None, schema: str, place: str, files: Sequence[SqlFile] | None = None
) -> None:
    """Compare the books (None = there are none) with the files; pure except for reading the default files."""
    files = schema_files() if files is None else files
    if not applied:
        raise Unmigrated(f"schema {schema} of {place} was never migrated: run `listener migrate`")
    refuse_newer(applied, files, schema, place)
    refuse_changed(applied, files, schema, place)
    missing = [f.name for f in files if f.name not in applied]
    if missing:
        raise Unmigrated(
            f"schema {schema} of {place} is older than this code: {_names(missing)} not applied: run `listener migrate`"
        )
    changed = [f.name for f in files if applied[f.name].checksum != f.checksum]
    if changed:
        raise Unmigrated(f"schema {schema} of {place} has another version of {_names(changed)}: run `listener migrate`")


def read_applied(conn: psycopg.Connection[Any], schema: str) -> dict[str, Applied] | None:
    """Return the books by name; None when the schema has none."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        if cursor.execute(query("books", "has_books"), {"books": _books_name(schema)}).fetchone() != (True,):
            return None
        rows = cursor.execute(_read_books(schema)).fetchall()
    return {row[0]: Applied(*row) for row in rows}


def refuse_foreign(conn: psycopg.Connection[Any], schema: str, files: Sequence[SqlFile] | None = None) -> None:
    """Tables of our names that are somebody else's: a migration would take them for its own, and fail half way.

    Judged by what tells each of ours from another, and only while the file that makes it is not applied.
    """
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(query("books", "foreign_tables"), {"schema": schema}).fetchall()
    applied = {} if any(row[0] == "listener_migrations" for row in rows) else read_applied(conn, schema) or {}
    names = {file.name for file in (schema_files() if files is None else files)}
    for table, made_by, lacks in rows:
        if made_by is None or (made_by in names and made_by not in applied):
            why = f"has no column {', '.join(lacks)}" if lacks else "is no table"
            raise DatabaseError(
                f"schema {schema} of {place_of(conn)} has a {table} that is not ours ({why}): give order-listener a"
                " schema of its own, such as LISTENER_SCHEMA=listener"
            )


def refuse_newer(applied: Mapping[str, Applied], files: Sequence[SqlFile], schema: str, place: str) -> None:
    """A newer release left names that we do not know.

    A function or trigger that this release dropped is no sign of that: the migration that drops it is still pending.
    """
    unknown = applied.keys() - {f.name for f in files}
    is_older = any(f.kind == "migration" and f.name not in applied for f in files)
    newer = sorted(name for name in unknown if applied[name].kind == "migration" or not is_older)
    if newer:
        raise Unmigrated(
            f"schema {schema} of {place} is newer than this code, which does not know {_names(newer)}:"
            " install the newer order-listener"
        )


def refuse_changed(applied: Mapping[str, Applied], files: Sequence[SqlFile], schema: str, place: str) -> None:
    """A migration runs once: a change to it would reach new databases only."""
    for file in files:
        row = applied.get(file.name)
        if file.kind == "migration" and row is not None and row.checksum != file.checksum:
            raise Unmigrated(
                f"{file.name} was changed after it was applied to schema {schema} of {place}:"
                " restore the file, and put the change into a new migration"
            )


def require_version(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Raise DatabaseError for a server older than the oldest that is tested."""
    major = conn.info.server_version // 10_000
    if major < OLDEST_SERVER:
        raise DatabaseError(
            f"{place_of(conn)} is PostgreSQL {major}: order-listener needs {OLDEST_SERVER} or later; upgrade the server"
        )


def place_of(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> str:
    """Return ``host:port/database`` of an open connection."""
    return f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}"


def _read_books(schema: str) -> sql.Composed:
    return template("books", "read_books", {"schema": sql.Identifier(schema)})


def _books_name(schema: str) -> str:
    return sql.Identifier(schema, "listener_migrations").as_string(None)


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
