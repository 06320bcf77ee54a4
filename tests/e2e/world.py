"""A database, a sandbox and room for processes, for the tests of one module."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import Database, fresh_database
from sandbox.server import Client, serving
from waiting import until

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

    def until_heard(self, *listeners: Service) -> None:
        """Wait until these have heard and read what was committed so far. A key that nobody reads is written, which
        wakes no queue; notifications arrive in the order of commit, so those of orders were heard before."""
        self.configure(read_by_nobody=random.randrange(10**9))
        [(newest,)] = self.database.execute("SELECT max(id) FROM configuration_history")
        for service in listeners or self.listeners.all:
            until(
                lambda each=service: each.metric("listener_config_version") >= newest,
                deadline_s=30,
                what=f"configuration {newest}; log: {service.log_text[-2000:]}",
            )


@contextmanager
def world(server: Any, template: str, folder: Path) -> Iterator[World]:
    """An empty, migrated database and an empty sandbox without a rate limit."""
    with (
        fresh_database(server, template) as database,
        serving() as api,
        services(database.service_url, api, folder, owner_url=database.owner_url) as listeners,
    ):
        yield World(database, api, listeners, Orders(database))
