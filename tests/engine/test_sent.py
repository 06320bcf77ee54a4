"""A claim that is on its way before the dispatcher has woken: sent from the callback that heard the writer's ring."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from conftest import Database
from queues import SESSION, counts, insert, open_pool, read_all
from waiting import until_async
from workbench import Bench, Work, quiet

from listener.core.errors import DatabaseError
from listener.core.events import BellArmed, Checked, Trouble, Woke
from listener.core.queue import Limits
from listener.db.line import Line
from listener.engine.crew import Crew
from listener.engine.slots import Slots

pytestmark = pytest.mark.anyio


def opened() -> Work:
    work = Work()
    work.open.set()
    return work


def none_wanted(error: DatabaseError) -> None:
    raise AssertionError(f"trouble: {error}")


@asynccontextmanager
async def line_of(*benches: Bench) -> AsyncIterator[Line]:
    """A line for their tables."""
    line = Line(benches[0].table._pool, on_trouble=none_wanted)
    async with anyio.create_task_group() as group:
        group.start_soon(line.run)
        await until_async(lambda: is_free(line), what="the line")
        for each in benches:
            each.table.line = line
        yield line
        group.cancel_scope.cancel("the test is over")


@asynccontextmanager
async def asleep(database: Database, work: Work, limits: Limits) -> AsyncIterator[Bench]:
    """A queue that sleeps by its own bell; its line has seen a claim, and no look at all rows is to come."""
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work, limits=limits)
        one.hears = True
        async with line_of(one), one.running():
            await lulled(database, one, work)
            yield one


async def lulled(database: Database, one: Bench, work: Work) -> None:
    """Have one row handled, which teaches the line, and wait until the queue sleeps again."""
    await until_async(lambda: one.of(BellArmed), what="the bell")
    await sleeping(one)
    insert(database)
    one.dispatcher.hear()  # by a quick claim: the look at all rows after arming was waited for
    await quiet(work, 1)
    await sleeping(one)
    line = one.table.line
    assert line is not None
    await until_async(lambda: is_free(line) and line._names, what="the line")
    one.events.clear()


def is_free(line: Line) -> bool:
    return line._conn is not None and line._reply is None


async def sleeping(one: Bench) -> None:
    claims = one.dispatcher._claimer
    await until_async(
        lambda: one.wake.is_asleep and not claims.has_postponed and not claims._looks_at_all, what="its sleep"
    )


@pytest.mark.parametrize("batch_size", [1, 3])
async def test_it_is_sent_before_anybody_wakes(database: Database, batch_size: int) -> None:
    """No await lies between the ring and the statement; its slots are kept, and what it finds is worked on."""
    work = opened()
    async with asleep(database, work, Limits(concurrency=5, batch_size=batch_size)) as one:
        keys = insert(database, 3)
        one.dispatcher.hear()
        assert one.table.line is not None
        assert not is_free(one.table.line)
        assert one.slots.ask("upload", 5) == (0 if batch_size == 1 else 4)
        await until_async(lambda: counts(database) == {"Uploaded": 4}, what="all done")
        assert sorted(work.seen[1:]) == keys
        await until_async(lambda: one.slots.ask("upload", 5) == 5, what="its slots")
        assert one.of(Checked)[0].claimed == 3


async def test_what_a_ring_finds_while_one_is_on_its_way_is_not_lost(database: Database) -> None:
    work = opened()
    async with asleep(database, work, Limits(concurrency=5)) as one:
        for _ in range(20):
            insert(database)
            one.dispatcher.hear()
            one.dispatcher.hear()
        await until_async(lambda: counts(database) == {"Uploaded": 21}, what="all done")
    assert len(work.seen) == len(set(work.seen)) == 21


def switch_off(one: Bench) -> None:
    one.limits = Limits(enabled=False, concurrency=5)
    one.wake.ring("config")


@pytest.mark.parametrize(
    "happens", [lambda one: one.dispatcher.suspect_strays(), lambda one: one.wake.ring("peer"), switch_off]
)
async def test_whatever_happens_meanwhile_its_rows_are_worked_on_once(
    database: Database, happens: Callable[[Bench], None]
) -> None:
    """They are ours from the commit on: neither strays nor anybody else's, nor left lying by who is switched off."""
    work = opened()
    async with asleep(database, work, Limits(concurrency=5)) as one:
        keys = insert(database, 3)
        one.dispatcher.hear()
        happens(one)
        await until_async(lambda: counts(database) == {"Uploaded": 4}, what="all done")
        await anyio.wait_all_tasks_blocked()
        assert sorted(work.seen[1:]) == keys
        assert one.of(Trouble) == []


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_what_was_sent_is_started_by_the_limits_it_was_sent_under(
    database: Database, before: int, after: int
) -> None:
    """Its slots are kept by these: other batches would be more calls than slots, or larger ones than were allowed."""
    work = Work()
    work.open.set()
    async with asleep(database, work, Limits(concurrency=1 if before > 1 else 3, batch_size=before)) as one:
        work.open = anyio.Event()
        insert(database, 3)
        one.dispatcher.hear()
        one.limits = Limits(concurrency=1, batch_size=after)
        await until_async(lambda: sum(map(len, work.calls)) == 4, what="the calls")
        assert {len(call) for call in work.calls[1:]} == {before}
        work.open.set()
        await until_async(lambda: counts(database) == {"Uploaded": 4}, what="all done")


async def test_who_sleeps_by_another_one_s_bell_sends_none(database: Database) -> None:
    """The row is probably somebody else's by now: it looks at all rows, and one claim must do."""
    work = opened()
    async with asleep(database, work, Limits(concurrency=5)) as one:
        bell, line = one.dispatcher._bell, one.table.line
        assert bell is not None
        assert line is not None
        bell.is_on = False
        one.dispatcher.hear()
        assert is_free(line)
        bell.is_on = True


async def test_who_is_woken_for_more_than_the_ring_looks_at_all_rows_at_once(database: Database) -> None:
    """No alarm is needed for what the claim that was sent does not see."""
    database.execute("CREATE TABLE heir () INHERITS (orders_inbox)")
    work = opened()
    async with asleep(database, work, Limits(concurrency=5)) as one:
        database.execute("INSERT INTO heir (id, order_number) VALUES (9, 'x')")
        insert(database)
        one.dispatcher.hear()
        one.wake.ring("peer")
        await quiet(work, 3)
        assert {event.reason for event in one.of(Woke)} == {"notify", "peer"}
    assert work.seen[-1] == 9


async def test_stopped_right_after_the_ring_hands_over_what_it_brings(database: Database) -> None:
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work, limits=Limits(concurrency=5))
        one.hears = True
        async with line_of(one), anyio.create_task_group() as outer:
            outer.start_soon(one.completer.run)
            async with Crew.gathered() as crew, anyio.create_task_group() as dispatching:
                dispatching.start_soon(one.dispatcher.run, SESSION, crew, await one.bell(outer))
                await lulled(database, one, work)
                insert(database, 3)
                one.dispatcher.hear()
                one.dispatcher.stop()
            await one.completer.flush()
            outer.cancel_scope.cancel("all work is settled")
        assert counts(database) == {"Uploaded": 4}


async def test_cancelled_right_after_the_ring_leaves_its_rows_to_the_rescue_and_keeps_no_slot(
    database: Database,
) -> None:
    """As when the session is lost. The line ends when the claim has, so that the rescue finds them."""
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work, limits=Limits(concurrency=5))
        one.hears = True
        async with line_of(one) as line, anyio.create_task_group() as outer, Crew.gathered() as crew:
            session = anyio.CancelScope()

            async def run() -> None:
                with session:
                    await one.dispatcher.run(SESSION, crew, await one.bell(outer))

            outer.start_soon(one.completer.run)
            outer.start_soon(run)
            await lulled(database, one, work)
            await one.completer.flush()
            insert(database, 3)
            one.dispatcher.hear()
            session.cancel("the session is lost")
            await until_async(lambda: is_free(line), what="the claim")
            outer.cancel_scope.cancel("the test is over")
        assert counts(database) == {"Uploaded": 1, "Processing": 3}
        assert await one.table.rescue() == 3
        one.dispatcher._claimer.begin(SESSION, Crew())
        assert one.slots.ask("upload", 5) == 5
        assert {row["status"] for row in read_all(database)[1:]} == {"Pending"}


async def test_a_failed_one_is_tried_again_and_loses_nothing(database: Database) -> None:
    work = opened()
    async with asleep(database, work, Limits(concurrency=5)) as one:
        database.execute("ALTER TABLE orders_inbox RENAME TO hidden")
        one.dispatcher.hear()
        await until_async(lambda: one.of(Trouble), what="the failure")
        database.execute("ALTER TABLE hidden RENAME TO orders_inbox")
        insert(database, 3)
        await until_async(lambda: counts(database) == {"Uploaded": 4}, what="all done")


async def test_without_a_free_slot_none_is_sent(database: Database) -> None:
    """The common slots are somebody else's: the row waits for one."""
    work = opened()
    slots = Slots(lambda: 2)
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work, limits=Limits(concurrency=5), slots=slots)
        one.hears = True
        async with line_of(one) as line, one.running():
            await lulled(database, one, work)
            slots.take("another")
            slots.take("another")
            (key,) = insert(database)
            one.dispatcher.hear()
            assert is_free(line)
            await anyio.wait_all_tasks_blocked()
            slots.give_back("another")
            await quiet(work, 2)
    assert work.seen[1:] == [key]
