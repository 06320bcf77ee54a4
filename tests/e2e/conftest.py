"""A sandbox, a migrated database and processes of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox.server import Client
from sandbox.server import Server as SandboxServer

from e2e.service import Orders, Services, services
from listener.sandbox.shipstation import SandboxSettings


@pytest.fixture
def api() -> Iterator[Client]:
    """An empty sandbox without a rate limit."""
    with SandboxServer(SandboxSettings(limit=0)) as server:
        client = Client(server.address)
        yield client
        client.control("DELETE", "faults")
        client.close()
        server.sandbox.close()


@pytest.fixture
def listeners(database: Any, api: Client, tmp_path: Path) -> Iterator[Services]:
    with services(database.url, api, tmp_path) as group:
        yield group


@pytest.fixture
def orders(database: Any) -> Orders:
    return Orders(database)
