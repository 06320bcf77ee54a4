"""The roles of deploy/roles.sql in a database, as an administrator makes them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from conftest import Database, Server, fresh_database
from login import ROLES, as_role, run_script
from psycopg.conninfo import make_conninfo

from listener.db.migrate import migrate


@dataclass(frozen=True, slots=True)
class Roles:
    """A database that the script has been run on, twice: before and after the migration, which the owner did."""

    database: Database
    prefix: str
    schema: str
    psql: Path

    def name(self, role: str) -> str:
        return f"{self.prefix}_{role}"

    def url(self, role: str) -> str:
        return as_role(self.database.url, self.name(role))

    def connect(self, role: str, **options: Any) -> psycopg.Connection[Any]:
        """Open an autocommit connection of a role, in the installation's schema."""
        settings = f"-c search_path={self.schema}"
        return psycopg.connect(make_conninfo(self.url(role), options=settings), autocommit=True, **options)

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        return run_script(self.psql, self.database.url, *arguments, environ=environ)

    def apply(self) -> str:
        """Run the script for this installation; what it printed."""
        done = self.run("-v", f"prefix={self.prefix}", LISTENER_SCHEMA=self.schema)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@contextmanager
def roles(server: Server, psql: Path, *, schema: str = "public") -> Iterator[Roles]:
    with fresh_database(server) as database:
        made = Roles(database, f"of_{database.name}", schema, psql)
        try:
            assert "run listener migrate with the owner role" in made.apply()
            migrate(made.url("owner"), schema)
            assert made.apply() == ""
            yield made
        finally:
            for role in ROLES:
                if database.execute("SELECT FROM pg_roles WHERE rolname = %s", [made.name(role)]):
                    database.execute(f"DROP OWNED BY {made.name(role)} CASCADE; DROP ROLE {made.name(role)}")
