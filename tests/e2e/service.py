"""Real listener processes against a real Postgres and the sandbox: start, stop, freeze, kill, and watch them."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.server import Client
from waiting import until

from e2e.exposition import Exposition

PAYLOAD = {
    "order_date": "2026-11-20T14:03:00Z",
    "ship_to": {"name": "A Buyer", "street1": "1 Main St", "city": "Austin", "postal_code": "78701", "country": "US"},
    "items": [{"line_item_key": "1", "sku": "ABC", "name": "Thing", "quantity": 2, "unit_price": "9.99"}],
}
#: The commands that the schema's owner runs.
OWNERS_COMMANDS = ("migrate", "attach", "detach")


class Service:
    """One process that runs a listener, `listener run` unless it is told otherwise."""

    def __init__(
        self,
        environ: dict[str, str],
        folder: Path,
        command: Sequence[str] = (sys.executable, "-m", "listener", "run"),
    ) -> None:
        self._environ = environ
        self._log = tempfile.NamedTemporaryFile(dir=folder, prefix="listener-", suffix=".log", delete=False)  # noqa: SIM115
        self.process = subprocess.Popen(command, env=environ, cwd=folder, stdout=self._log, stderr=self._log)

    @property
    def log_text(self) -> str:
        return Path(self._log.name).read_text()

    def log(self) -> list[dict[str, Any]]:
        """The JSON lines written so far; a line that is just being written is left out."""
        lines = self.log_text.split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, text: str) -> list[dict[str, Any]]:
        """The log lines whose event contains `text`."""
        return [line for line in self.log() if text in line["event"]]

    @property
    def address(self) -> str:
        found = until(lambda: self.events("HTTP interface") or self.process.poll() is not None, what="the HTTP address")
        assert isinstance(found, list), f"the service ended: {self.log_text}"
        return str(found[0]["address"])

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """GET from its HTTP interface: status and JSON (or text)."""
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=15) as reply:
                status, body = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, body = error.code, error.read().decode()
        return status, json.loads(body) if body.startswith(("{", "[")) else body

    def metric(self, sample: str, **labels: str) -> float | None:
        """One figure of `/metrics`, as it is now."""
        return Exposition(self.get("/metrics")[1]).value(sample, **labels)

    def wait_ready(self, deadline_s: float = 30) -> "Service":
        """Wait until it holds its session; fails with its log when it ended."""

        def is_ready() -> bool:
            assert self.process.poll() is None, f"the service ended: {self.log_text}"
            return bool(self.events("Session opened"))

        until(is_ready, deadline_s=deadline_s, what=f"the session of the service; its log: {self.log_text[-2000:]}")
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self, deadline_s: float = 30) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(deadline_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self._log.close()


def clean_environ() -> dict[str, str]:
    """The environment of this process without our settings."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LISTENER_", "SHIPSTATION_", "IMPORT_", "DRIVE_"))
    }


class Services:
    """The processes of one test, all on one database and one sandbox."""

    def __init__(self, database_url: str, sandbox_url: str, folder: Path, owner_url: str | None = None) -> None:
        self.folder = folder
        self._owner_url = owner_url or database_url
        self.environ = {
            **clean_environ(),
            "DATABASE_URL": database_url,
            "LISTENER_HTTP": "127.0.0.1:0",
            "LISTENER_LOG_FORMAT": "json",
            "LISTENER_QUEUES": "upload",  # a test of the others names them, and counts no checks that it does not mean
            "SHIPSTATION_API_KEY": "sandbox-key",
            "SHIPSTATION_API_SECRET": "sandbox-secret",
            "SHIPSTATION_BASE_URL": sandbox_url,
            "SHIPSTATION_RATE_LIMIT": "0",
        }
        self.all: list[Service] = []

    def start(self, **environ: str) -> Service:
        service = Service({**self.environ, **environ}, self.folder)
        self.all.append(service)
        return service

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line to its end; those that change the schema as its owner."""
        owner = {"DATABASE_URL": self._owner_url} if arguments and arguments[0] in OWNERS_COMMANDS else {}
        return subprocess.run(
            [sys.executable, "-m", "listener", *arguments],
            env={**self.environ, **owner, **environ},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )


@contextmanager
def services(database_url: str, api: Client, folder: Path, *, owner_url: str | None = None) -> Iterator[Services]:
    """Processes that are gone when the block ends."""
    host, port = api.address
    group = Services(database_url, f"http://{host}:{port}", folder, owner_url)
    try:
        yield group
    finally:
        for service in group.all:
            service.close()


class Orders:
    """The order table as a shop's program sees it."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def insert(self, count: int, *, prefix: str = "A", payload: Any = None, overdue_s: float = 0.0) -> None:
        """Insert `count` orders in one statement: {prefix}-1, {prefix}-2, …; due since so many seconds."""
        self._database.execute(
            "INSERT INTO orders_inbox (source, order_number, payload, scheduled_at)"
            " SELECT 'shop', %s || '-' || n, %s::jsonb, now() - make_interval(secs => %s)"
            " FROM generate_series(1, %s) AS n",
            [prefix, json.dumps(PAYLOAD if payload is None else payload), overdue_s, count],
        )

    def counts(self) -> dict[str, int]:
        return dict(self._database.execute("SELECT status, count(*) FROM orders_inbox GROUP BY status"))

    def wait_uploaded(self, count: int, deadline_s: float = 60) -> None:
        until(
            lambda: self.counts() == {"Uploaded": count},
            deadline_s=deadline_s,
            what=f"{count} uploaded orders; now {self.counts()}",
        )

    def errors(self) -> dict[str, str]:
        """Number → last_error of the failed ones."""
        return dict(self._database.execute("SELECT order_number, last_error FROM orders_inbox WHERE status = 'Failed'"))
