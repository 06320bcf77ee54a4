"""A pytest plugin for programs that use the library: a real Postgres, a fresh database for each test, `drain`.

Found by pytest once order-listener is installed; a test run that uses none of its fixtures imports nothing more.
The server is LISTENER_TEST_DATABASE_URL (a user who may make databases), or the embedded one of
`order-listener[embedded]`. `async` tests need anyio's plugin or pytest-asyncio.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from listener.testing.database import Database

__all__ = ["Database"]


def __getattr__(name: str) -> object:
    if name != "Database":
        raise AttributeError(f"module 'listener.testing' has no attribute {name!r}")
    from listener.testing.database import Database

    return Database


@pytest.fixture(scope="session")
def listener_server() -> Iterator[str]:
    """Address of the server on which each test gets its database; override it to bring your own."""
    if given := os.environ.get("LISTENER_TEST_DATABASE_URL"):
        yield given
        return
    from listener.db.embedded import Cluster

    # Not below pytest's own temporary folder: that one is closed to the account that the server runs as.
    with tempfile.TemporaryDirectory(prefix="order-listener-tests-") as folder:
        settings = {"fsync": "off"}  # a test's database need not survive the machine
        with Cluster(data_dir=Path(folder) / "data", settings=settings) as cluster:
            yield cluster.url()


@pytest.fixture(scope="session")
def listener_schema() -> str:
    """Schema of the installation in the tests' databases; override it when yours is another one."""
    return "public"


@pytest.fixture(scope="session")
def _listener_template(listener_server: str, listener_schema: str) -> Iterator[str]:
    """Name of a migrated database to copy: much faster than migrating each one."""
    from listener.db.migrate import migrate
    from listener.db.scratch import ScratchServer

    server = ScratchServer(listener_server)
    name = server.create()
    try:
        migrate(server.url(name), listener_schema)
        yield name
    finally:
        server.drop(name)


@pytest.fixture
def listener_database(
    listener_server: str, listener_schema: str, _listener_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator["Database"]:
    """A migrated database of the test's own. While the test runs, the environment leads there too, so that a
    `Listener()` and whatever else reads DATABASE_URL finds it."""
    from listener.db.scratch import ScratchServer
    from listener.testing.database import Database

    server = ScratchServer(listener_server)
    name = server.create(template_name=_listener_template)
    monkeypatch.setenv("DATABASE_URL", server.url(name))
    monkeypatch.setenv("LISTENER_DIRECT_URL", "")  # empty counts as not set, also when .env has one
    monkeypatch.setenv("LISTENER_SCHEMA", listener_schema)
    database = Database(server.url(name), schema=listener_schema)
    try:
        yield database
    finally:
        database.close()
        server.drop(name)
