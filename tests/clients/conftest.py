"""A sandbox without a rate limit for each test of this folder."""

from collections.abc import Iterator

import pytest
from sandbox.server import Client, Server

from listener.sandbox.shipstation import SandboxSettings


@pytest.fixture
def api() -> Iterator[Client]:
    with Server(SandboxSettings(limit=0)) as server:
        client = Client(server.address)
        yield client
        client.control("DELETE", "faults")
        client.close()
        server.sandbox.close()
