"""`configuration_params` and its history: what the service reads and what `listener config` does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.rows import DictRow

from listener.core.errors import ConfigError, DatabaseError
from listener.db.pool import Pool
from listener.db.queries import query, template


@dataclass(frozen=True, slots=True)
class Rows:
    """The whole table. version: number of its newest change, 0 = it was never changed. values: (key, value)."""

    version: int
    values: Sequence[tuple[str, str | None]]


async def read_configuration(pool: Pool) -> Rows:
    """Read every row. Raises Unreachable, DatabaseError: never an empty answer for a failed query."""
    [row] = await pool.run(query("configuration", "configuration"), name="configuration")
    return rows_of(row)


def rows_of(row: DictRow) -> Rows:
    """Make the table of its one row in `configuration`."""
    return Rows(row["version"], [pair for pair in zip(row["keys"], row["values"], strict=True) if pair[0] is not None])


@dataclass(frozen=True, slots=True)
class Written:
    """What was set. param_key: the row's spelling. old_value: what stood there, if there was a row."""

    param_key: str
    was_there: bool
    old_value: str | None


async def write_value(pool: Pool, param_key: str, value: str) -> Written:
    """Set a key. Raises ConfigError when the database refuses the value, Unreachable, DatabaseError."""
    params = {"param_key": param_key, "param_value": value}
    try:
        rows = await pool.run(query("configuration", "write_value"), params, name="config set")
    except DatabaseError as error:
        raise _refusal(error) from error
    return Written(**rows[0])


async def read_history(pool: Pool, param_key: str | None, *, most: int) -> list[DictRow]:
    """Return the newest changes, newest first: of one key in any case, or of all."""
    return await pool.run(
        query("configuration", "history"), {"param_key": param_key, "most": most}, name="config history"
    )


async def read_clock(pool: Pool) -> datetime:
    """Return the database's time: a moment that a restore can go back to. Raises Unreachable, DatabaseError."""
    rows = await pool.run(query("configuration", "clock"), name="config restore")
    moment: datetime = rows[0]["moment"]
    return moment


async def restore(pool: Pool, moment: datetime) -> list[DictRow]:
    """Put all values back to a moment; returns what changed: param_key, old_value, new_value (null = no row).

    Raises ConfigError for a moment that is not in the past, Unreachable, DatabaseError.
    """
    try:
        return await pool.run(query("configuration", "restore"), {"moment": moment}, name="config restore")
    except DatabaseError as error:
        raise _refusal(error) from error


def undo_statement(schema: str, param_key: str, old: str | None) -> str:
    """Return the SQL, to be pasted, that puts a row back to its old value; None = there was no row."""
    names = ["configuration_params"] if schema == "public" else [schema, "configuration_params"]
    fields = {"table": sql.Identifier(*names), "key": sql.Literal(param_key), "value": sql.Literal(old)}
    name = "undo_insert" if old is None else "undo_update"
    return template("configuration", name, fields).as_string(None) + ";"


def _refusal(error: DatabaseError) -> DatabaseError | ConfigError:
    """Tell the trigger's no to a value, which is the caller's fault, from other trouble."""
    diag = getattr(error.__cause__, "diag", None)
    if diag is None or diag.sqlstate != "22023":
        return error
    hint = f"; {diag.message_hint}" if diag.message_hint else ""
    return ConfigError(f"{diag.message_primary}{hint}")
