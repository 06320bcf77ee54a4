"""Rows that are claimed a moment before a slot is free for them: soon begun, or given back, and never more calls."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf

import anyio
import pytest
from conftest import Database
from queues import SESSION, counts, insert, open_pool, read_all, waiting
from waiting import until_async
from workbench import Bench, Work, quiet

from listener.core.events import Checked, Woke
from listener.core.job import Job
from listener.core.outcome import Done, Outcome
from listener.core.queue import Limits, Queue
from listener.engine import held
from listener.engine.crew import Crew
from listener.engine.executor import Executor
from listener.engine.slots import Slots

pytestmark = pytest.mark.anyio

SLOTS = 3


@asynccontextmanager
async def short(database: Database, work: Work, rows: int = 30, **options: object) -> AsyncIterator[Bench]:
    """A queue whose calls were short of late, and many rows."""
    insert(database, rows)
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work, limits=Limits(concurrency=SLOTS), **options)  # type: ignore[arg-type]
        one.executor.mean_s = 0.0
        yield one


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ready stays ready for longer than the test may last."""
    monkeypatch.setattr(held, "_PATIENCE_S", 600.0)


async def until_ready(one: Bench, work: Work) -> None:
    """Wait until every slot has its call and as many rows again are ready."""
    await quiet(work, SLOTS)
    await until_async(lambda: len(one.dispatcher._claimer.held._ready) == SLOTS, what="rows to be ready")


@pytest.mark.usefixtures("_patient")
async def test_as_many_rows_again_as_calls_are_ready_while_calls_are_short(database: Database) -> None:
    """Never more calls than slots, no claim for one row, each row once, in order."""
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        await until_async(lambda: one.wake.is_asleep, what="the end of the look")
        assert counts(database) == {"Processing": 2 * SLOTS, "Pending": 30 - 2 * SLOTS}
        assert [event.claimed for event in one.of(Checked)] == [SLOTS, SLOTS], "plenty is known by the first claim"
        work.open.set()
        await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")
    assert work.most_active == SLOTS
    assert work.seen == sorted(row["id"] for row in read_all(database))
    assert {event.claimed for event in one.of(Checked)} <= {0, 2, 3, 4, 5, 6}


async def test_long_calls_have_none_ready(database: Database) -> None:
    """One call of a second outweighs thirty short ones."""
    work = Work()
    async with short(database, work) as one, one.running():
        one.executor.mean_s = 0.03
        await quiet(work, SLOTS)
        await until_async(lambda: one.wake.is_asleep, what="the end of the look")
        assert counts(database) == {"Processing": SLOTS, "Pending": 30 - SLOTS}


class Open:
    """A gate that lets all claims pass."""

    async def admit(self) -> None:
        pass

    async def withdraw(self) -> None:
        pass


async def test_where_each_call_is_paid_for_none_are_ready(database: Database) -> None:
    """What a gate admits are calls that begin now."""
    work = Work()
    async with short(database, work, gate=Open()) as one, one.running():
        await quiet(work, SLOTS)
        await until_async(lambda: one.wake.is_asleep, what="the end of the look")
        assert counts(database) == {"Processing": SLOTS, "Pending": 30 - SLOTS}


async def test_calls_are_known_to_be_short_by_their_ends(database: Database) -> None:
    """About a hundred short ones have to be seen."""
    work = Work()
    work.open.set()
    async with short(database, work, rows=300) as one, one.running():
        one.executor.mean_s = 1.0
        await until_async(lambda: counts(database) == {"Uploaded": 300}, what="all done")
    assert max(event.claimed for event in one.of(Checked)[:20]) == SLOTS
    assert max(event.claimed for event in one.of(Checked)) > SLOTS


async def test_what_has_no_slot_soon_is_given_back(database: Database) -> None:
    """Once: the calls are long now, whatever they were; it counts no attempt, and another listener may have it."""
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        await until_async(lambda: counts(database).get("Processing") == SLOTS, what="the others to be given back")
        await until_async(lambda: "reopened" in {event.reason for event in one.of(Woke)}, what="the look after it")
        await until_async(lambda: one.wake.is_asleep, what="its end")
        assert sum(event.claimed for event in one.of(Checked)) == 2 * SLOTS, "not claimed again"
        assert {row["attempts"] for row in read_all(database) if row["status"] == "Pending"} == {0}
        work.open.set()
        await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")
    assert sorted(work.seen) == sorted(set(work.seen))
    assert work.most_active == SLOTS


@pytest.mark.usefixtures("_patient")
async def test_switched_off_none_of_them_begins(database: Database) -> None:
    """A configuration takes effect at once: only calls go on."""
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        one.limits = replace(one.limits, enabled=False)
        one.dispatcher.reconfigured()
        await until_async(lambda: counts(database)["Processing"] == SLOTS, what="the others to be given back")
        work.open.set()
        await until_async(lambda: counts(database).get("Uploaded") == SLOTS, what="the calls to end")
        assert len(work.calls) == SLOTS


@pytest.mark.usefixtures("_patient")
async def test_a_lower_concurrency_counts_for_them(database: Database) -> None:
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        one.limits = replace(one.limits, concurrency=1)
        one.dispatcher.reconfigured()
        await until_async(lambda: counts(database)["Processing"] == SLOTS + 1, what="all but one to be given back")
        work.most_active = 0
        work.open.set()
        await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")
    assert work.most_active == 1
    assert sorted(work.seen) == sorted(set(work.seen))


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("is_stopped", [True, False])
async def test_at_the_end_they_are_given_back_or_left_to_the_rescue(database: Database, is_stopped: bool) -> None:
    """A stop gives them back while calls go on; when the session is lost, they are somebody else's to take."""
    work = Work()
    async with short(database, work) as one, anyio.create_task_group() as outer:
        outer.start_soon(one.completer.run)
        async with Crew.gathered() as crew, anyio.create_task_group() as dispatching:
            dispatching.start_soon(one.dispatcher.run, SESSION, crew, await one.bell(outer))
            await until_ready(one, work)
            if is_stopped:
                one.dispatcher.stop()
                await until_async(lambda: counts(database)["Processing"] == SLOTS, what="the others to be given back")
                work.open.set()
            else:
                dispatching.cancel_scope.cancel("the session is lost")
                crew.cancel()
        await one.completer.flush()
        outer.cancel_scope.cancel("all is settled")
        if is_stopped:
            assert counts(database) == {"Uploaded": SLOTS, "Pending": 30 - SLOTS}
        else:
            assert counts(database) == {"Processing": 2 * SLOTS, "Pending": 30 - 2 * SLOTS}
        assert len(work.calls) == SLOTS
        assert one.dispatcher.held() == []


@pytest.mark.usefixtures("_patient")
async def test_a_new_session_does_not_begin_what_the_old_one_had_ready(database: Database) -> None:
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        holder = one.dispatcher._claimer.held
        holder.begin(Crew())
        assert (holder.claims(), holder._ready) == ([], deque())
        assert len(one.executor._deadlines) == SLOTS


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("is_shutdown", [True, False])
async def test_in_a_cancelled_crew_none_of_them_begins(database: Database, is_shutdown: bool) -> None:
    """A shutdown gives them back; who has lost the session leaves them to the rescue."""
    work = Work()
    async with short(database, work) as one:
        one.is_releasing = is_shutdown
        async with one.running() as crew:
            await until_ready(one, work)
            one.dispatcher._claimer.is_stopping = True
            crew.cancel()
            await until_async(lambda: not work.active, what="the calls to end")
            assert not one.dispatcher._claimer.held._ready
        assert counts(database).get("Processing", 0) in ({0} if is_shutdown else {2 * SLOTS})
    assert len(work.calls) == SLOTS


@pytest.mark.usefixtures("_patient")
async def test_while_outcomes_pile_up_none_of_them_begins(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        with monkeypatch.context() as patch:
            patch.setattr(Executor, "is_behind", True)
            work.open.set()
            await until_async(lambda: counts(database).get("Uploaded") == SLOTS, what="the calls to end")
            assert len(work.calls) == SLOTS
        one.dispatcher.slot_freed()
        await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")


async def test_while_outcomes_pile_up_none_are_claimed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work()
    async with short(database, work) as one, one.running():
        one.executor.mean_s = 1.0
        await quiet(work, SLOTS)
        await until_async(lambda: one.wake.is_asleep, what="the end of the look")
        with monkeypatch.context() as patch:
            patch.setattr(Executor, "is_behind", True)
            one.executor.mean_s = 0.0
            one.wake.ring("notify")
            await until_async(lambda: one.wake.is_asleep, what="a look")
            assert counts(database) == {"Processing": SLOTS, "Pending": 30 - SLOTS}


@pytest.mark.usefixtures("_patient")
async def test_a_new_operation_timeout_counts_for_them(database: Database) -> None:
    """The rescue goes by the new one at once: their deadline runs from the claim as that of a call does."""
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        deadlines = [call.deadline.deadline for _, call in one.dispatcher._claimer.held._ready]
        one.executor.prolong(-100.0)
        assert [call.deadline.deadline for _, call in one.dispatcher._claimer.held._ready] == [
            deadline - 100.0 for deadline in deadlines
        ]


@pytest.mark.usefixtures("_patient")
async def test_they_do_not_pass_a_queue_that_stands_before_them(database: Database) -> None:
    """A common slot goes to who is next in line."""
    database.execute('CREATE TABLE "Other" (LIKE orders_inbox INCLUDING ALL); GRANT ALL ON "Other" TO PUBLIC')
    slots = Slots(lambda: 1, place=lambda queue: 1 if queue == "other" else 5)
    order: list[str] = []

    def noted(jobs: Sequence[Job]) -> Sequence[Outcome]:
        order.append(jobs[0].queue)
        return [Done() for _ in jobs]

    works = [Work(noted), Work(noted)]
    works[1].open.set()
    queue = Queue(name="other", table="Other")
    async with short(database, works[0], slots=slots) as one, open_pool(database, max_size=4) as pool:
        one.limits = Limits()
        async with one.running():
            await until_async(lambda: len(one.dispatcher._claimer.held._ready) == 1, what="a row to be ready")
            database.execute("INSERT INTO \"Other\" SELECT * FROM orders_inbox WHERE status = 'Pending' LIMIT 1")
            async with Bench(pool, works[1], slots=slots, limits=Limits(), queue=queue).running():
                await until_async(lambda: slots.has_line, what="the other queue to stand in line")
                works[0].open.set()
                await until_async(lambda: len(order) >= 3, what="three calls")
    assert order[:3] == ["upload", "other", "upload"]


async def test_who_wants_a_common_slot_has_none_ready_and_leaves_the_line(database: Database) -> None:
    """A queue that stood in line, and slept there, would keep the slot from all others."""
    slots = Slots(lambda: 1)
    work = Work()
    async with short(database, work, rows=2, slots=slots) as one:
        one.dispatcher._claimer._quick_from = inf
        async with one.running():
            await quiet(work, 1)
            await until_async(lambda: one.wake.is_asleep, what="the end of the look")
            assert counts(database) == {"Processing": 1, "Pending": 1}
            work.open.set()
            await until_async(lambda: counts(database) == {"Uploaded": 2}, what="all done")
            await until_async(lambda: one.wake.is_asleep and not one.dispatcher._wants_slot, what="its sleep")
            assert not slots.has_line


@pytest.mark.usefixtures("_patient")
async def test_rows_without_a_slot_stand_in_no_line(database: Database) -> None:
    """They are told of every slot all the same."""
    most = 2 * SLOTS
    slots = Slots(lambda: most)
    work = Work()
    async with short(database, work, slots=slots) as one, one.running():
        await until_ready(one, work)
        most = 0
        work.open.set()
        await until_async(lambda: counts(database).get("Uploaded") == SLOTS, what="the calls to end")
        assert not slots.has_line
        most = 2 * SLOTS
        one.dispatcher.slot_freed()
        await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")


@pytest.mark.usefixtures("_patient")
@pytest.mark.parametrize("change", [{"enabled": False}, {"concurrency": 1}])
async def test_what_a_claim_brings_under_other_limits_begins_only_where_a_slot_was_kept(
    database: Database, change: dict[str, int]
) -> None:
    """The claim waits behind a person's lock while a configuration changes."""
    work = Work()
    async with short(database, work) as one, one.running():
        await until_ready(one, work)
        with database.connect() as person, person.transaction():
            person.execute("LOCK TABLE orders_inbox IN EXCLUSIVE MODE")
            work.open.set()
            await until_async(lambda: one.dispatcher._claimer.held._coming > 0, what="a claim of more than slots")
            await until_async(lambda: len(work.calls) == 2 * SLOTS, what="those that were ready")
            kept, work.most_active = one.slots._reserved.total(), 0
            one.limits = replace(one.limits, **change)  # type: ignore[arg-type]
            one.dispatcher.reconfigured()
        await until_async(lambda: not one.dispatcher._claimer.held._coming, what="the claim")
        if one.limits.enabled:
            await until_async(lambda: counts(database) == {"Uploaded": 30}, what="all done")
        else:
            await until_async(lambda: "Processing" not in counts(database), what="the others to be given back")
            assert len(work.calls) == 2 * SLOTS + kept
        assert work.most_active <= max(1, kept)


async def test_calls_with_little_time_have_none_ready(database: Database) -> None:
    """It runs from the claim: one that began late would be ended early, and charged with it."""
    work = Work()
    async with short(database, work) as one:
        one.limits = replace(one.limits, timeout_s=0.9)
        async with one.running():
            await quiet(work, SLOTS)
            await until_async(lambda: one.wake.is_asleep, what="the end of the look")
            assert counts(database) == {"Processing": SLOTS, "Pending": 30 - SLOTS}


@pytest.mark.usefixtures("_patient")
async def test_at_a_stop_others_are_called_when_it_is_written(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ring before that would find nothing, and there is no other."""
    work, called = Work(), list[dict[str, int]]()
    async with short(database, work) as one, anyio.create_task_group() as outer:
        outer.start_soon(one.completer.run)
        async with Crew.gathered() as crew:
            bell = await one.bell(outer)

            async def note(*_: object) -> None:
                called.append(counts(database))

            monkeypatch.setattr(bell, "call_others", note)
            async with anyio.create_task_group() as dispatching:
                dispatching.start_soon(one.dispatcher.run, SESSION, crew, bell)
                await until_ready(one, work)
                with database.connect() as person, person.transaction():
                    person.execute("SELECT FROM orders_inbox WHERE status = 'Processing' FOR UPDATE")
                    one.dispatcher.stop()
                    await until_async(
                        lambda: waiting(database, "order-listener upload settle"),
                        what="the write to wait",
                    )
            work.open.set()
        await one.completer.flush()
        outer.cancel_scope.cancel("all is settled")
    assert called[-1] == {"Processing": SLOTS, "Pending": 30 - SLOTS}
