"""The session's own settings: what a role or a database sets for others must not end it."""

import asyncio

import anyio
import pytest
from conftest import Database
from psycopg import sql

from listener.core.errors import SessionLost
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


async def test_a_socket_that_has_ended_is_let_go_of_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libpq closes it; the next socket that anybody opens gets its number, and would never be heard."""
    session = await Session.open(database.service_url, schema="public")
    loop, number = asyncio.get_running_loop(), session._conn.pgconn.socket
    let_go: list[bool] = []
    end_hearing = session._end_hearing

    def look() -> None:
        let_go.append(not loop.remove_reader(number))
        end_hearing()

    async with anyio.create_task_group() as group:

        async def listen() -> None:
            with pytest.raises(SessionLost):
                await session.listen()
            group.cancel_scope.cancel("the session is lost")

        group.start_soon(listen)
        await session.ask("SELECT 1")
        await anyio.wait_all_tasks_blocked()
        monkeypatch.setattr(session, "_end_hearing", look)
        database.execute("SELECT pg_terminate_backend(%s)", [session.backend_pid])
        with anyio.fail_after(30):
            await anyio.sleep_forever()
    await session.close()
    assert let_go == [True]


async def test_a_notification_that_nobody_can_take_is_not_lost_in_the_loop(database: Database) -> None:
    """What its hearer raises ends the session's listening, loudly."""
    session = await Session.open(database.service_url, schema="public")

    def hear(_channel: str, _payload: str) -> None:
        raise ValueError("a hearer's mistake")

    session.on_heard(hear)
    database.execute("SELECT pg_notify('listener_wake', 'orders_inbox')")
    with anyio.fail_after(30), pytest.raises(ValueError, match="mistake"):
        await session.listen()
    await session.close()
