"""The doorbell in the dispatcher: no notification arrives here, so what is found is found by the protocol alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Database
from engine.workbench import Bench, Work, bench, quiet
from queues import insert
from waiting import until_async

from listener.core.events import BellArmed, Checked, Unannounced, Woke
from listener.core.queue import Limits
from listener.db.session import WAKE_CHANNEL

pytestmark = pytest.mark.anyio


def is_on(database: Database) -> bool:
    """Whether some session holds the exclusive lock of orders_inbox."""
    return database.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
        " AND classid = 1869374562::oid AND objid = 'orders_inbox'::regclass)"
    ) == [(True,)]


@asynccontextmanager
async def listening(database: Database, work: Work, **options: Any) -> AsyncIterator[Bench]:
    """Run a queue that turns its bell on when it finds nothing."""
    async with bench(database, work, **options) as one:
        one.hears = True
        async with one.running():
            yield one


async def armed(one: Bench) -> None:
    """Wait until it has looked after arming; then it sleeps."""
    await until_async(lambda: Woke(queue="upload", reason="armed") in one.events, what="the look after arming")
    await until_async(lambda: isinstance(one.events[-1], Checked), what="its end")


def opened() -> Work:
    work = Work()
    work.open.set()
    return work


async def test_who_finds_nothing_turns_the_bell_on(database: Database) -> None:
    async with listening(database, opened()) as one:
        await until_async(lambda: is_on(database), what="the bell")
        await until_async(lambda: one.of(BellArmed), what="the event")
        assert one.of(BellArmed)[0].is_ours
    await until_async(lambda: not is_on(database), what="the bell to be off with the session")


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_a_row_of_a_writer_who_saw_the_bell_off_is_found(database: Database, isolation: str) -> None:
    """It began before the bell was on and rings nobody; the bell stays off until its commit, and then one more look."""
    writer = database.connect()
    writer.execute(f"BEGIN ISOLATION LEVEL {isolation}; INSERT INTO orders_inbox (order_number) VALUES ('slow')")
    work = opened()
    async with listening(database, work) as one:
        await until_async(lambda: len(one.events) > 8, what="several looks")
        assert not is_on(database)
        writer.execute("COMMIT")
        await quiet(work, 1)
        await until_async(lambda: is_on(database), what="the bell")


async def test_ring_after_ring_into_the_work_turns_the_bell_off(database: Database) -> None:
    """Writers are faster than we are: they pay no more, and their rows are found when a slot is free."""
    work = Work()
    async with listening(database, work, limits=Limits(concurrency=1)) as one:
        await until_async(lambda: is_on(database), what="the bell")
        insert(database, 1)
        one.wake.ring("notify")
        await quiet(work, 1)
        assert is_on(database), "one row is no reason"
        for _ in range(3):
            one.wake.ring("notify")
            await until_async(lambda: not one.wake.is_rung("notify"), what="the look")
        await until_async(lambda: not is_on(database), what="the bell to be off")
        insert(database, 5)
        work.open.set()
        await quiet(work, 6)
        await until_async(lambda: is_on(database), what="the bell")


async def test_whoever_has_no_slot_calls_the_others_once(database: Database) -> None:
    insert(database, 5)
    work = Work()
    other = database.connect()
    other.execute(f"LISTEN {WAKE_CHANNEL}")
    async with bench(database, work, limits=Limits(concurrency=1)) as one:
        one.hears, one.is_alone = True, False
        async with one.running():
            await quiet(work, 1)
            heard = await until_async(lambda: list(other.notifies(timeout=0)), what="the call")
            assert [notify.payload for notify in heard] == ["orders_inbox\tlistener"]
            one.wake.ring("call")  # our own ring, which we hear as well
            await until_async(lambda: not one.wake.is_rung("call"), what="the look")
            work.open.set()
            await quiet(work, 5)
            assert list(other.notifies(timeout=0)) == []


async def test_alone_nobody_is_called(database: Database) -> None:
    insert(database, 3)
    work = opened()
    other = database.connect()
    other.execute(f"LISTEN {WAKE_CHANNEL}")
    async with listening(database, work, limits=Limits(concurrency=1)):
        await quiet(work, 3)
    assert list(other.notifies(timeout=0)) == []


async def test_a_newcomer_is_called_when_there_is_no_slot_for_what_waits(database: Database) -> None:
    """It may have gone to sleep beside us before we knew of it."""
    insert(database, 2)
    work = Work()
    other = database.connect()
    other.execute(f"LISTEN {WAKE_CHANNEL}")
    async with listening(database, work, limits=Limits(concurrency=1)) as one:
        await quiet(work, 1)
        one.is_alone = False
        one.dispatcher.peers_changed()
        assert await until_async(lambda: list(other.notifies(timeout=0)), what="the call")


async def test_with_the_switch_off_the_bell_stays_on(database: Database) -> None:
    """doorbell_enabled = false: every INSERT notifies, whatever we are doing."""
    work = Work()
    async with bench(database, work, limits=Limits(concurrency=1)) as one:
        one.hears, one.spares_writers = True, False
        insert(database, 1)
        async with one.running():
            await quiet(work, 1)
            await until_async(lambda: is_on(database), what="the bell although no slot is free")
            for _ in range(5):
                one.wake.ring("notify")
                await until_async(lambda: not one.wake.is_rung("notify"), what="the look")
            assert is_on(database)


@pytest.mark.parametrize("why", ["switched off", "rolled back"])
async def test_who_follows_no_notification_has_none_sent(database: Database, why: str) -> None:
    async with listening(database, opened()) as one:
        await until_async(lambda: is_on(database), what="the bell")
        if why == "switched off":
            one.limits = Limits(enabled=False)
        else:
            one.hears = False
        one.wake.ring("config")
        await until_async(lambda: not is_on(database), what="the bell to be off")


async def test_what_only_the_poll_finds_is_told(database: Database) -> None:
    """It must stay at 0: a bell that is not heard shows here first."""
    async with listening(database, opened(), limits=Limits(concurrency=5)) as one:
        await until_async(lambda: is_on(database), what="the bell")
        await armed(one)
        insert(database, 2, due="now() - interval '1 minute'")
        database.execute("UPDATE orders_inbox SET updated_at = scheduled_at")
        one.poll_s = 0.01
        one.wake.retime()
        await until_async(lambda: sum(e.count for e in one.of(Unannounced)) == 2, what="the count")
