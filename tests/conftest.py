"""A real PostgreSQL for every test, and a fresh database for each test that asks for one.

``--postgres`` chooses the server: nothing = the embedded 18, a directory = the binaries of another version (a private
server is started from them), a URL = a server that runs already (its user must be allowed to create databases),
``docker`` or ``docker:17`` = a container. Each xdist worker has its own private server. ``--as-runtime-role`` chooses
who the service under test is there (tests/login.py).
"""

import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
import pytest
from login import Login
from psycopg import sql
from waiting import until

from listener.core.errors import ConfigError
from listener.db.embedded import Cluster, embedded_bin_dir

pytest_plugins = ["own_role"]

# Ctrl-C must reach what the tests start, also where a shell started the tests in the background with SIGINT ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: No disk flushes: a test's database need not survive the machine. Twice the default connections: tests open many.
SERVER_SETTINGS = {"fsync": "off", "max_connections": "200", "max_prepared_transactions": "10"}
#: The fixtures' own connections, which do not count as left open.
APPLICATION_NAME = "listener tests"

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        metavar="WHERE",
        help="URL of a server, directory of PostgreSQL binaries, docker, or docker:TAG; default: the embedded 18",
    )
    parser.addoption(
        "--rounds", type=int, default=15, metavar="N", help="rounds of each test against lost wakeups; 1000 measures"
    )
    parser.addoption(
        "--image",
        action="store_true",
        help="run the steps of deploy/Dockerfile in a scratch root: a minute, and network",
    )
    parser.addoption(
        "--mutations", type=int, default=1_500, metavar="N", help="damaged order files to read; 100000 is thorough"
    )


class Server:
    """The server of this test session: makes and drops databases, sees who is connected to them."""

    def __init__(self, url: str, login: Login | None = None) -> None:
        self._url = url
        self.login = login or Login()
        self._admin = psycopg.connect(url, autocommit=True, application_name=APPLICATION_NAME)
        #: Such as 150018.
        self.version = self._admin.info.server_version

    def close(self) -> None:
        self.login.drop(self._admin)
        self._admin.close()

    def url(self, database: str) -> str:
        if "://" not in self._url:
            return psycopg.conninfo.make_conninfo(self._url, dbname=database)
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{quote(database)}"))

    def execute(self, query: str | sql.Composed, params: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        """Run one statement in the maintenance database."""
        cursor = self._admin.execute(query, params)
        return cursor.fetchall() if cursor.description else []

    def create(self, *, template: str | None = None) -> str:
        """Make a database and return its name, which no other worker or session uses."""
        name = f"listener_test_{os.getpid()}_{next(_numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self.execute(statement.format(sql.Identifier(name), sql.Identifier(template or "template0")))
        return name

    def drop(self, name: str) -> None:
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def connections(self, name: str) -> list[tuple[Any, ...]]:
        """Return pid, application, state and last statement of the clients of database *name*."""
        return self.execute(
            "SELECT pid, application_name, state, left(query, 80) FROM pg_stat_activity"
            " WHERE datname = %s AND backend_type = 'client backend'",
            [name],
        )


class Database:
    """One database, for one test.

    url: the administrator's address, service_url: the one that the service is given, owner_url: the one that `listener
    migrate` and `listener attach` are given.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.url = server.url(name)
        self.service_url = server.login.url(self.url)
        self.owner_url = server.login.owner_url(self.url)
        self._opened: list[psycopg.Connection] = []
        self._conn: psycopg.Connection | None = None

    def execute(self, query: Any, params: Any = None) -> list[tuple[Any, ...]]:
        """Run one statement (without *params* also several), committed at once, and return its rows."""
        if self._conn is None or self._conn.closed:
            self._conn = self.connect()
        cursor = self._conn.execute(query, params)
        return cursor.fetchall() if cursor.description else []

    @property
    def owner(self) -> str:
        """The role that attaches."""
        return unquote(urlsplit(self.owner_url).username or "")

    def execute_as_owner(self, statements: Any) -> None:
        """Run statements as who attaches: the tables that they make are his."""
        with psycopg.connect(self.owner_url, autocommit=True, application_name=APPLICATION_NAME) as conn:
            conn.execute(statements)

    def connect(self, *, as_service: bool = False, **options: Any) -> psycopg.Connection:
        """Open one more autocommit connection; closed after the test if the test does not."""
        url = self.service_url if as_service else self.url
        conn = psycopg.connect(url, **{"autocommit": True, "application_name": APPLICATION_NAME, **options})
        self._opened.append(conn)
        return conn

    def install(self, schema: str = "public") -> None:
        """Migrate, and let the service in."""
        self.server.login.install(self.url, schema)

    def grant(self, schema: str = "public") -> None:
        """Let the service at tables that were attached since: `deploy/roles.sql` once more."""
        self.server.login.grant(self.url, schema)

    def connections(self) -> list[tuple[Any, ...]]:
        """Return the clients that are connected now, without those of this object."""
        return [row for row in self.server.connections(self.name) if row[1] != APPLICATION_NAME]

    def close(self) -> None:
        for conn in self._opened:
            conn.close()


@contextmanager
def fresh_database(server: Server, template: str | None = None) -> Iterator[Database]:
    """Make a database; afterwards drop it, and fail when somebody left a connection to it open."""
    database = Database(server, server.create(template=template))
    try:
        yield database
        database.close()
        until(
            lambda: not server.connections(database.name),
            deadline_s=5,
            what=f"the end of the connections that the test left open: {server.connections(database.name)}",
        )
    finally:
        database.close()
        server.drop(database.name)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """psycopg speaks asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def server_bin_dir(request: pytest.FixtureRequest) -> Path:
    """The binaries that private servers of this session are made of."""
    where = request.config.getoption("--postgres")
    if where and Path(where).is_dir():
        return Path(where)
    try:
        return embedded_bin_dir()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, service_login: Login) -> Iterator[Server]:
    """The server of this worker."""
    where = request.config.getoption("--postgres")
    with ExitStack() as stack:
        if where is None or Path(where).is_dir():
            url = stack.enter_context(private_server(Path(where) if where else None, service_login)).url()
        elif where.partition(":")[0] == "docker":
            url = stack.enter_context(container(where.partition(":")[2] or "18"))
        else:
            url = where
        server = Server(url, service_login)
        stack.callback(server.close)
        yield server


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """A migrated database to clone."""
    name = server.create()
    server.login.install(server.url(name))
    yield name
    server.drop(name)


@pytest.fixture
def database(server: Server, template: str) -> Iterator[Database]:
    """A migrated database of the test's own."""
    with fresh_database(server, template) as database:
        yield database


@pytest.fixture
def empty_database(server: Server) -> Iterator[Database]:
    """A database of the test's own with nothing in it."""
    with fresh_database(server) as database:
        yield database


@pytest.fixture
def own_cluster(server_bin_dir: Path, service_login: Login) -> Iterator[Cluster]:
    """A running private server that the test may stop, start and break."""
    with private_server(server_bin_dir, service_login) as cluster:
        yield cluster


@pytest.fixture
def own_service_url(own_cluster: Cluster, service_login: Login) -> str:
    """The service's address of that server's database, which is migrated."""
    service_login.install(own_cluster.url())
    return service_login.url(own_cluster.url())


@pytest.fixture(scope="session")
def psql(server_bin_dir: Path) -> Path:
    """The psql that fits the server."""
    path = server_bin_dir / "psql"
    if not path.exists():
        path = Path(shutil.which("psql") or pytest.skip(f"no psql in {server_bin_dir} nor on the PATH"))
    return path


@contextmanager
def private_server(bin_dir: Path | None, login: Login | None = None) -> Iterator[Cluster]:
    # Not below pytest's own temporary folder: that one is closed to the account that the server runs as.
    with tempfile.TemporaryDirectory(prefix="listener-tests-") as folder:
        login = login or Login()
        cluster = Cluster(
            bin_dir=bin_dir, data_dir=Path(folder) / "data", settings={**SERVER_SETTINGS, **login.settings}
        )
        with cluster:
            login.watch(cluster.log_path)
            yield cluster
        login.look()


@contextmanager
def container(tag: str) -> Iterator[str]:
    try:
        from testcontainers.community.postgres import PostgresContainer

        running = PostgresContainer(f"postgres:{tag}", driver=None).with_command(
            [part for name, value in SERVER_SETTINGS.items() for part in ("-c", f"{name}={value}")]
        )
        running.start()
    except Exception as error:  # noqa: BLE001 - the client's errors are not documented
        pytest.exit(f"--postgres docker: Docker does not answer: {error}", returncode=4)
    try:
        yield running.get_connection_url()
    finally:
        running.stop()
