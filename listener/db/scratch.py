"""Databases that are made for one test and dropped after it."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from listener.db.pool import search_path
from listener.db.queries import query, template
from listener.db.trouble import explained

_numbers = itertools.count(1)


class ScratchServer:
    """A server on which databases may be made. url: of any database there, as a user who may make others.

    Every method raises DatabaseError.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, database: str) -> str:
        """Return the address of one of its databases."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{quote(database)}"))

    def create(self, *, template_name: str = "template0") -> str:
        """Make a database, a copy of another one, under a name that no other process uses; returns its name."""
        name = f"listener_test_{os.getpid()}_{next(_numbers)}_{os.urandom(3).hex()}"
        names = {"database": sql.Identifier(name), "template": sql.Identifier(template_name)}
        self._run(template("scratch", "create_database", names))
        return name

    def drop(self, name: str) -> None:
        """Drop it, whoever is connected to it."""
        self._run(template("scratch", "drop_database", {"database": sql.Identifier(name)}))

    def _run(self, statement: sql.Composed) -> None:
        with explained(self._url), psycopg.connect(self._url, autocommit=True) as conn:
            conn.execute(statement)


class Scratch:
    """A connection to one such database, for the statements of a test: each is its own transaction.

    Every method raises DatabaseError.
    """

    def __init__(self, url: str, *, schema: str) -> None:
        self._url = url
        with explained(url):
            self._conn = psycopg.connect(url, autocommit=True, application_name="listener.testing")
            self._conn.execute(query("books", "prepare_session"), {"search_path": search_path(schema)})

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def execute(self, statement: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, without params also several; return the rows of the last one, if it has any."""
        with explained(self._url):
            cursor = self._conn.execute(statement.encode(), params)
            return cursor.fetchall() if cursor.description else []

    def statuses(self, table: str, where: Mapping[str, Any]) -> list[tuple[str, str | None]]:
        """Return status and last_error of the rows whose columns have these values."""
        name = sql.Identifier(*table.split("."))
        statement = template("queue", "statuses", {"table": name})
        with explained(self._url):
            return self._conn.execute(statement, {"where": json.dumps(dict(where), default=str)}).fetchall()
