"""Cut every statement of the gateways at every turn of the event loop: what was committed is in somebody's hands.

Each case runs whole once, with a hook that counts the turns the event loop takes; then once for each of these turns,
cancelled exactly there from outside. A cancelled caller may get a result or a cancellation, but after either no
connection is missing, no statement runs on, and no row is `Processing` that nobody knows of.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import psycopg
import pytest
from conftest import Database
from psycopg import sql
from queues import SESSION, counts, insert, lease, open_pool, read_all
from waiting import until_async

from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.errors import Unreachable
from listener.core.job import Job, Settle, Settlement
from listener.db.budgets import ApiBudget
from listener.db.pool import Pool, connect
from listener.db.queue import QueueTable
from listener.db.session import Session
from listener.db.watch import WatchConnection
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio

Call = Callable[[QueueTable, list[Job]], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "claim": lambda table, _jobs: table.claim(limit=3, session_key=SESSION),
    "settle": lambda table, jobs: table.settle([Settlement(job=job, kind=Settle.COMPLETE) for job in jobs]),
    "rescue": lambda table, _jobs: table.rescue(stale_s=0.0),
    "release_strays": lambda table, _jobs: table.release_strays(session_key=SESSION, held=[]),
    "waiting": lambda table, _jobs: table.waiting(),
    "depth": lambda table, _jobs: table.depth(),
    "retry_failed": lambda table, _jobs: table.retry_failed(),
    "retry_keys": lambda table, jobs: table.retry_keys([str(job.id) for job in jobs]),
}


class Turns:
    """Cancels a scope at the given turn of the event loop; without one it only counts."""

    def __init__(self, scope: anyio.CancelScope, cut_at: int | None) -> None:
        self.count = 0
        self._scope = scope
        self._cut_at = cut_at
        self._is_over = False
        self._turn()

    def _turn(self) -> None:
        if self._is_over:
            return
        if self.count == self._cut_at:
            self._scope.cancel("cut")
        self.count += 1
        asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._is_over = True


async def cut(call: Callable[[], Awaitable[Any]], cut_at: int | None) -> tuple[list[Any], int]:
    """Run *call*, cancelled at that turn; what it returned (nothing when it was cancelled), and the turns it took."""
    results: list[Any] = []
    with anyio.CancelScope() as scope:
        turns = Turns(scope, cut_at)
        try:
            results.append(await call())
        finally:
            turns.stop()
    return results, turns.count


async def settle_down(database: Database, pool: Pool) -> None:
    """Nothing of a cut call is left: the pool is whole, the server idle, and both work on."""
    await until_async(
        lambda: (
            pool.stats()["pool_available"] == pool.stats()["pool_size"] >= 1
            and not pool.stats().get("requests_waiting")
        ),
        what="all connections to be back",
    )
    states = database.execute(
        "SELECT state, query FROM pg_stat_activity WHERE application_name LIKE 'order-listener%%' AND state <> 'idle'"
        " AND datname = current_database()"
    )
    assert states == []
    assert await pool.run(sql.SQL("SELECT 1 AS one"), name="test") == [{"one": 1}]


def turns_to_cut(turns: int) -> list[int]:
    """All of the first and some of the many that only wait for the server."""
    return sorted({*range(min(turns, 25)), *range(25, turns, max(1, turns // 25)), max(turns - 1, 0)})


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
@pytest.mark.parametrize("name", CALLS)
async def test_cut_at_every_turn_of_the_event_loop(database: Database, name: str, is_pooled: bool) -> None:
    async with open_pool(database, is_pooled=is_pooled, min_size=1, max_size=2) as pool:
        table = QueueTable(pool, UPLOAD)
        await settle_down(database, pool)
        with lease(database):
            whole = await prepared_cut(database, table, name, None)
            for turn in turns_to_cut(whole):
                await prepared_cut(database, table, name, turn)
                await settle_down(database, pool)
        assert pool.stats().get("connections_lost", 0) == 0
        assert pool.stats()["connections_num"] <= 2, "connections had to be replaced"


async def prepared_cut(database: Database, table: QueueTable, name: str, turn: int | None) -> int:
    database.execute("TRUNCATE orders_inbox")
    insert(database, 3)
    jobs = [] if name == "claim" else (await table.claim(limit=3, session_key=SESSION)).jobs
    if name in ("retry_failed", "retry_keys"):
        await table.settle([Settlement(job=job, kind=Settle.FAIL, error="no") for job in jobs])

    results, turns = await cut(lambda: CALLS[name](table, jobs), turn)

    after = counts(database)
    if name == "claim":
        handed_over = results[0].jobs if results else []
        assert after.get("Processing", 0) == len(handed_over), "rows were claimed and nobody knows"
        assert await table.release_strays(session_key=SESSION, held=[]) == len(handed_over)
        assert {row["attempts"] for row in read_all(database)} == {0}
    elif name == "settle":
        assert after == ({"Uploaded": 3} if results else {"Processing": 3})
    elif name in ("rescue", "release_strays"):
        assert after == ({"Pending": 3} if results else {"Processing": 3})
    elif name in ("retry_failed", "retry_keys"):
        assert after == ({"Pending": 3} if results else {"Failed": 3})
    return turns


async def connect_plainly(url: str) -> psycopg.AsyncConnection[Any]:
    return await connect(url, "order-listener test")


OPENINGS: dict[str, Callable[[str], Awaitable[Any]]] = {
    "connect": connect_plainly,
    "session": lambda url: Session.open(url, schema="public"),
    "watch": lambda url: WatchConnection.open(url, schema="public"),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_a_connect_that_is_cut_leaves_no_connection(database: Database, name: str) -> None:
    """Not even while somebody holds the error, as a cycle of its own does until Python collects it."""
    errors: list[BaseException] = []

    async def opened() -> None:
        try:
            connection = await OPENINGS[name](database.service_url)
        except BaseException as error:
            errors.append(error)
            raise
        await connection.close()

    _, turns = await cut(opened, None)
    for turn in turns_to_cut(turns):
        await cut(opened, turn)
    assert len(errors) > 10, "it was cut"
    await until_async(lambda: not database.connections(), what="the end of the connections")


async def test_the_sweep_reaches_into_the_statement(database: Database) -> None:
    """Without the shield the same cut loses rows: the sweep sees what it is there to see."""
    async with open_pool(database) as pool:
        insert(database, 3)
        table = QueueTable(pool, UPLOAD)
        _, turns = await cut(lambda: table.claim(limit=3, session_key=SESSION), None)
        results, _ = await cut(table.waiting, turns // 2)
    assert turns >= 4
    assert results == [0]


@pytest.mark.parametrize("name", ["claim", "settle", "rescue"])
@pytest.mark.parametrize("deadline_s", [0.0, 0.0002, 0.001, 0.003, 0.01, 0.03, 0.1])
async def test_cut_by_a_deadline_while_the_server_works(database: Database, name: str, deadline_s: float) -> None:
    """The statement is held up on the server; whatever the caller does, it ends and its effect is known."""
    insert(database, 3)
    async with open_pool(database, min_size=1, max_size=1) as pool:
        table = QueueTable(pool, UPLOAD)
        jobs = [] if name == "claim" else (await table.claim(limit=3, session_key=SESSION)).jobs
        await settle_down(database, pool)
        database.execute(
            """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_sleep(0.05); RETURN NULL; END $$;
               CREATE TRIGGER slow AFTER UPDATE ON orders_inbox FOR EACH STATEMENT EXECUTE FUNCTION slow()"""
        )
        results: list[Any] = []
        with anyio.move_on_after(deadline_s):
            results.append(await CALLS[name](table, jobs))
        after = counts(database)
        await settle_down(database, pool)
        assert counts(database) == after, "a statement went on after its caller had left"
        done = {"claim": "Processing", "settle": "Uploaded", "rescue": "Pending"}[name]
        not_done = "Pending" if name == "claim" else "Processing"
        assert after == {done if results else not_done: 3}
        assert bool(results) == (deadline_s > 0.0)


async def test_a_task_group_that_falls_apart_cuts_nothing(database: Database) -> None:
    """Ten claims at once, and a failure beside them: each row is known to whoever claimed it."""
    insert(database, 50)
    taken: list[Job] = []
    async with open_pool(database, min_size=2, max_size=2) as pool:
        table = QueueTable(pool, UPLOAD)

        async def work() -> None:
            taken.extend((await table.claim(limit=5, session_key=SESSION)).jobs)

        async def fail() -> None:
            await until_async(lambda: len(taken) >= 10, what="some claims")
            raise ZeroDivisionError

        async def fall_apart() -> None:
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(work)
                group.start_soon(fail)

        with pytest.raises(ExceptionGroup):
            await fall_apart()
        await settle_down(database, pool)

    claimed = {row["id"] for row in read_all(database) if row["status"] == "Processing"}
    assert claimed == {job.id for job in taken}


async def test_a_claim_whose_reply_was_lost_is_given_back(database: Database) -> None:
    """The connection is cut after the commit: the caller cannot know, the strays' release can."""
    insert(database, 3)
    database.execute(
        """CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
           CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON orders_inbox DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW WHEN (NEW.status = 'Processing') EXECUTE FUNCTION cut()"""
    )
    async with open_pool(database, min_size=1, max_size=1) as pool:
        table = QueueTable(pool, UPLOAD)
        with pytest.raises(Unreachable):
            await table.claim(limit=3, session_key=SESSION)
        database.execute("DROP TRIGGER cut ON orders_inbox")
        database.execute("UPDATE orders_inbox SET status = 'Processing', claim_id = 5, claimed_by = %s", [SESSION])

        assert await table.release_strays(session_key=SESSION, held=[4]) == 3
        assert len((await table.claim(limit=3, session_key=SESSION)).jobs) == 3


BUDGET_CALLS: dict[str, Callable[[ApiBudget, Permit], Awaitable[Any]]] = {
    "take": lambda budget, _permit: budget.take(),
    "give_back": lambda budget, permit: budget.give_back(permit),
    "report_ok": lambda budget, permit: budget.report_ok(permit, RateHeaders(limit=40, remaining=3, reset_s=10.0)),
    "report_unavailable": lambda budget, permit: budget.report_unavailable(
        permit, reason="outage", message="down", wait_s=60.0
    ),
}


@pytest.mark.parametrize("name", BUDGET_CALLS)
async def test_budget_cut_at_every_turn_of_the_event_loop(database: Database, name: str) -> None:
    """A call that returned has its effect in the row, one that was cancelled has none."""
    async with open_pool(database) as pool:
        budget = ApiBudget(
            pool, lambda _event: None, connector="shipstation", account="a", call_limit=40, window_s=60.0
        )
        await settle_down(database, pool)

        async def once(turn: int | None) -> int:
            database.execute("UPDATE api_budgets SET remaining = 10, paused_until = NULL")
            permit = await budget.take()
            assert not isinstance(permit, Refusal)
            before = database.execute("SELECT remaining, paused_until IS NULL FROM api_budgets")
            results, turns = await cut(lambda: BUDGET_CALLS[name](budget, permit), turn)
            after = database.execute("SELECT remaining, paused_until IS NULL FROM api_budgets")
            assert (after != before) == bool(results)
            await settle_down(database, pool)
            return turns

        whole = await once(None)
        for turn in turns_to_cut(whole):
            await once(turn)
        assert pool.stats()["connections_num"] <= 2
