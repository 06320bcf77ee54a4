"""Named queries: the `-- name:` blocks of `sql/queries/*.sql`, the only SQL this program runs besides migrations."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeAlias

from psycopg import sql

from listener.db.files import sql_dir

#: Bytes for what is run often: composing costs psycopg 0.1 ms each time (measured).
Statement: TypeAlias = sql.SQL | sql.Composed | bytes

_PARAMETER = re.compile(rb"%(?:%|\((\w+)\)s)")
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def load(file: str) -> dict[str, str]:
    """Read `sql/queries/{file}.sql`: query name → text. Raises KeyError on a name given twice."""
    parts = _NAME.split((sql_dir() / "queries" / f"{file}.sql").read_text(encoding="utf-8"))
    queries: dict[str, str] = {}
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        if name in queries:
            raise KeyError(f"sql/queries/{file}.sql: query {name} stands there twice")
        queries[name] = _without_comments(text)
    return queries


def query(file: str, name: str) -> sql.SQL:
    """Return a query without template fields."""
    return sql.SQL(load(file)[name])


def template(file: str, name: str, fields: Mapping[str, sql.Composable]) -> sql.Composed:
    """Return a query with its `{fields}` replaced by quoted identifiers and literals."""
    return sql.SQL(load(file)[name]).format(**fields)


def numbered(statement: bytes, names: Sequence[str]) -> bytes:
    """Write the parameters of a statement as the protocol has them: $1 for the first name, $2 for the second …"""
    numbers = {name.encode(): b"$%d" % number for number, name in enumerate(names, 1)}
    return _PARAMETER.sub(lambda found: numbers[found[1]] if found[1] else b"%", statement)


def _without_comments(text: str) -> str:
    # comments explain the file, not the server's log; % and {} in them would also count as placeholders
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--")).strip().rstrip(";")
