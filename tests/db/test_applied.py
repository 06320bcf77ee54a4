"""Which servers this release runs on."""

from types import SimpleNamespace

import pytest

from listener.core.errors import DatabaseError
from listener.db.applied import OLDEST_SERVER, require_version


def server(version: int) -> SimpleNamespace:
    """A connection, as far as it tells the version."""
    return SimpleNamespace(info=SimpleNamespace(server_version=version, host="db", port=5432, dbname="shop"))


def test_a_server_that_is_too_old_is_refused_with_the_cure() -> None:
    with pytest.raises(DatabaseError) as caught:
        require_version(server(140_018))
    assert str(caught.value) == (
        f"db:5432/shop is PostgreSQL 14: order-listener needs {OLDEST_SERVER} or later; upgrade the server"
    )


@pytest.mark.parametrize("version", [150_000, 180_001, 200_000])
def test_the_oldest_supported_server_and_later_ones_are_taken(version: int) -> None:
    require_version(server(version))
