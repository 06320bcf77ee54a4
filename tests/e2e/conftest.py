"""A sandbox, a migrated database and processes of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox.server import Client, serving

from e2e.service import Orders, Services, services
from e2e.world import World, world


@pytest.fixture
def api() -> Iterator[Client]:
    """An empty sandbox without a rate limit."""
    with serving() as api:
        yield api


@pytest.fixture
def listeners(database: Any, api: Client, tmp_path: Path) -> Iterator[Services]:
    with services(database.service_url, api, tmp_path, owner_url=database.owner_url) as group:
        yield group


@pytest.fixture
def orders(database: Any) -> Orders:
    return Orders(database)


@pytest.fixture
def town(server: Any, template: str, tmp_path: Path) -> Iterator[World]:
    """A world of the test's own."""
    with world(server, template, tmp_path) as town:
        yield town
