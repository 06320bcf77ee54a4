"""--as-runtime-role does what it says: nothing of the product comes as the administrator unseen."""

import psycopg
import pytest
from conftest import Database
from login import Login, as_role
from queues import open_pool

from e2e.service import Services
from listener.db.session import Session

pytestmark = pytest.mark.anyio


@pytest.fixture
def expected(request: pytest.FixtureRequest, database: Database) -> tuple[bool, bool]:
    """Is the service the runtime role, is it a superuser?"""
    is_asked = bool(request.config.getoption("--as-runtime-role"))
    [(is_superuser,)] = database.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    return is_asked, is_superuser and not is_asked


WHO = """
SELECT DISTINCT rolname ~ '_runtime$', rolsuper FROM pg_stat_activity JOIN pg_roles ON rolname = usename
WHERE datname = current_database() AND application_name LIKE 'order-listener%'
"""


async def test_pool_and_session_come_as_the_role_that_was_asked_for(
    database: Database, expected: tuple[bool, bool]
) -> None:
    async with open_pool(database) as pool:
        await pool.run("SELECT 1", name="login")
        assert database.execute(WHO) == [expected]
    session = await Session.open(database.service_url, schema="public")
    assert database.execute(WHO) == [expected]
    await session.close()


def test_a_real_process_and_its_commands_do(
    listeners: Services, database: Database, expected: tuple[bool, bool]
) -> None:
    service = listeners.start().wait_ready()
    assert database.execute(WHO) == [expected]
    done = listeners.run("config", "set", "upload_batch_size", "5")
    assert done.returncode == 0, done.stderr
    [(who,)] = database.execute("SELECT changed_by FROM configuration_history ORDER BY id DESC LIMIT 1")
    assert ("_runtime (" in who) is expected[0], who
    service.stop()


def test_an_owners_connection_under_the_products_name_is_seen(
    database: Database, expected: tuple[bool, bool], service_login: Login
) -> None:
    service_login.strangers()
    with psycopg.connect(database.url, application_name="order-listener pool"):
        pass
    found = service_login.strangers()
    if expected[0] and not service_login.watches:
        pytest.skip("nobody reads the log of a server that the tests did not start")
    assert bool(found) is expected[0]
    assert all(each.startswith("order-listener pool as ") and each.endswith(database.name) for each in found)


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql://me@h:1/d", "postgresql://you@h:1/d"),
        ("postgresql://me:p%40ss@h:1/d?sslmode=off", "postgresql://you:p%40ss@h:1/d?sslmode=off"),
        ("postgresql://h/d", "postgresql://you@h/d"),
    ],
)
def test_an_address_for_another_role_keeps_the_rest(url: str, other: str) -> None:
    assert as_role(url, "you") == other
