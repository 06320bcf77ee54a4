"""The session's own settings: what a role or a database sets for others must not end it."""

import anyio
import pytest
from conftest import Database
from psycopg import sql

from listener.db.session import Session

pytestmark = pytest.mark.anyio


async def test_what_is_set_for_idle_people_does_not_end_the_session(database: Database) -> None:
    """It may be idle for hours; its end would cancel the handlers, again and again."""
    name = sql.Identifier(database.name)
    foreign = {"idle_session_timeout": "5s"}
    if database.server.version >= 170000:
        foreign["transaction_timeout"] = "5s"
    for setting, value in foreign.items():
        database.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), value))
    session = await Session.open(database.service_url, schema="public")
    async with anyio.create_task_group() as group:
        group.start_soon(session.listen)
        for setting in foreign:
            query = sql.SQL("SELECT current_setting({}) AS value").format(setting)
            assert await session.ask(query) == [{"value": "0"}]
        group.cancel_scope.cancel("the test is over")
    await session.close()
