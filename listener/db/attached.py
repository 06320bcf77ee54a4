"""The attached tables, as `listener attach` has left them: all that a queue's declaration needs."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from listener.core.errors import ConfigError
from listener.core.queue import Queue
from listener.db.pool import Pool
from listener.db.queries import query


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One attached table.

    name: the queue's: the table's, with the schema in front when it is not the installation's.
    key_type, key_is_text: SQL type of the key column, and how it is sent, as `QueueTable` wants them.
    columns: the table's own columns, the key among them, in its order; without those of the queue.
    writable: of these, what a result may be written to; neither the key nor generated columns.
    content: columns whose change makes a finished row work again.
    """

    name: str
    schema: str
    table: str
    key: str
    key_type: str
    key_is_text: bool
    ready_word: str
    done_word: str
    content: tuple[str, ...]
    columns: tuple[str, ...]
    writable: tuple[str, ...]

    @property
    def queue(self) -> Queue:
        """The declaration of this queue: its jobs carry every column, and may write every writable one."""
        return Queue(
            name=self.name,
            table=self.table,
            schema=self.schema,
            key=self.key,
            ready_word=self.ready_word,
            done_word=self.done_word,
            columns=self.columns,
            results=self.writable,
        )


async def list_attached(pool: Pool) -> list[Attached]:
    """Return the tables that are completely attached and still there, by name. Raises Unreachable, DatabaseError."""
    return [_attached(row) for row in await _rows(pool) if row["is_complete"] and row["is_there"]]


async def read_attached(pool: Pool, name: str) -> Attached:
    """Return one attached table by the queue's name.

    Raises ConfigError, which says what to do, when there is none or it cannot be used; Unreachable, DatabaseError.
    """
    rows = {row["name"]: row for row in await _rows(pool)}
    row = rows.get(name)
    if row is None:
        near = get_close_matches(name, rows, n=1)
        guess = f"did you mean {near[0]}?" if near else f"run `listener attach {name}`"
        raise ConfigError(f"table {name} is not attached; {guess}")
    if not row["is_there"]:
        where = f"{row['table_schema']}.{row['table_name']}"
        raise ConfigError(f"table {where} is attached, but is no longer there; run `listener detach {name}`")
    if not row["is_complete"]:
        raise ConfigError(f"table {name} is not completely attached; run `listener attach {name}` again")
    return _attached(row)


async def _rows(pool: Pool) -> list[dict[str, Any]]:
    return await pool.run(query("attached", "attached"), name="attached tables")


def _attached(row: dict[str, Any]) -> Attached:
    return Attached(
        name=row["name"],
        schema=row["table_schema"],
        table=row["table_name"],
        key=row["key_column"],
        key_type=row["key_type"],
        key_is_text=row["key_is_text"],
        ready_word=row["ready_word"],
        done_word=row["done_word"],
        content=tuple(row["content"]),
        columns=tuple(name for name, _ in row["columns"]),
        writable=tuple(name for name, is_writable in row["columns"] if is_writable),
    )
