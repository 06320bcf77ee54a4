"""An import that is cut off: by its timeout, by a shutdown, by the database."""

import anyio
import pytest
from conftest import Database
from waiting import until_async
from workflows.imports import shop
from workflows.imports.desk import Desk, desk

from listener.core.errors import Unreachable
from listener.workflows.imports import reader

pytestmark = pytest.mark.anyio

MERGES = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'order-listener import merge'"
)


async def begun(d: Desk) -> None:
    await until_async(lambda: d.database.execute(f"{MERGES} AND xact_start IS NOT NULL"), what="the merge")


async def test_cancelled_it_leaves_nothing_behind(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an order, nor a connection, nor a thread that goes on reading."""
    monkeypatch.setattr(reader, "BATCH_ORDERS", 10)
    async with desk(database) as d:
        d.insert(shop.numbered(5_000))
        job = await d.claim()
        async with anyio.create_task_group() as group:
            group.start_soon(d.handler, [job])
            await begun(d)
            group.cancel_scope.cancel()
        assert d.orders() == {}
        await until_async(lambda: not d.database.execute(MERGES), what="the end of the connection")
        assert d.handler._threads.borrowed_tokens == 0


async def test_a_cut_connection_is_nobodys_fault(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor gives the row back without counting an attempt."""
    monkeypatch.setattr(reader, "BATCH_ORDERS", 10)
    async with desk(database) as d:
        d.insert(shop.numbered(5_000))
        job = await d.claim()

        async def cut() -> None:
            await begun(d)
            d.database.execute(f"SELECT pg_terminate_backend(pid) FROM ({MERGES}) AS merges")

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            with pytest.raises(Unreachable):
                await d.handler([job])
        assert d.orders() == {}


async def test_the_event_loop_goes_on_while_a_file_is_read(database: Database) -> None:
    """Parsing is in a thread: others are served meanwhile, many times a second."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1
            with anyio.move_on_after(0.001):
                await anyio.Event().wait()

    async with desk(database) as d, anyio.create_task_group() as group:
        d.insert(shop.numbered(3_000))
        group.start_soon(turn)
        await d.work()
        group.cancel_scope.cancel()
        assert len(d.orders()) == 3_000
    assert turns > 20
