"""The SQL files of this release: where they are, in which order they apply, what each one's checksum is.

Reads files, knows no database. `listener.db.migrate` applies the schema files, the gateways read ``queries/``.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from listener.core.errors import ConfigError

Kind = Literal["migration", "function", "trigger"]

#: Folder of each kind, in the order of application: functions name tables, triggers name functions.
_FOLDERS: tuple[tuple[Kind, str], ...] = (
    ("migration", "migrations"),
    ("function", "functions"),
    ("trigger", "triggers"),
)
#: The first line of a migration that cannot run in a transaction, such as CREATE INDEX CONCURRENTLY.
_NO_TRANSACTION = "-- listener: no transaction"

#: What may contain a semicolon that ends no statement, and the semicolon that ends one.
_TOKEN = re.compile(
    r"""
      --[^\n]*
    | /\*.*?\*/
    | \b[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$
    | (?P<end>;)
    """,
    re.DOTALL | re.VERBOSE,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class SqlFile:
    """One file of the schema."""

    #: Path below the SQL directory, such as ``migrations/0001_sequences.sql``; the key in ``listener_migrations``.
    name: str
    kind: Kind
    #: With line ends normalised to ``\n``: a checkout on another system is the same file.
    text: str

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the text, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def needs_transaction(self) -> bool:
        """False when the file's first line asks to run outside a transaction."""
        return self.text.partition("\n")[0] != _NO_TRANSACTION

    @property
    def statements(self) -> tuple[str, ...]:
        """The single statements, for a file that runs outside a transaction."""
        return tuple(_statements(self.text))


def sql_dir() -> Path:
    """Return the directory of the SQL files: in the installed package, else in the checkout.

    Raises ConfigError when neither exists.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "sql", package.parent / "sql"):
        if (folder / "migrations").is_dir():
            return folder
    raise ConfigError(f"the SQL files are missing: neither {package / 'sql'} nor {package.parent / 'sql'} has them")


def schema_files(directory: Path | None = None) -> tuple[SqlFile, ...]:
    """Read all files of the schema, in the order of application; default directory: `sql_dir`."""
    root = sql_dir() if directory is None else directory
    return tuple(
        SqlFile(
            name=f"{folder}/{path.name}", kind=kind, text=path.read_text("utf-8")
        )  # read_text makes \r\n and \r into \n
        for kind, folder in _FOLDERS
        for path in sorted((root / folder).glob("*.sql"))
    )


def _statements(text: str) -> Iterator[str]:
    start = 0
    for token in _TOKEN.finditer(text):
        if token["end"]:
            yield from _not_empty(text[start : token.end()])
            start = token.end()
    yield from _not_empty(text[start:])


def _not_empty(statement: str) -> Iterator[str]:
    if _COMMENT.sub("", statement).strip(" \t\n;"):
        yield statement.strip()
