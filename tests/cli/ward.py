"""One database, one sandbox and many examinations: what breaks it is repaired by the test, or by the advice itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import psycopg
import pytest
from conftest import APPLICATION_NAME, Database, Server, fresh_database
from login import Login
from sandbox.server import Client, serving

from listener.cli.doctor.examination import Examination, examine
from listener.cli.doctor.finding import Finding
from listener.config.environment import Environment, load_environment
from listener.db.migrate import migrate

#: Not on the search_path of whoever pastes a cure, its name needs quotes.
SCHEMA = "Shop_1"


class Room(Database):
    """What a test does by itself, it does in the installation's schema."""

    def __init__(self, server: Server, name: str, login: Login) -> None:
        super().__init__(server, name)
        self.service_url, self.owner_url = login.url(self.url), login.owner_url(self.url)

    def connect(self, *, as_service: bool = False, **options: Any) -> psycopg.Connection:
        return super().connect(as_service=as_service, **{"options": '-c search_path="Shop_1"', **options})

    def execute_as_owner(self, statements: Any) -> None:
        super().execute_as_owner(f'SET search_path = "Shop_1"; {statements}')


@dataclass(frozen=True, slots=True)
class Ward:
    """A migrated database in which the doctor finds nothing, except that no listener runs."""

    database: Database
    api: Client
    environ: dict[str, str]
    login: Login

    @property
    def url(self) -> str:
        """The address that the doctor is given."""
        return self.environ["DATABASE_URL"]

    @property
    def role(self) -> str:
        """Who it comes as."""
        return psycopg.conninfo.conninfo_to_dict(self.url).get("user") or self.database.execute("SELECT user")[0][0]

    def env(self, **environ: str) -> Environment:
        return load_environment(self.environ | environ, None)

    def examine(
        self,
        *,
        long_s: float = 300.0,
        replicas: int = 1,
        clock: Callable[[], float] = time.time,
        **environ: str,
    ) -> Examination:
        return anyio.run(examine, self.env(**environ), long_s, replicas, clock)

    def trouble(self, **options: Any) -> dict[str, list[Finding]]:
        """Everything that is not ok, by check."""
        found: dict[str, list[Finding]] = {}
        for finding in self.examine(**options).findings:
            if finding.verdict != "ok" and finding.check != "listeners":
                found.setdefault(finding.check, []).append(finding)
        return found

    def only(self, check: str, **options: Any) -> Finding:
        """The one trouble there is, which must be of this check."""
        found = self.trouble(**options)
        assert list(found) == [check], found
        assert len(found[check]) == 1, found
        return found[check][0]

    def cured_by(self, advice: str) -> None:
        """Do what the advice says; nothing must be left of the trouble."""
        for statement in advice.split("; "):
            self.paste(statement)
        assert self.trouble() == {}

    def migrate(self) -> tuple[str, ...]:
        """Run `listener migrate` as who may, and the roles' script after it; what was applied."""
        applied = migrate(self.database.owner_url, SCHEMA).applied
        self.login.grant(self.database.url, SCHEMA)
        return applied

    def paste(self, statement: str) -> None:
        """Run a statement as somebody does who knows of no schema."""
        with psycopg.connect(self.database.url, autocommit=True, application_name=APPLICATION_NAME) as conn:
            conn.execute(statement)


@contextmanager
def ward(server: Server, login: Login | None = None) -> Iterator[Ward]:
    login = login or Login()
    with fresh_database(server) as bare, closing(Room(server, bare.name, login)) as database, serving() as api:
        login.install(database.url, SCHEMA)
        host, port = api.address
        environ = {
            "DATABASE_URL": login.url(database.url),
            "LISTENER_SCHEMA": SCHEMA,
            "SHIPSTATION_API_KEY": "sandbox-key",
            "SHIPSTATION_API_SECRET": "sandbox-secret",
            "SHIPSTATION_BASE_URL": f"http://{host}:{port}",
            "SHIPSTATION_RATE_LIMIT": "0",
        }
        here = Ward(database, api, environ, login)
        assert here.trouble() == {}
        yield here


@pytest.fixture(scope="module")
def patient(server: Server, service_login: Login) -> Iterator[Ward]:
    """The doctor comes as the administrator or, with --as-runtime-role, as a runtime role that sees every session."""
    login = service_login.apart()
    try:
        with ward(server, login) as here:
            yield here
            assert here.trouble() == {}, "a test has left something broken"
    finally:
        if login is not service_login:
            login.drop(server._admin)
