"""What `listener doctor` asks a database: named questions, read only, and the one thing no question tells, the bell.

Whether an answer is good is decided in `listener.cli.doctor`.
"""

import json
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import psycopg
from psycopg import sql
from psycopg.rows import DictRow

from listener.core.errors import DatabaseError, ListenerError, Unmigrated
from listener.core.queue import Queue
from listener.db.applied import verify_async
from listener.db.files import schema_files, sql_dir
from listener.db.pool import Connection, Pool
from listener.db.queries import query, template
from listener.db.queue import _escaped, _fields
from listener.db.session import Session, identity, lock_class_oid

#: Asked as they stand; `stuck`, `queue_indexes`, `triggers`, `surroundings` and `peer` want something of us.
QUESTIONS = frozenset(
    {"server", "grants", "owners", "roles", "policies", "bypasses", "invalid_indexes", "storage", "storage_options",
     "transactions", "hidden_sessions", "horizon", "prepared", "notifications", "capacity", "clock", "definitions",
     "settings", "sequences", "orders"}
)  # fmt: skip

#: Rows that wait or failed are counted up to here: enough for a person, and bounded for the database.
MOST_COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Peer:
    """Both ends of a connection. ours, theirs: our address as we and as the server know it, empty over a Unix socket.

    keepalives: idle, interval and count of the server's end.
    """

    ours: str
    theirs: str
    keepalives: tuple[str, str, str]


class Patient:
    """One database under examination. Every question is one statement; `asked` counts them.

    All raise Unreachable when the connection fails and DatabaseError when the server refuses.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.asked = 0
        self._server: list[DictRow] = []

    async def ask(self, question: str) -> list[DictRow]:
        """Ask one of QUESTIONS."""
        if question not in QUESTIONS:
            raise KeyError(question)
        if question == "server":  # wanted by several checks, and always the same
            self._server = self._server or await self._run(query("doctor", question), {})
            return self._server
        return await self._run(query("doctor", question), {})

    async def schema_fault(self) -> str:
        """Say why the schema is not this release's, and what to do; empty when it is."""
        try:
            await self.pool.inspect(lambda conn: verify_async(conn, self.pool.schema))
        except Unmigrated as error:
            return str(error)
        return ""

    async def surroundings(self) -> DictRow:
        """What the role may do outside the tables."""
        return (await self._run(query("doctor", "surroundings"), {"schema": self.pool.schema}))[0]

    async def triggers(self) -> list[DictRow]:
        """Every trigger that ought to be on a queue's table or on the configuration, with its state."""
        return await self._run(query("doctor", "triggers"), {"wanted": json.dumps(wanted_triggers())})

    async def sequences(self) -> list[DictRow]:
        """Columns that a sequence numbers: last number `given`, `highest` that is there; null = not ours to see."""
        rows = await self.ask("sequences")
        for row in rows:
            row["highest"] = None
            if row["given"] is not None:
                table = sql.Identifier(row["schema"], row["relation"])
                fields = {"name": sql.Identifier(row["name"]), "table": table}
                row["highest"] = (await self._run(template("doctor", "highest", fields), {}))[0]["highest"] or 0
        return rows

    async def queue_indexes(self, queue: Queue) -> DictRow:
        """Whether the indexes that claims and rescues read are there."""
        relation = self._name(queue).as_string(None)
        params = {"relation": relation, "key": queue.key, "ready": queue.ready_word}
        return (await self._run(query("doctor", "queue_indexes"), params))[0]

    async def stuck(self, queue: Queue, *, long_s: float) -> DictRow:
        """Rows of a queue that nobody works on; long_s: seconds that a due row may wait."""
        fields = _fields(queue, "bigint") | {"key_name": _escaped(sql.Literal(queue.key))}
        params = {"long_s": long_s, "lock_class": lock_class_oid(self.pool.schema)}
        return (await self._run(template("doctor", "stuck", fields), params))[0]

    async def peer(self) -> Peer:
        """Who stands at both ends of a connection."""

        async def look(conn: Connection) -> tuple[DictRow | None, str]:
            row = await (await conn.execute(query("doctor", "peer"))).fetchone()
            return row, _local_address(conn)

        self.asked += 1
        row, ours = await self.pool.inspect(look)
        if row is None or row["address"] is None:
            return Peer("", "", ("", "", ""))
        return Peer(ours, f"{row['address']}:{row['port']}", (row["idle"], row["interval"], row["count"]))

    async def identity(self) -> DictRow:
        """Which database this is: `place` and `token`."""
        self.asked += 1
        return await identity(self.pool)

    async def hear_bell(self, direct_url: str) -> None:
        """Do what the service does at its start: a session, and a notification of the pool that must arrive on it.

        Raises Pooled when it does not arrive, and what opening a session raises. Nothing is left behind.
        """
        failure: ListenerError | None = None
        session = await Session.open(direct_url, schema=self.pool.schema)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(session.listen)
                try:
                    await session.self_test(self.pool)
                except ListenerError as error:  # outside the group it would arrive wrapped
                    failure = error
                group.cancel_scope.cancel("heard")
        except BaseExceptionGroup as lost:
            raise DatabaseError(f"the session was lost at once: {lost.exceptions[0]}") from lost
        finally:
            await session.close()
        if failure is not None:
            raise failure

    def _name(self, queue: Queue) -> sql.Identifier:
        return sql.Identifier(queue.schema or self.pool.schema, queue.table)

    async def _run(self, statement: sql.SQL | sql.Composed, params: dict[str, Any]) -> list[DictRow]:
        self.asked += 1
        return await self.pool.run(statement, params, name="doctor")


def catalogue() -> list[DictRow]:
    """Return what `definitions` answers of a schema that is right: made from the SQL files of this release."""
    rows: list[DictRow] = json.loads((sql_dir() / "catalogue.json").read_text("utf-8"))
    return rows


def numbering(table: str, column: str, generated: str) -> str:
    """Return the statements that number a column again, with @ for the schema; generated: as the catalogue has it."""
    fields = {
        "table": sql.SQL("@.{}").format(sql.Identifier(table)),
        "column": sql.Identifier(column),
        "generated": sql.SQL(
            "GENERATED ALWAYS AS IDENTITY" if "ALWAYS" in generated else "GENERATED BY DEFAULT AS IDENTITY"
        ),
        "table_text": sql.Literal("@." + sql.Identifier(table).as_string(None)),
        "column_text": sql.Literal(column),
    }
    return template("doctor", "number_again", fields).as_string(None).replace("\n", " ")


def wanted_triggers() -> Sequence[tuple[str, str]]:
    """Return (table, trigger) of every trigger file of this release."""
    texts = [(file.name, file.text) for file in schema_files() if file.kind == "trigger"]
    found = []
    for name, text in texts:
        table = re.search(r"^\s+(?:BEFORE|AFTER) .* ON (\w+)$", text, re.MULTILINE)
        if table is None:
            raise LookupError(f"{name} names no table")
        found.append((table[1], name.rpartition("/")[2].removesuffix(".sql")))
    return found


def _local_address(conn: psycopg.AsyncConnection[Any]) -> str:
    with socket.socket(fileno=os.dup(conn.pgconn.socket)) as same:
        name = same.getsockname()
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) and len(name) >= 2 else ""
