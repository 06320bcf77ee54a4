"""One database, one sandbox and many examinations: what breaks it is repaired by the test, or by the advice itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from conftest import Database, Server, fresh_database
from sandbox.server import Client, serving

from listener.cli.doctor.examination import Examination, examine
from listener.cli.doctor.finding import Finding
from listener.config.environment import Environment, load_environment


@dataclass(frozen=True, slots=True)
class Ward:
    """A migrated database in which the doctor finds nothing, except that no listener runs."""

    database: Database
    api: Client
    environ: dict[str, str]

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
            self.database.execute(statement)
        assert self.trouble() == {}


@contextmanager
def ward(server: Server, template: str) -> Iterator[Ward]:
    with fresh_database(server, template) as database, serving() as api:
        host, port = api.address
        environ = {
            "DATABASE_URL": database.url,
            "SHIPSTATION_API_KEY": "sandbox-key",
            "SHIPSTATION_API_SECRET": "sandbox-secret",
            "SHIPSTATION_BASE_URL": f"http://{host}:{port}",
            "SHIPSTATION_RATE_LIMIT": "0",
        }
        here = Ward(database, api, environ)
        assert here.trouble() == {}
        yield here


@pytest.fixture(scope="module")
def patient(server: Server, template: str) -> Iterator[Ward]:
    with ward(server, template) as here:
        yield here
        assert here.trouble() == {}, "a test has left something broken"
