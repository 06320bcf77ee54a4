"""A sandbox without a rate limit for each test of this folder."""

from collections.abc import Iterator

import pytest
from sandbox.server import Client, serving


@pytest.fixture
def api() -> Iterator[Client]:
    with serving() as api:
        yield api
