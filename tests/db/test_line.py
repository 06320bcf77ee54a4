"""The line: one connection of the pool, on which a statement is sent from wherever one is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from conftest import Database
from e2e.proxy import Proxy
from queues import open_pool
from waiting import until_async

from listener.core.errors import DatabaseError, Unreachable
from listener.db import line as module
from listener.db.line import Line, Reply
from listener.db.pool import Pool

pytestmark = pytest.mark.anyio

SUM = b"SELECT $1::integer + $2::integer, pg_backend_pid()"
NOTE = b"INSERT INTO notes SELECT $1::integer FROM pg_sleep($2::integer / 1000.0) RETURNING n"


def none_wanted(error: DatabaseError) -> None:
    raise AssertionError(f"trouble: {error}")


def is_free(line: Line) -> bool:
    return line._conn is not None and line._reply is None


async def fetch(line: Line, statement: bytes, *params: int) -> list[Any]:
    """Teach it the statement, if need be, and run it."""
    replies: list[Reply] = []

    def is_sent() -> bool:
        line.learn(statement)
        reply = line.send(statement, params)
        replies.extend([] if reply is None else [reply])
        return reply is not None

    await until_async(is_sent, what="the line")
    return await line.answer(replies[0])


@asynccontextmanager
async def opened(pool: Pool, *, on_trouble: Callable[[DatabaseError], None] = none_wanted) -> AsyncIterator[Line]:
    """A line that holds its connection, for the block."""
    line = Line(pool, on_trouble=on_trouble)
    async with anyio.create_task_group() as group:
        group.start_soon(line.run)
        await until_async(lambda: is_free(line), what="the line")
        yield line
        group.cancel_scope.cancel("the test is over")


@pytest.fixture
async def line(database: Database) -> AsyncIterator[Line]:
    """With a table for notes."""
    database.execute("CREATE TABLE notes (n integer); GRANT ALL ON notes TO PUBLIC")
    async with open_pool(database, max_size=3) as pool, opened(pool) as line:
        yield line


async def ask(line: Line, *params: int) -> Any:
    return (await fetch(line, SUM, *params))[0]


async def test_what_it_knows_is_on_its_way_at_once(database: Database, line: Line) -> None:
    """`send` awaits nothing; what was never learnt is not sent."""
    assert line.send(SUM, (1, 2)) is None
    _, pid = await ask(line, 1, 2)
    reply = line.send(SUM, (3, 4))
    assert reply is not None
    assert line.send(SUM, (5, 6)) is None, "one at a time"
    assert await line.answer(reply) == [(7, pid)]
    assert await ask(line, 2**31 - 2, 1) == (2**31 - 1, pid)
    assert database.execute("SELECT application_name FROM pg_stat_activity WHERE pid = %s", [pid]) == [
        ("order-listener line",)
    ]


async def test_a_refused_statement_is_told_and_costs_the_connection_alone(line: Line) -> None:
    """Whatever was prepared on it: what failed may have been that."""
    await ask(line, 1, 1)
    reply = line.send(SUM, (2**31 - 1, 1))
    assert reply is not None
    with pytest.raises(DatabaseError, match="out of range"):
        await line.answer(reply)
    assert (await ask(line, 1, 1))[0] == 2


async def test_a_refusal_that_nobody_waits_for_is_no_error_of_the_program(line: Line) -> None:
    """Every warning fails the suite: asyncio's "exception was never retrieved" among them."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    await ask(line, 1, 1)
    assert line.send(SUM, (2**31 - 1, 1)) is not None
    assert (await ask(line, 1, 1))[0] == 2
    assert heard == []


@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_connection_that_ends_is_replaced(database: Database, line: Line, *, is_asked: bool) -> None:
    await ask(line, 1, 1)
    _, pid = await ask(line, 1, 1)
    await fetch(line, NOTE, 1, 0)
    if is_asked:
        reply = line.send(NOTE, (1, 60_000))
        assert reply is not None
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(Unreachable):
                    await line.answer(reply)

            group.start_soon(wait)
            busy = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
            await until_async(lambda: database.execute(busy, [pid]), what="the statement")
            database.execute("SELECT pg_terminate_backend(%s)", [pid])
    else:
        database.execute("SELECT pg_terminate_backend(%s)", [pid])
    await until_async(lambda: line._conn is not None and line._conn.info.backend_pid != pid, what="another connection")
    total, after = await ask(line, 2, 2)
    assert (total, after != pid) == (4, True)


async def test_it_does_not_end_before_what_was_sent_has(database: Database) -> None:
    """Whoever is gone by then must not leave a claim that comes true after the rescue has looked."""
    database.execute("CREATE TABLE notes (n integer); GRANT ALL ON notes TO PUBLIC")
    async with open_pool(database, max_size=3) as pool:
        async with opened(pool) as line:
            await fetch(line, NOTE, 1, 0)
            assert line.send(NOTE, (2, 300)) is not None
        assert database.execute("SELECT n FROM notes ORDER BY n") == [(1,), (2,)]
        assert line.send(NOTE, (3, 0)) is None


async def test_it_ends_at_once_while_it_learns(database: Database) -> None:
    """A lock on the table may last: no claim hangs on it."""
    database.execute("CREATE TABLE notes (n integer); GRANT ALL ON notes TO PUBLIC")
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'notes'::regclass"
    with database.connect(autocommit=False) as person:
        person.execute("LOCK TABLE notes")
        async with open_pool(database, max_size=3) as pool:
            with anyio.fail_after(5):  # the server's limit is 10 s
                async with opened(pool) as line:
                    line.learn(NOTE)
                    await until_async(lambda: database.execute(waits), what="the wait for the lock")


async def test_a_connection_that_cannot_even_be_cut_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it must end, with the session, whatever happens."""
    monkeypatch.setattr(module, "cut", lambda _conn: None)
    monkeypatch.setattr(module, "_CUT_S", 0.1)
    with Proxy(database.service_url) as proxy:
        pool = Pool(proxy.url, schema="public", is_pooled=False, min_size=1, max_size=3, statement_timeout_s=0.3)
        async with pool, opened(pool, on_trouble=lambda _error: None) as line:
            await ask(line, 1, 1)
            proxy.go_deaf()
            reply = line.send(SUM, (1, 1))
            assert reply is not None
            with pytest.raises(Unreachable, match="does not answer"):
                await line.answer(reply)
            assert line._conn is None


async def test_what_an_ended_connection_said_is_not_taken_for_the_next_one_s(database: Database, line: Line) -> None:
    _, pid = await ask(line, 1, 1)
    await fetch(line, NOTE, 1, 0)
    reply = line.send(NOTE, (1, 60_000))
    assert reply is not None
    busy = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    await until_async(lambda: database.execute(busy, [pid]), what="the statement")
    database.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(Unreachable):
        await line.answer(reply)
    assert line._result is None


async def test_one_is_kept_beside_those_that_are_kept_open(database: Database) -> None:
    """Else the first statement after a quiet time would have to connect first."""
    async with open_pool(database, min_size=1, max_size=3) as pool, opened(pool):
        await until_async(lambda: pool.stats()["pool_available"] >= 1, what="the one that is kept open")
        assert pool.stats()["pool_min"] == 2


async def test_a_caller_who_is_cancelled_gets_the_answer_all_the_same(database: Database, line: Line) -> None:
    await fetch(line, NOTE, 1, 0)
    reply = line.send(NOTE, (2, 200))
    assert reply is not None
    with anyio.CancelScope() as scope:
        scope.cancel("the caller is told to end")
        assert await line.answer(reply) == [(2,)]
    assert database.execute("SELECT n FROM notes ORDER BY n") == [(1,), (2,)]


async def test_a_server_that_falls_silent_is_left(database: Database) -> None:
    """Half-open: neither an answer nor an end. The pool's other connections lead there too; new ones get through."""
    with Proxy(database.service_url) as proxy:
        pool = Pool(proxy.url, schema="public", is_pooled=False, min_size=1, max_size=3, statement_timeout_s=0.5)
        async with pool, opened(pool, on_trouble=lambda _error: None) as line:
            _, pid = await ask(line, 1, 1)
            proxy.go_deaf()
            reply = line.send(SUM, (1, 1))
            assert reply is not None
            with pytest.raises(Unreachable):
                await line.answer(reply)
            await until_async(lambda: is_free(line), what="another connection", deadline_s=30)
            assert (await ask(line, 1, 1))[1] != pid


async def test_a_connection_is_given_back_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """As old as the pool lets one become; what it knew is learnt again, also by the same connection."""
    monkeypatch.setattr(module, "_KEPT_S", 0.02)
    seen: list[Any] = []
    async with open_pool(database, max_size=3) as pool, opened(pool) as line:
        while len(seen) < 5:
            assert (await ask(line, 1, 2))[0] == 3
            if line._transformer not in seen:  # one for each time that it has a connection
                seen.append(line._transformer)


@pytest.mark.parametrize("options", [{"max_size": 2}, {"max_size": 4, "is_pooled": True}])
async def test_where_no_connection_can_be_kept_there_is_none(database: Database, options: dict[str, Any]) -> None:
    async with open_pool(database, **options) as pool:
        line = Line(pool, on_trouble=none_wanted)
        await line.run()
        assert line.send(SUM, (1, 1)) is None


async def test_what_it_cannot_learn_is_told_and_learnt_when_it_can(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has it learnt next; the connection goes to others meanwhile."""
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    told: list[DatabaseError] = []
    async with open_pool(database, max_size=3) as pool, opened(pool, on_trouble=told.append) as line:
        line.learn(NOTE)
        await until_async(lambda: told, what="the trouble")
        database.execute("CREATE TABLE notes (n integer); GRANT ALL ON notes TO PUBLIC")
        assert await fetch(line, NOTE, 1, 0) == [(1,)]
    assert 'relation "notes" does not exist' in str(told[0])


async def test_no_connection_to_be_had_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    told: list[DatabaseError] = []
    with Proxy(database.service_url) as proxy:
        pool = Pool(proxy.url, schema="public", is_pooled=False, min_size=0, max_size=3, statement_timeout_s=0.2)
        line = Line(pool, on_trouble=told.append)
        async with pool, anyio.create_task_group() as group:
            proxy.go_deaf(to_new=True)
            group.start_soon(line.run)
            await until_async(lambda: told, what="the trouble")
            proxy.hear_new()
            await until_async(lambda: is_free(line), what="the line", deadline_s=30)
            group.cancel_scope.cancel("the test is over")
    assert isinstance(told[0], Unreachable)
