"""The dispatcher claims at the right moment, never more than it has slots for, and settles all that it claimed."""

import math
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import permutations
from typing import Any

import anyio
import pytest
from conftest import Database
from queues import SESSION, counts, insert, open_pool, read, read_all
from waiting import until_async
from workbench import Bench, Work, bench, quiet

from listener.core.budget import Refusal
from listener.core.errors import DatabaseError
from listener.core.events import BellArmed, Checked, LookSkipped, OperationEnded, Settled, Trouble, Woke
from listener.core.job import Job
from listener.core.outcome import Done, Outcome, Retry, Snooze
from listener.core.queue import Limits, Queue
from listener.core.trail import Place
from listener.db.line import Reply
from listener.db.pool import Pool
from listener.db.queue import Claim, QueueTable
from listener.engine import claimer
from listener.engine.bell import Bell
from listener.engine.completer import MOST_ROWS
from listener.engine.crew import Crew
from listener.engine.executor import Handler
from listener.engine.slots import Slots
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio


def opened() -> Work:
    work = Work()
    work.open.set()
    return work


async def all_done(database: Database, count: int) -> None:
    await until_async(lambda: counts(database) == {"Uploaded": count}, what=f"{count} done rows; {counts(database)}")


async def test_what_was_there_before_the_start_is_found(database: Database) -> None:
    """Nobody rings for it."""
    insert(database, 3)
    async with bench(database, opened(), limits=Limits(concurrency=5)) as one, one.running():
        await all_done(database, 3)
        assert {event.reason for event in one.of(Woke)} <= {"start", "slot"}


async def test_rings_during_a_look_are_one_more_look(database: Database) -> None:
    async with bench(database, opened()) as one, one.running():
        await until_async(lambda: len(one.of(Checked)) == 1, what="the first look")
        await anyio.wait_all_tasks_blocked()
        for _ in range(50):
            one.wake.ring("notify")
        await until_async(lambda: len(one.of(Checked)) == 2, what="the second look")
        insert(database)
        one.wake.ring("notify")
        await all_done(database, 1)
        assert len(one.of(Woke)) <= 4


async def test_a_row_that_comes_due_is_started_without_a_poll(database: Database) -> None:
    """The claim tells when; the poll is five minutes away and nobody rings."""
    async with bench(database, opened(), limits=Limits(concurrency=5)) as one, one.running():
        await until_async(lambda: len(one.of(Checked)) == 1, what="the first look")
        (key,) = insert(database, due="now() + interval '1 second'")
        one.wake.ring("notify")
        await all_done(database, 1)
        row = read(database, key)
        assert row["finished_at"] >= row["scheduled_at"]
        assert [event.reason for event in one.of(Woke)] == ["start", "notify", "due"]


async def test_retries_and_snoozes_are_started_without_a_poll(database: Database) -> None:
    """Also when they are due while the handler of another row runs."""

    def answer(jobs: Sequence[Job]) -> Sequence[Outcome]:
        (job,) = jobs
        first: Outcome = Retry("once", 0.3) if job.id % 2 else Snooze(0.2)
        return [first if len(work.seen) <= 4 else Done()]

    work = Work(answer)
    work.open.set()
    insert(database, 4)
    async with bench(database, work, limits=Limits(concurrency=4)) as one, one.running():
        await all_done(database, 4)
        assert "poll" not in {event.reason for event in one.of(Woke)}
    assert len(work.calls) == 8


async def test_never_more_than_the_free_slots(database: Database) -> None:
    """One call a row: what other replicas could run is not prefetched."""
    insert(database, 30)
    seen: list[int] = []

    def answer(jobs: Sequence[Job]) -> Sequence[Outcome]:
        claimed = 30 - counts(database).get("Pending", 0)
        seen.append(claimed - len(seen))  # those before us have been handled, written or not
        return [Done() for _ in jobs]

    work = Work(answer)
    async with bench(database, work, limits=Limits(concurrency=3)) as one, one.running():
        await quiet(work, 3)
        await anyio.wait_all_tasks_blocked()
        assert counts(database) == {"Processing": 3, "Pending": 27}
        work.open.set()
        await all_done(database, 30)
    assert work.most_active == 3
    assert max(seen) <= 3
    assert sorted(work.seen) == sorted(set(work.seen))


async def test_batches_fill_slots_not_rows(database: Database) -> None:
    """Two calls of up to ten rows each."""
    insert(database, 45)
    work = Work()
    async with bench(database, work, limits=Limits(batch_size=10, concurrency=2)) as one, one.running():
        await quiet(work, 2)
        await anyio.wait_all_tasks_blocked()
        assert counts(database) == {"Processing": 20, "Pending": 25}
        work.open.set()
        await all_done(database, 45)
    assert [len(call) for call in work.calls] == [10, 10, 10, 10, 5]
    assert work.most_active <= 2


async def test_a_freed_slot_wakes(database: Database) -> None:
    """More rows than slots: the next is claimed when one ends, without a ring from outside."""
    insert(database, 5)
    async with bench(database, opened(), limits=Limits(concurrency=1)) as one, one.running():
        await all_done(database, 5)
        assert {event.reason for event in one.of(Woke)} == {"start", "slot"}


async def test_two_queues_share_the_common_limit(database: Database) -> None:
    """The slot that one frees is taken by the other, which sleeps with work in its table."""
    database.execute('CREATE TABLE "Other" (LIKE orders_inbox INCLUDING ALL); GRANT ALL ON "Other" TO PUBLIC')
    other_queue = Queue(name="other", table="Other")
    slots = Slots(lambda: 2)
    works = [Work(), Work()]
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, works[0], slots=slots, limits=Limits(concurrency=5))
        two = Bench(pool, works[1], slots=slots, limits=Limits(concurrency=5), queue=other_queue)
        insert(database, 6)
        async with one.running():
            await quiet(works[0], 2)
            database.execute('INSERT INTO "Other" (order_number) SELECT g FROM generate_series(1, 6) g')
            async with two.running():
                await until_async(lambda: two.of(Woke), what="its first look")
                await anyio.wait_all_tasks_blocked()
                assert works[1].calls == []
                works[0].open.set()
                await quiet(works[1], 1)
                works[1].open.set()
                await all_done(database, 6)
                await until_async(
                    lambda: database.execute("SELECT count(*) FROM \"Other\" WHERE status = 'Done'") == [(6,)],
                    what="the other queue's rows",
                )
                await until_async(lambda: slots.active == 0, what="all slots back")
                assert {event.reason for event in two.of(Woke)} == {"start", "slot"}


@pytest.mark.parametrize("order", [*permutations(["upload", "One", "Two"])])
async def test_a_full_house_starts_the_queues_as_configured(database: Database, order: Sequence[str]) -> None:
    """One common slot, two rows in each of three tables: the start follows the places, whoever was there first."""
    for name in ("One", "Two"):
        database.execute(f'CREATE TABLE "{name}" (LIKE orders_inbox INCLUDING ALL); GRANT ALL ON "{name}" TO PUBLIC')
    started: list[str] = []
    is_open = anyio.Event()
    slots = Slots(lambda: 1, place=order.index)

    def handler_of(name: str) -> Handler:
        async def handler(_jobs: Sequence[Job]) -> Sequence[Outcome]:
            started.append(name)
            await is_open.wait()
            return [Done()]

        return handler

    async with open_pool(database, max_size=4) as pool, AsyncExitStack() as stack:
        for queue in (UPLOAD, Queue(name="One", table="One"), Queue(name="Two", table="Two")):
            one = Bench(pool, handler_of(queue.name), slots=slots, limits=Limits(concurrency=3), queue=queue)
            database.execute(f'INSERT INTO "{queue.table}" (order_number) VALUES (1), (2)')
            await stack.enter_async_context(one.running())
            await until_async(lambda at=one: at.of(Woke), what="its first look")
            await anyio.wait_all_tasks_blocked()
        assert started == ["upload"], "the others found the house full"
        is_open.set()
        await until_async(lambda: len(started) == 6, what="every row")
        await until_async(lambda: slots.active == 0, what="all slots back")
    rest = ["upload", "One", "One", "Two", "Two"]
    assert started[1:] == sorted(rest, key=order.index)


async def test_lowered_limits_hold_from_the_next_claim(database: Database) -> None:
    """What runs, runs on; nothing starts until the count is below the new limit."""
    insert(database, 12)
    gates = [anyio.Event() for _ in range(12)]
    started: list[int] = []

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        turn = len(started)
        started.append(jobs[0].id)
        await gates[turn].wait()
        return [Done()]

    async with bench(database, handler, limits=Limits(concurrency=4)) as one, one.running():
        await until_async(lambda: len(started) == 4, what="four handlers")
        one.limits = replace(one.limits, concurrency=2)
        for turn in (0, 1):
            gates[turn].set()
            await until_async(lambda at=turn: one.slots.active == 3 - at, what="the end of one")
            one.wake.ring("config")
            await anyio.wait_all_tasks_blocked()
        assert len(started) == 4
        gates[2].set()
        await until_async(lambda: len(started) == 5, what="one more")
        for gate in gates:
            gate.set()
        await all_done(database, 12)
        await until_async(lambda: one.slots.active == 0, what="all slots back")


async def test_a_disabled_queue_claims_nothing_until_it_is_enabled(database: Database) -> None:
    insert(database, 2)
    async with bench(database, opened(), limits=Limits(enabled=False, concurrency=5)) as one, one.running():
        await until_async(lambda: one.of(Woke), what="its first look")
        await anyio.wait_all_tasks_blocked()
        assert counts(database) == {"Pending": 2}
        one.limits = replace(one.limits, enabled=True)
        one.wake.ring("config")
        await all_done(database, 2)


class Gate:
    """Counts; refuses until it is opened."""

    def __init__(self, wait_s: float) -> None:
        self.is_open = False
        self.asked = 0
        self.withdrawn = 0
        self._wait_s = wait_s

    async def admit(self) -> Refusal | None:
        self.asked += 1
        return None if self.is_open else Refusal(wait_s=self._wait_s, reason="outage")

    async def withdraw(self) -> None:
        self.withdrawn += 1


async def test_a_closed_gate_is_asked_again_when_it_said(database: Database) -> None:
    insert(database, 2)
    gate = Gate(wait_s=0.2)
    async with bench(database, opened(), gate=gate, limits=Limits(batch_size=5)) as one, one.running():
        await until_async(lambda: gate.asked >= 2, what="a second question")
        assert counts(database) == {"Pending": 2}
        gate.is_open = True
        await all_done(database, 2)
        await until_async(lambda: gate.withdrawn >= 1 or len(one.of(Checked)) == 1, what="its reservation back")
        assert "due" in {event.reason for event in one.of(Woke)}


async def test_a_look_that_finds_nothing_gives_its_reservation_back(database: Database) -> None:
    gate = Gate(wait_s=1.0)
    gate.is_open = True
    async with bench(database, opened(), gate=gate) as one, one.running():
        await until_async(lambda: one.of(Checked), what="a look")
        assert (gate.asked, gate.withdrawn) == (1, 1)


async def test_a_queue_that_is_switched_off_while_the_gate_is_asked_claims_nothing(database: Database) -> None:
    insert(database, 2)

    class Slow(Gate):
        async def admit(self) -> Refusal | None:
            one.limits = replace(one.limits, enabled=False)
            return await super().admit()

    gate = Slow(wait_s=1.0)
    gate.is_open = True
    async with bench(database, opened(), gate=gate) as one, one.running():
        await until_async(lambda: gate.withdrawn, what="its reservation back")
        await until_async(lambda: one.of(LookSkipped), what="the end of the look")
        assert counts(database) == {"Pending": 2}
        assert gate.asked == 1


@pytest.mark.parametrize("obstacle", ["no slot", "closed gate", "disabled"])
async def test_a_row_that_comes_due_while_nothing_can_start_causes_no_busy_loop(
    database: Database, obstacle: str
) -> None:
    """The alarm goes off once; then a slot, the gate or the configuration says when to look again."""
    gate = Gate(wait_s=300.0)
    gate.is_open = True
    work = Work()
    insert(database)
    insert(database, due="now() + interval '300 milliseconds'")
    async with bench(database, work, gate=gate, limits=Limits(concurrency=2)) as one, one.running():
        await quiet(work, 1)
        await until_async(lambda: one.of(Checked), what="the look")
        if obstacle == "no slot":
            one.limits = replace(one.limits, concurrency=1)
        elif obstacle == "disabled":
            one.limits = replace(one.limits, enabled=False)
        gate.is_open = obstacle != "closed gate"
        await until_async(lambda: "due" in {event.reason for event in one.of(Woke)}, what="the alarm")
        woken = len(one.of(Woke))
        for _ in range(20):  # turns in which a busy loop would go round
            await anyio.wait_all_tasks_blocked()
        assert len(one.of(Woke)) - woken <= 1
        assert gate.asked <= 4
        gate.is_open = True
        one.limits = Limits(concurrency=2)
        work.open.set()
        one.wake.ring("config")
        await all_done(database, 2)


class CutAfterClaim(QueueTable):
    """Cancels its caller the moment the claim has returned."""

    scope: anyio.CancelScope
    claimed = 0
    before_cut = staticmethod(lambda: None)

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        claim = await super().claim(limit=limit, session_key=session_key, onward=onward)
        self.claimed += len(claim.jobs)
        if claim.jobs:
            self.before_cut()
            self.scope.cancel("cut right after the claim")
        return claim


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize("is_releasing", [True, False])
async def test_cancelled_right_after_the_claim(database: Database, batch_size: int, is_releasing: bool) -> None:
    """At shutdown the rows are released and no attempt is counted; when the session is lost the rescue finds them."""
    insert(database, 5, attempts=3)
    work = Work()
    async with open_pool(database) as pool:
        table = CutAfterClaim(pool, UPLOAD)
        one = Bench(pool, work, limits=Limits(batch_size=batch_size, concurrency=10), table=table)
        if is_releasing:
            one.is_releasing, table.before_cut = True, one.dispatcher.stop
        async with one.running(dispatches=False) as crew, anyio.create_task_group() as group:
            bell = await one.bell(group)
            with anyio.CancelScope() as table.scope:
                await one.dispatcher.run(SESSION, crew, bell)
            assert table.scope.cancel_called
            crew.cancel()
            group.cancel_scope.cancel("shutdown")
        assert table.claimed == 5
        assert one.slots.active == 0
        assert {(row["status"], row["attempts"]) for row in read_all(database)} == {
            ("Pending", 3) if is_releasing else ("Processing", 4)
        }
        if not is_releasing:
            assert await table.rescue(stale_s=300.0) == 5
            assert {(row["status"], row["attempts"]) for row in read_all(database)} == {("Pending", 3)}


async def until_the_claim_waits(database: Database) -> None:
    """Wait until a claim is under way, held up by a person's lock on the table."""
    waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'orders_inbox'::regclass"
    await until_async(lambda: database.execute(waits), what="the claim to be under way")


async def test_a_timeout_that_is_lowered_during_a_claim_counts_for_what_it_brings(database: Database) -> None:
    """The rescue goes by the new one at once: another process would run the row while the old one still may."""
    insert(database, 1)
    work = Work()
    async with bench(database, work, limits=Limits(timeout_s=3600)) as one:
        person = database.connect()
        person.execute("BEGIN; LOCK TABLE orders_inbox IN SHARE ROW EXCLUSIVE MODE")
        async with one.running():
            await until_the_claim_waits(database)
            one.limits = replace(one.limits, timeout_s=0.05)
            person.execute("COMMIT")
            await until_async(lambda: one.of(OperationEnded), what="the call to be ended")
    assert one.of(OperationEnded)[0].result == "timeout"


async def test_stopped_during_a_claim_hands_over_what_it_brought(database: Database) -> None:
    """`stop` cancels nothing: the claim under way ends, its rows are worked on, and the dispatcher returns."""
    insert(database, 3)
    work = opened()
    async with bench(database, work, limits=Limits(concurrency=5)) as one:
        person = database.connect()
        person.execute("BEGIN; LOCK TABLE orders_inbox IN SHARE ROW EXCLUSIVE MODE")
        async with anyio.create_task_group() as outer:
            outer.start_soon(one.completer.run)
            async with Crew.gathered() as crew, anyio.create_task_group() as dispatching:
                dispatching.start_soon(one.dispatcher.run, SESSION, crew, await one.bell(outer))
                await until_the_claim_waits(database)
                one.dispatcher.stop()
                person.execute("COMMIT")
            await one.completer.flush()
            outer.cancel_scope.cancel("all work is settled")
        assert sorted(work.seen) == sorted(row["id"] for row in read_all(database))
        assert counts(database) == {"Uploaded": 3}


async def test_a_refused_claim_is_tried_again_and_loses_nothing(database: Database) -> None:
    """The table is away for a moment, as in a migration: said once, then work goes on."""
    async with bench(database, opened(), limits=Limits(concurrency=2)) as one:
        database.execute("ALTER TABLE orders_inbox RENAME TO away")
        async with one.running():
            await until_async(lambda: one.of(Trouble), what="the trouble")
            database.execute("ALTER TABLE away RENAME TO orders_inbox")
            insert(database, 2)
            await all_done(database, 2)
            assert len(one.of(Trouble)) <= 2


async def test_the_third_failed_look_in_a_row_is_an_alarm(database: Database) -> None:
    """One is not: a connection may be cut at any time. A look that succeeds ends it."""
    async with bench(database, opened()) as one:
        database.execute("ALTER TABLE orders_inbox RENAME TO away")
        alarms: dict[int, bool] = {}

        def has_seen_three() -> bool:
            alarms[len(one.of(Trouble))] = bool(one.dispatcher.trouble)
            return len(one.of(Trouble)) >= 3

        async with one.running():
            await until_async(has_seen_three, deadline_s=30, what="three failed looks")
            assert alarms == {count: count >= 3 for count in alarms}
            assert {2, 3} <= alarms.keys()
            assert "orders_inbox" in one.dispatcher.trouble
            database.execute("ALTER TABLE away RENAME TO orders_inbox")
            one.wake.ring("notify")
            await until_async(lambda: not one.dispatcher.trouble, what="the end of the alarm")


async def test_rows_of_a_claim_whose_reply_was_lost_are_given_back(database: Database) -> None:
    """The connection breaks: perhaps it was committed. The next look frees what is ours by its session and unknown by
    its number, without counting the attempt, and claims anew."""
    insert(database, 3)
    (stray,) = insert(database, attempts=5)
    database.execute(
        "UPDATE orders_inbox SET status = 'Processing', claim_id = -1, claimed_by = %s, claimed_at = now()"
        " WHERE id = %s",
        [SESSION, stray],
    )
    database.execute(
        """CREATE SEQUENCE cuts; GRANT USAGE ON SEQUENCE cuts TO PUBLIC;
           CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF nextval('cuts') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NULL; END $$;
           CREATE TRIGGER cut AFTER UPDATE ON orders_inbox FOR EACH STATEMENT EXECUTE FUNCTION cut()"""
    )
    async with bench(database, opened(), limits=Limits(concurrency=5)) as one, one.running():
        await all_done(database, 4)
        assert any("gave back 1 rows" in event.error for event in one.of(Trouble))
    assert read(database, stray)["attempts"] == 5


async def test_strays_are_given_back_with_the_poll(database: Database) -> None:
    (stray,) = insert(database)
    work = Work()
    async with bench(database, work, limits=Limits(concurrency=5)) as one:
        one.poll_s = 0.1
        async with one.running():
            await quiet(work, 1)
            (other,) = insert(database)
            database.execute(
                "UPDATE orders_inbox SET status = 'Processing', claim_id = -1, claimed_by = %s,"
                " claimed_at = now() - interval '6 s' WHERE id = %s",
                [SESSION, other],
            )
            await quiet(work, 2)
            assert work.seen == [stray, other], "the row in work was taken from its handler"


async def test_waiting_rows_are_counted_when_a_look_leaves_some(database: Database) -> None:
    """Once a look: what it claimed and what is left."""
    insert(database, 20)
    insert(database, 5, due="now() + interval '1 hour'")
    work = Work()
    async with bench(database, work, limits=Limits(concurrency=4)) as one, one.running():
        await quiet(work, 4)
        await until_async(lambda: one.of(Checked), what="the look")
        assert [(event.claimed, event.waiting) for event in one.of(Checked)] == [(4, 20)]


async def test_an_edit_in_flight_is_uploaded_again_at_once(database: Database) -> None:
    """Even if its first try asked for a long wait."""
    (key,) = insert(database, payload="{}")
    first = anyio.Event()

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        if jobs[0].revision == 0:
            first.set()
            await until_async(lambda: read(database, key)["revision"] == 1, what="the edit")
            return [Retry("old content", 300.0)]
        return [Done()]

    async with bench(database, handler) as one, one.running():
        await first.wait()
        database.execute("UPDATE orders_inbox SET payload = '[]'")
        await all_done(database, 1)
        await until_async(lambda: len(one.of(Settled)) == 2, what="word of both")
        assert [event.outcomes for event in one.of(Settled)] == [{"retry": 1}, {"complete": 1}]


async def test_a_mixed_crowd_ends_done(database: Database) -> None:
    """Retries, snoozes, surprises and edits by a writer: every row is done in the end, none is lost, none is left."""
    ids = insert(database, 200, payload="{}")
    seen: dict[Any, int] = {}

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for job in jobs:
            seen[job.id] = seen.get(job.id, 0) + 1
            if seen[job.id] == 1 and job.id % 17 == 0:
                raise ValueError("surprise")
            is_first = seen[job.id] <= 1
            outcomes.append(
                Retry("r", 0.01)
                if is_first and job.id % 3 == 0
                else Snooze(0.01)
                if is_first and job.id % 5 == 0
                else Done()
            )
        return outcomes

    async with bench(database, handler, limits=Limits(batch_size=20, concurrency=3)) as one, one.running():
        for turn in range(5):
            database.execute("UPDATE orders_inbox SET payload = %s WHERE id %% 7 = %s", [str(turn), turn])
            one.wake.ring("notify")
            await anyio.wait_all_tasks_blocked()
        await all_done(database, 200)
        await until_async(lambda: one.slots.active == 0, what="all slots back")
    assert set(seen) == set(ids)
    assert {(row["claim_id"], row["claimed_by"]) for row in read_all(database)} == {(None, None)}


async def test_outcomes_that_cannot_be_written_stop_the_claims(database: Database) -> None:
    """A slot is free when its handler has ended; but what waits to be written is bounded, also while a person's lock
    holds up everything."""
    insert(database, 5 * MOST_ROWS)
    work = Work()
    async with open_pool(database, max_size=4, statement_timeout_s=60) as pool:
        one = Bench(pool, work, limits=Limits(batch_size=100, concurrency=2))
        person = database.connect()
        async with one.running():
            await quiet(work, 2)
            with person.transaction():
                person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [work.seen[0]])
                work.open.set()
                await until_async(lambda: one.completer.is_behind, what="the outcomes to wait")
                for _ in range(3):  # each wake is heard when the look before it has ended
                    count = len(one.of(Woke))
                    one.wake.ring("notify")
                    await until_async(lambda count=count: len(one.of(Woke)) > count, what="a look")  # type: ignore[misc]
                assert MOST_ROWS <= len(work.seen) <= 2 * MOST_ROWS + 2 * 100, (
                    "one statement's rows, as many, two calls"
                )
            await all_done(database, 5 * MOST_ROWS)
    assert sorted(work.seen) == sorted(set(work.seen))


class Watched(QueueTable):
    """Notes how many claims were under way at once; `refused`: which of them is, counted from 1; `untold`: how many
    began after that, before anybody was told of it."""

    under_way = most = count = refused = untold = 0
    was_refused = False

    def is_told(self) -> bool:
        return False

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        return await self._watched(super().claim(limit=limit, session_key=session_key, onward=onward))

    async def claim_quick(self, *, limit: int, session_key: int, sent: Reply | None = None) -> Claim:
        return await self._watched(super().claim_quick(limit=limit, session_key=session_key, sent=sent))

    async def _watched(self, claim: Awaitable[Claim]) -> Claim:
        self.under_way += 1
        self.count += 1
        self.untold += self.was_refused and not self.is_told()
        number, self.most = self.count, max(self.most, self.under_way)
        try:
            result = await claim
        finally:
            self.under_way -= 1
        if number == self.refused:
            self.was_refused = True
            raise DatabaseError("the reply was lost")
        return result


@pytest.mark.parametrize(("rows", "at_once"), [(100, 2), (99, 1)])
async def test_while_claims_bring_plenty_two_are_under_way(database: Database, rows: int, at_once: int) -> None:
    keys = insert(database, 2_000)
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        table = Watched(pool, UPLOAD)
        async with Bench(pool, work, table=table, limits=Limits(batch_size=rows, concurrency=4)).running():
            await all_done(database, 2_000)
    assert table.most == at_once
    assert sorted(work.seen) == keys, "each once"


@pytest.mark.parametrize("refused", [2, 3, 4])
async def test_one_of_two_claims_that_fails_costs_nothing(database: Database, refused: int) -> None:
    """What it had claimed is given back, what the other one brings is done; the look fails once, and at once."""
    keys = insert(database, 4_000)
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        table = Watched(pool, UPLOAD)
        table.refused = refused
        one = Bench(pool, work, table=table, limits=Limits(batch_size=100, concurrency=4))
        table.is_told = lambda: bool(one.of(Trouble))  # type: ignore[method-assign]
        async with one.running():
            await all_done(database, 4_000)
    assert table.untold == 0, "claims after the one that failed, before it was told"
    assert sorted(work.seen) == keys, "each once"
    troubles = [event.error for event in one.of(Trouble)]
    assert troubles == ["the reply was lost", "gave back 100 rows whose claim or settle was cut"]


@pytest.fixture
def _long_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at all rows counts as one that took long, and the next claims go on where it ended, for a second."""
    take_long(monkeypatch, 1.0)


def take_long(monkeypatch: pytest.MonkeyPatch, longest_s: float) -> None:
    for name, value in {
        "_LONG_S": 0.0,
        "_TOO_LONG_S": 0.0,
        "_ROW_S": 0.0,
        "_SHARE": 1e9,
        "_LONGEST_S": longest_s,
    }.items():
        monkeypatch.setattr(claimer, name, value)


@pytest.mark.usefixtures("_long_claims")
@pytest.mark.parametrize("is_asleep", [True, False])
async def test_a_row_before_the_last_claims_is_found_a_moment_later(database: Database, is_asleep: bool) -> None:
    """By an alarm of our own, whether the bell is on or not."""
    work = opened()
    async with bench(database, work) as one:
        one.hears = is_asleep
        async with one.running():
            insert(database)
            one.wake.ring("notify")
            await quiet(work, 1)
            if is_asleep:
                await until_async(lambda: one.of(BellArmed), what="the bell")
            (before,) = insert(database, due="'-infinity'")
            (new,) = insert(database)
            one.wake.ring("notify")
            await quiet(work, 3)
    assert work.seen[1:] == [new, before]


@pytest.mark.usefixtures("_long_claims")
@pytest.mark.parametrize("reason", ["reopened", "peer", "call", "config"])
async def test_who_is_woken_for_an_old_row_looks_at_all_rows_however_long_it_takes(
    database: Database, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_long(monkeypatch, 3600.0)
    work = opened()
    async with bench(database, work) as one, one.running():
        insert(database)
        one.wake.ring("notify")
        await quiet(work, 1)
        await anyio.wait_all_tasks_blocked()
        insert(database, due="'-infinity'")
        one.wake.ring(reason)
        await quiet(work, 2)


async def test_old_rows_of_which_a_look_finds_some_are_all_done_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a handful with each look at all rows, of which the next one comes in an hour."""
    take_long(monkeypatch, 3600.0)
    work = opened()
    async with bench(database, work, limits=Limits(concurrency=5)) as one, one.running():
        insert(database, 20)
        one.wake.ring("notify")
        await quiet(work, 20)
        insert(database, 60, due="now() - interval '1 hour'")
        one.wake.ring("call")
        await quiet(work, 80)


async def test_where_nothing_was_claimed_yet_there_is_no_place_to_go_on_from(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick claims alone would find nothing in a partition, for as long as the looks take too long."""
    take_long(monkeypatch, 3600.0)
    database.execute("CREATE TABLE heir () INHERITS (orders_inbox)")
    work = opened()
    async with bench(database, work) as one, one.running():
        await until_async(lambda: one.of(Checked), what="the first look")
        database.execute("INSERT INTO heir (id, order_number) VALUES (9, 'x')")
        one.wake.ring("notify")
        await quiet(work, 1)


@pytest.mark.usefixtures("_long_claims")
async def test_after_a_long_claim_the_next_go_on_where_it_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is time for all rows again, which an alarm tells whoever sleeps. Nor does it count what waits."""
    insert(database)
    async with bench(database, opened()) as one, one.running(dispatches=False) as crew:
        claims = one.dispatcher._claimer
        claims.begin(SESSION, crew)

        async def claim() -> claimer.Claimed:
            claimed = await claims.claim(5, 5, one.limits, is_first=False)
            assert isinstance(claimed, claimer.Claimed)
            return claimed

        def found(claimed: claimer.Claimed) -> tuple[int, bool]:
            return len(claimed.jobs), claimed.is_partial

        assert found(await claim()) == (1, False)
        insert(database, due="'-infinity'")
        nothing = await claim()
        assert found(nothing) == (0, True)
        assert claims.postpones(nothing, is_asleep=False)
        assert anyio.current_time() < one.wake._due_at <= anyio.current_time() + 1.0
        insert(database)
        insert(database, priority=1)
        assert found(await claim()) == (2, True)
        claims.start_over(spares=True)
        assert found(await claim()) == (0, True)
        insert(database, 5)
        monkeypatch.setattr(one.table, "waiting", None)
        assert isinstance(await claims.claim(5, 5, one.limits, is_first=True), claimer.Claimed)
        assert one.of(Checked)[-1].waiting is None
        claims.start_over()
        assert found(await claim()) == (1, False)


class Crowded(QueueTable):
    """Finds no end when it is to look at all rows."""

    is_full = False

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        if self.is_full and not onward:
            raise DatabaseError("canceling statement due to statement timeout")
        return await super().claim(limit=limit, session_key=session_key, onward=onward)


async def test_after_a_look_that_was_cut_the_next_claims_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be cut again, and nothing be done meanwhile."""
    take_long(monkeypatch, 3600.0)
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        table = Crowded(pool, UPLOAD)
        one = Bench(pool, work, table=table)
        async with one.running():
            insert(database)
            one.wake.ring("notify")
            await quiet(work, 1)
            table.is_full = True
            insert(database)
            one.wake.ring("config")
            await quiet(work, 2)
    assert [event.where for event in one.of(Trouble)] == ["upload claim"]


class Slow(QueueTable):
    """Keeps a look at all rows until `open` is set."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool, UPLOAD)
        self.open, self.is_kept = anyio.Event(), False

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        if self.is_kept and not onward:
            await self.open.wait()
        return await super().claim(limit=limit, session_key=session_key, onward=onward)


async def test_beside_a_look_that_takes_long_claims_go_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two such looks would find no more than one, and nothing be done meanwhile."""
    take_long(monkeypatch, 1e-9)
    async with open_pool(database, max_size=4) as pool:
        table = Slow(pool)
        one = Bench(pool, opened(), table=table)
        async with one.running(dispatches=False) as crew, anyio.create_task_group() as group:
            claims = one.dispatcher._claimer
            claims.begin(SESSION, crew)
            insert(database)
            assert await claims.claim(5, 5, one.limits, is_first=False)
            table.is_kept = True
            monkeypatch.setattr(claimer, "_LONGEST_S", 3600.0)
            group.start_soon(lambda: claims.claim(5, 5, one.limits, is_first=False))
            await anyio.wait_all_tasks_blocked()
            insert(database)
            with anyio.fail_after(30):
                beside = await claims.claim(5, 5, one.limits, is_first=False)
            assert isinstance(beside, claimer.Claimed)
            assert (len(beside.jobs), beside.is_partial) == (1, True)
            table.open.set()


async def test_when_its_time_has_come_the_next_look_is_at_all_rows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a quick one, which would search as long and tell less; nor is counted what waits: as long again."""
    take_long(monkeypatch, 1e-9)
    async with bench(database, opened()) as one, one.running(dispatches=False) as crew:
        claims = one.dispatcher._claimer
        claims.begin(SESSION, crew)
        monkeypatch.setattr(one.table, "waiting", None)
        for _ in range(3):
            insert(database, 2)
            claimed = await claims.claim(1, 1, one.limits, is_first=True)
            assert isinstance(claimed, claimer.Claimed)
            assert (len(claimed.jobs), claimed.is_partial) == (1, False)
            assert one.of(Checked)[-1].waiting is None


@asynccontextmanager
async def asleep(database: Database, work: Work) -> AsyncIterator[Bench]:
    """A queue of five slots that sleeps by its own bell, and whose quick claims do not see the table `heir`."""
    database.execute("CREATE TABLE heir () INHERITS (orders_inbox)")
    async with bench(database, work, limits=Limits(concurrency=5)) as one:
        one.hears = True
        async with one.running():
            await until_async(lambda: one.of(BellArmed) and len(one.of(Checked)) > 1, what="the look after the bell")
            one.events.clear()
            yield one


async def test_who_sleeps_looks_at_all_rows_a_moment_after_a_quick_claim(database: Database) -> None:
    """What a quick claim does not see is found though nobody rings for it again."""
    work = opened()
    async with asleep(database, work) as one:
        database.execute("INSERT INTO heir (id, order_number) VALUES (9, 'x')")
        insert(database)
        one.wake.ring("notify")
        await quiet(work, 2)
    assert work.seen[-1] == 9


async def test_the_look_that_was_put_off_is_no_news(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would be rung for it, once for each insert."""
    news: list[str] = []
    async with asleep(database, opened()) as one:
        monkeypatch.setattr(Bell, "has_news", lambda _bell: news.append("due"))
        insert(database)
        one.wake.ring("notify")
        await until_async(lambda: "due" in [event.reason for event in one.of(Woke)], what="the alarm")
        await until_async(lambda: not one.dispatcher._claimer.has_postponed, what="the look at all rows")
    assert news == []


async def test_who_was_rung_for_and_finds_nothing_quickly_looks_at_all_rows_at_once(database: Database) -> None:
    work = opened()
    async with asleep(database, work) as one:
        database.execute("INSERT INTO heir (id, order_number) VALUES (9, 'x')")
        one.wake.ring("notify")
        await quiet(work, 1)
    found = next(n for n, event in enumerate(one.events) if isinstance(event, Checked) and event.claimed)
    assert [event.reason for event in one.events[:found] if isinstance(event, Woke)] == ["notify"]


@pytest.mark.parametrize("is_long", [True, False])
async def test_after_a_quick_claim_that_searched_for_long_the_next_is_another(
    database: Database, monkeypatch: pytest.MonkeyPatch, is_long: bool
) -> None:
    """Rows due later may stand in its way, or dead ones."""
    monkeypatch.setattr(claimer, "_LONG_S", math.inf)
    insert(database)
    async with bench(database, opened()) as one, one.running(dispatches=False) as crew:
        claims = one.dispatcher._claimer
        claims.begin(SESSION, crew)
        kinds: list[bool] = []
        for _ in range(3):
            claims.has_postponed = True
            claimed = await claims.claim(5, 5, one.limits, is_first=False)
            assert isinstance(claimed, claimer.Claimed)
            assert claims.has_postponed is claimed.is_partial  # the whole claim is what was put off
            kinds.append(claimed.is_partial)
            insert(database)
            if is_long:  # from the first quick one on
                take_long(monkeypatch, 60.0)
        assert kinds == [False, True, not is_long]
