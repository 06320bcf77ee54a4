"""The doorbell where a row could be left lying: locks of others, looks that fail, ends, tables that are replaced."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Database
from engine.test_bell import armed, is_on, listening, opened
from engine.workbench import Bench, Work, bench, quiet
from queues import insert, lease
from waiting import until_async

from listener.core.events import BellArmed, Checked, Trouble
from listener.core.queue import Limits
from listener.db.session import WAKE_CHANNEL

pytestmark = pytest.mark.anyio


class Other:
    """Another listener that sleeps: what it hears."""

    def __init__(self, database: Database) -> None:
        self._conn = database.connect()
        self._conn.execute(f"LISTEN {WAKE_CHANNEL}")

    def calls(self) -> int:
        """How often it was called by a listener since it was last asked."""
        return sum(notify.payload == "orders_inbox\tlistener" for notify in self._conn.notifies(timeout=0))

    async def is_called(self) -> None:
        await until_async(self.calls, what="the call")


@asynccontextmanager
async def beside_another(database: Database, work: Work, **options: Any) -> AsyncIterator[tuple[Bench, Other]]:
    """Run a queue with one slot, beside a listener that could help."""
    other = Other(database)
    async with bench(database, work, limits=Limits(concurrency=1), **options) as one:
        one.hears, one.is_alone = True, False
        async with one.running():
            yield one, other


async def looked(one: Bench) -> None:
    """Wait until the wakes so far have been looked at."""
    await until_async(lambda: not one.wake._reasons, what="the look")


async def test_a_row_that_somebody_has_locked_is_found_soon_after(database: Database) -> None:
    """Nothing rings at the lock's end, and the look that the INSERT rang for has passed over the row."""
    [key] = insert(database, 1)
    person = database.connect()
    person.execute("BEGIN")
    person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [key])
    work = opened()
    async with listening(database, work) as one:
        await until_async(lambda: is_on(database), what="the bell")
        await until_async(lambda: len(one.of(Checked)) > 4, what="several looks")
        person.execute("COMMIT")
        await quiet(work, 1)
        count = len(one.of(Checked))
        one.wake.ring("notify")
        await until_async(lambda: len(one.of(Checked)) > count, what="a look that passes over nothing")
        await until_async(lambda: one.wake._due_at == float("inf"), what="no look to be due any more")


async def test_a_row_that_others_refer_to_is_claimed_at_once(database: Database) -> None:
    """A foreign key's check locks it against being deleted, for as long as the transaction takes."""
    [key] = insert(database, 1)
    person = database.connect()
    person.execute("BEGIN")
    person.execute("SELECT FROM orders_inbox WHERE id = %s FOR KEY SHARE", [key])
    work = opened()
    async with listening(database, work):
        await quiet(work, 1)
    person.execute("ROLLBACK")


async def test_whoever_cannot_look_calls_the_others_once(database: Database) -> None:
    async with beside_another(database, opened()) as (one, other):
        await until_async(lambda: is_on(database), what="the bell")
        assert other.calls() == 0
        database.execute("ALTER TABLE orders_inbox RENAME COLUMN attempts TO tries")
        one.wake.ring("notify")
        await other.is_called()
        one.wake.ring("call")  # theirs, who cannot look either
        await until_async(lambda: len(one.of(Trouble)) > 2, what="two more looks that fail")
        assert other.calls() == 0


def another_session_with_the_bell(database: Database) -> None:
    """It lives, it has the bell on, and it may be as full as we are."""
    conn = lease(database, 99)
    conn.execute("SELECT pg_advisory_lock(1869374562, 'orders_inbox'::regclass::oid::integer)")


@pytest.mark.parametrize("whose", ["ours", "another's"])
async def test_whoever_ends_leaves_what_it_knew_to_the_others(database: Database, whose: str) -> None:
    """A retry that comes due, a look after arming that it did not have any more."""
    if whose != "ours":
        another_session_with_the_bell(database)
    async with beside_another(database, opened()) as (one, other):
        await until_async(lambda: one.of(BellArmed), what="the bell")
        assert one.of(BellArmed)[0].is_ours == (whose == "ours")
        one.dispatcher.stop()
        await other.is_called()
        await until_async(lambda: is_on(database) == (whose != "ours"), what="the bell to be free")


async def test_whoever_turns_the_bell_off_without_a_slot_calls_the_others(database: Database) -> None:
    """Nothing waits at that moment; what is written from now on rings nobody, so somebody has to turn it on again."""
    work = Work()
    async with beside_another(database, work) as (one, other):
        await armed(one)
        insert(database, 1)
        one.wake.ring("notify")
        await quiet(work, 1)
        assert other.calls() == 0
        for _ in range(3):
            one.wake.ring("notify")
            await looked(one)
        await other.is_called()
        assert not is_on(database)


async def test_two_without_a_slot_do_not_call_each_other_for_ever(database: Database) -> None:
    """With doorbell_enabled off each tries at every wake to turn the bell on that the other one has."""
    another_session_with_the_bell(database)
    insert(database, 2)
    work = Work()
    async with beside_another(database, work) as (one, other):
        await other.is_called()
        one.spares_writers = False
        for _ in range(5):
            count = len(one.of(BellArmed))
            one.wake.ring("call")
            await until_async(lambda n=count: len(one.of(BellArmed)) > n, what="the look")
        assert other.calls() == 0


async def test_what_only_we_know_of_is_told_also_after_a_call(database: Database) -> None:
    """Rows given back or due again, with no slot for them; the others sleep since our last call."""
    insert(database, 2)
    work = Work()
    async with beside_another(database, work) as (one, other):
        await other.is_called()
        one.wake.ring("notify")
        await looked(one)
        assert other.calls() == 0, "they have heard that themselves"
        one.wake.ring("reopened")
        await other.is_called()


async def test_rows_of_the_time_without_a_bell_are_told_when_it_is_turned_on_without_a_slot(database: Database) -> None:
    """doorbell_enabled is switched off while every slot is taken: nobody here can have the second look."""
    insert(database, 2)
    work = Work()
    async with beside_another(database, work) as (one, other):
        await other.is_called()
        insert(database, 1)
        one.spares_writers = False
        one.wake.ring("notify")
        await until_async(lambda: is_on(database), what="the bell")
        await other.is_called()
        one.wake.ring("notify")
        await looked(one)
        assert other.calls() == 0


async def test_the_bell_of_a_session_that_is_just_ending_is_not_relied_upon(database: Database) -> None:
    """Its lease may be gone a moment before its bell; nobody would tell us of the bell's end."""
    ending = database.connect()
    ending.execute("SELECT pg_advisory_lock(1869374562, 'orders_inbox'::regclass::oid::integer)")
    async with listening(database, opened()) as one:
        await until_async(lambda: len(one.of(Checked)) > 3, what="several looks")
        assert not one.of(BellArmed)
        ending.close()
        await until_async(lambda: one.of(BellArmed), what="the bell")
        assert one.of(BellArmed)[0].is_ours


async def test_the_bell_moves_to_the_table_that_has_the_name_now(database: Database) -> None:
    """A table that was built anew and renamed: after the first poll its writers ring again."""
    async with listening(database, opened()) as one:
        await armed(one)
        database.execute(
            "CREATE TABLE anew (LIKE orders_inbox INCLUDING ALL); GRANT ALL ON anew TO PUBLIC;"
            " ALTER TABLE orders_inbox RENAME TO formerly; ALTER TABLE anew RENAME TO orders_inbox"
        )
        assert not is_on(database)
        insert(database, 1, due="now() - interval '1 minute'")
        database.execute("UPDATE orders_inbox SET updated_at = scheduled_at")
        one.poll_s = 0.01
        one.wake.retime()
        await until_async(lambda: is_on(database), what="the bell of the new table")
