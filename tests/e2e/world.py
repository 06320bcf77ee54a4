"""A database, a sandbox and room for processes, for the tests of one module."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Database, fresh_database
from sandbox.server import Client, serving

from e2e.service import Orders, Service, Services, services


@dataclass(frozen=True, slots=True)
class World:
    """What belongs together. Processes that `listeners` starts end with it."""

    database: Database
    api: Client
    listeners: Services
    orders: Orders

    def start(self, **environ: str) -> Service:
        return self.listeners.start(**environ).wait_ready()

    def configure(self, **values: object) -> None:
        """Write configuration rows; a process that runs already acts on them within milliseconds."""
        for key, value in values.items():
            self.database.execute(
                "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
                " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
                [key, str(value).lower()],
            )

    def smuggle(self, key: str, value: str | None) -> None:
        """Write a row past the triggers, as a restored dump or an older installation would; nobody is told."""
        self.database.execute("SET session_replication_role = replica")
        try:
            self.database.execute(
                "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
                " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
                [key, value],
            )
        finally:
            self.database.execute("RESET session_replication_role")


@contextmanager
def world(server: Any, template: str, folder: Path) -> Iterator[World]:
    """An empty, migrated database and an empty sandbox without a rate limit."""
    with (
        fresh_database(server, template) as database,
        serving() as api,
        services(database.url, api, folder) as listeners,
    ):
        yield World(database, api, listeners, Orders(database))
