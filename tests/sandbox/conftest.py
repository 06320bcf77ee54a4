"""One sandbox for all tests of this folder, emptied before each."""

import logging
from collections.abc import Iterator

import pytest

from listener.sandbox.shipstation import SandboxSettings
from sandbox.server import Client, Server


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with Server(SandboxSettings(limit=None, seed=1)) as server:
        yield server


@pytest.fixture
def api(server: Server, caplog: pytest.LogCaptureFixture) -> Iterator[Client]:
    """A client of a sandbox that holds nothing; fails the test when the server logged an error."""
    server.sandbox.reset()
    client = Client(server.address)
    yield client
    client.close()
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert loud == []
