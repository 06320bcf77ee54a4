"""Behind PgBouncer in transaction mode: the pool may go through it, the session may not, and who confuses them is told.

Notifications do not pass such a pooler, and nothing about the connection itself shows it.
"""

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database
from psycopg.conninfo import conninfo_to_dict
from sandbox.server import Client
from waiting import until

from e2e.service import Orders, Services

PROGRAM = Path("/usr/sbin/pgbouncer")
COUNT = 200
DEADLINE_S = 120

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: apt-get install pgbouncer"),
]


class Bouncer:
    """A running PgBouncer. It refuses root, so it runs as another user and in a folder that one can enter."""

    def __init__(self, database: Database, folder: Path, port: int) -> None:
        parts = conninfo_to_dict(database.service_url)
        self._user = str(parts.get("user") or pwd.getpwuid(os.geteuid()).pw_name)
        self._port = port
        self.url = f"postgresql://{self._user}@127.0.0.1:{port}/{database.name}"
        self.log = folder / "pgbouncer.log"
        (folder / "users.txt").write_text(f'"{self._user}" "{parts.get("password") or ""}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host={parts.get("host") or "127.0.0.1"} port={parts.get("port") or 5432}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {folder}/users.txt
            admin_users = {self._user}
            pool_mode = transaction
            default_pool_size = 5
            """.replace("            ", "")
        )
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), str(folder / "pgbouncer.ini")],
                stdout=log,
                stderr=log,
                user=_account() if os.geteuid() == 0 else None,
            )

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return bool(self.show("VERSION"))
        except psycopg.OperationalError:
            return False

    def show(self, what: str) -> list[tuple[Any, ...]]:
        """Ask the console."""
        url = f"postgresql://{self._user}@127.0.0.1:{self._port}/pgbouncer"
        with psycopg.connect(url, autocommit=True) as console:
            return console.execute(f"SHOW {what}").fetchall()


@pytest.fixture
def bouncer(database: Database) -> Iterator[Bouncer]:
    with running(database) as bouncer:
        yield bouncer


@contextmanager
def running(database: Database) -> Iterator[Bouncer]:
    with tempfile.TemporaryDirectory(prefix="listener-tests-") as folder:
        Path(folder).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        bouncer = Bouncer(database, Path(folder), port)
        try:
            until(bouncer.answers, what="PgBouncer")
            yield bouncer
        finally:
            bouncer.process.kill()
            bouncer.process.wait(10)


def test_several_processes_work_through_it_with_a_direct_session(
    bouncer: Bouncer, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    api.fault({"latency_s": 0.05})
    database.execute(
        "INSERT INTO configuration_params VALUES ('upload_batch_size', '5')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    group = [
        listeners.start(DATABASE_URL=bouncer.url, LISTENER_DIRECT_URL=database.service_url).wait_ready()
        for _ in range(3)
    ]
    for wave in range(4):
        orders.insert(COUNT // 4, prefix=f"W{wave}")
        orders.wait_uploaded(COUNT // 4 * (wave + 1), DEADLINE_S)

    assert len(api.held()) == COUNT
    assert api.stats()["overlaps"] == 0
    # the safety poll is slower than this test: the bell was heard past the pooler
    assert any('listener_wakes_total{queue="upload",reason="notify"}' in each.get("/metrics")[1] for each in group)
    names = [name for _, name, *_ in database.connections() if "session" in name]
    assert len(names) == 3
    assert through(bouncer, database) > COUNT // 5, "claims and settles go through the pooler"
    for service in group:
        assert not service.events("Trouble")
        assert service.stop() == 0


def test_it_works_on_after_the_pooler_was_away(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    api.fault({"latency_s": 0.05})
    database.execute(
        "INSERT INTO configuration_params VALUES ('upload_batch_size', '5')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    with running(database) as first:
        port = first.url
        service = listeners.start(DATABASE_URL=port, LISTENER_DIRECT_URL=database.service_url).wait_ready()
        orders.insert(COUNT)
        until(lambda: orders.counts().get("Uploaded"), deadline_s=DEADLINE_S, what="progress")
        first.process.kill()
        until(lambda: service.events("Trouble"), deadline_s=DEADLINE_S, what="the trouble to be told")
        with tempfile.TemporaryDirectory(prefix="listener-tests-") as folder:
            Path(folder).chmod(0o755)
            second = Bouncer(database, Path(folder), int(port.rpartition(":")[2].partition("/")[0]))
            try:
                orders.wait_uploaded(COUNT, DEADLINE_S)
                assert len(api.held()) == COUNT
                assert api.stats()["overlaps"] == 0
                assert len(service.events("Session opened")) == 1
                assert service.stop() == 0
            finally:
                second.process.kill()
                second.process.wait(10)


def test_a_session_through_it_is_refused_at_the_start(bouncer: Bouncer, listeners: Services, api: Client) -> None:
    refuses(listeners, DATABASE_URL=bouncer.url)


def test_a_direct_address_that_leads_through_it_is_refused_as_well(
    bouncer: Bouncer, listeners: Services, api: Client, database: Database
) -> None:
    refuses(listeners, DATABASE_URL=database.service_url, LISTENER_DIRECT_URL=bouncer.url)


@pytest.mark.parametrize("is_direct_given", [False, True], ids=["session", "pool"])
def test_startup_parameters_that_it_rejects_are_told(
    is_direct_given: bool, bouncer: Bouncer, listeners: Services, api: Client, database: Database
) -> None:
    direct = {"LISTENER_DIRECT_URL": database.service_url} if is_direct_given else {}
    line = refuses(listeners, DATABASE_URL=f"{bouncer.url}?options=-cwork_mem%3D8MB", **direct)
    assert "ignore_startup_parameters" in line


def refuses(listeners: Services, **environ: str) -> str:
    """It ends with exit code 1 and one line for a person, which is returned."""
    done = listeners.run("run", **environ)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith("listener: ")
    assert "LISTENER_DIRECT_URL" in said[0]
    return said[0]


def through(bouncer: Bouncer, database: Database) -> int:
    """Transactions that the pooler has passed on for the database."""
    return sum(row[1] for row in bouncer.show("STATS") if row[0] == database.name)


def _account() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PgBouncer refuses root, and there is no other user to run it as")
