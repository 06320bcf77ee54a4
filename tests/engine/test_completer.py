"""The completer writes everything it is given once, many in one statement, whatever the database does meanwhile."""

from functools import partial

import anyio
import pytest
from conftest import Database
from queues import counts, insert, open_pool, read_all
from waiting import until_async
from workbench import Bench, Work, bench

from listener.core.events import JobFailed, Settled, Trouble
from listener.core.job import Settle, Settlement
from listener.engine import completer

pytestmark = pytest.mark.anyio


def waits_for_a_lock(database: Database) -> bool:
    return bool(
        database.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


async def test_what_arrives_during_a_write_goes_into_the_next(database: Database) -> None:
    """Two statements for twenty callers, and each is told when its own are written."""
    ids = insert(database, 20)
    told: list[int] = []
    async with bench(database, Work()) as one, one.running(dispatches=False):
        jobs = await one.claim(20)
        person = database.connect()
        with person.transaction():
            person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [jobs[0].id])
            one.completer.put([Settlement(job=jobs[0], kind=Settle.COMPLETE)], lambda: told.append(0))
            await until_async(lambda: waits_for_a_lock(database), what="the first write to be under way")
            for n, job in enumerate(jobs[1:], 1):
                one.completer.put([Settlement(job=job, kind=Settle.COMPLETE)], partial(told.append, n))
            await anyio.wait_all_tasks_blocked()
            assert one.of(Settled) == told == []
        await one.completer.flush()

        assert [event.outcomes for event in one.of(Settled)] == [{"complete": 1}, {"complete": 19}]
        assert told == list(range(20))
    assert [row["status"] for row in read_all(database, ids)] == ["Uploaded"] * 20


async def test_several_wait_for_the_same_outcomes(database: Database) -> None:
    """A queue that gives back what it held ready, and the shutdown."""
    insert(database)
    ended: list[int] = []
    async with bench(database, Work()) as one, one.running(dispatches=False):
        (job,) = await one.claim(1)

        async def wait(number: int) -> None:
            await one.completer.flush()
            ended.append(number)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                with database.connect() as person, person.transaction():
                    person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [job.id])
                    one.completer.put([Settlement(job=job, kind=Settle.COMPLETE)], lambda: None)
                    for number in range(3):
                        group.start_soon(wait, number)
                        await anyio.wait_all_tasks_blocked()
                    assert ended == []
    assert sorted(ended) == [0, 1, 2]


async def test_while_outcomes_keep_coming_in_they_are_gathered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write of several, what comes in at two different moments is one statement; a single one never waits."""
    monkeypatch.setattr(completer, "_GATHER_S", 0.2)
    insert(database, 4)
    async with bench(database, Work()) as one, one.running(dispatches=False):
        first, second, third, fourth = ([Settlement(job=job, kind=Settle.COMPLETE)] for job in await one.claim(4))
        written = anyio.Event()
        one.completer.put(first, lambda: None)
        one.completer.put(second, written.set)
        await written.wait()
        one.completer.put(third, lambda: None)
        await anyio.wait_all_tasks_blocked()
        one.completer.put(fourth, lambda: None)
        await one.completer.flush()
        assert [event.outcomes for event in one.of(Settled)] == [{"complete": 2}, {"complete": 2}]


async def test_what_is_being_written_does_not_wait_and_waits_again_when_that_is_cut(database: Database) -> None:
    """With each lost session more would be let in."""
    insert(database, 1_500)
    async with bench(database, Work()) as one:
        async with one.running(dispatches=False):
            jobs = await one.claim(1_500)
        person = database.connect()
        with person.transaction():
            person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [jobs[0].id])
            for start in (0, 750):
                part = [Settlement(job=job, kind=Settle.COMPLETE) for job in jobs[start : start + 750]]
                one.completer.put(part, lambda: None)
            for _ in range(3):
                assert one.completer.is_behind
                async with anyio.create_task_group() as group:
                    group.start_soon(one.completer.run)
                    await until_async(lambda: waits_for_a_lock(database), what="the write")
                    assert not one.completer.is_behind
                    group.cancel_scope.cancel("the session is lost")
                    database.execute(
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                    )


async def test_large_parcels_are_not_torn_and_not_piled_up(database: Database) -> None:
    """About a thousand rows a statement; one parcel stays together."""
    insert(database, 1_900)
    async with bench(database, Work()) as one, one.running(dispatches=False):
        jobs = await one.claim(1_900)
        for start in (0, 600, 1_200):
            part = [Settlement(job=job, kind=Settle.COMPLETE) for job in jobs[start : start + 600]]
            one.completer.put(part, lambda: None)
        assert one.completer.is_behind
        one.completer.put([Settlement(job=job, kind=Settle.COMPLETE) for job in jobs[1_800:]], lambda: None)
        await one.completer.flush()

        assert not one.completer.is_behind
        assert [sum(event.outcomes.values()) for event in one.of(Settled)] == [600, 600, 700]
    assert counts(database) == {"Uploaded": 1_900}


async def test_the_caller_returns_when_it_is_written_and_not_before(database: Database) -> None:
    insert(database)
    async with bench(database, Work()) as one, one.running(dispatches=False):
        (job,) = await one.claim(1)
        await one.settle([Settlement(job=job, kind=Settle.COMPLETE)])
        assert counts(database) == {"Uploaded": 1}
        await one.settle([])


async def test_a_cut_connection_costs_no_outcome(database: Database) -> None:
    """It is tried again; the fence makes a repeated write harmless."""
    insert(database, 5)
    async with bench(database, Work()) as one, one.running(dispatches=False):
        jobs = await one.claim(5)
        database.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'order-listener%'"
            " AND datname = current_database()"
        )
        with anyio.fail_after(30):
            await one.settle([Settlement(job=job, kind=Settle.COMPLETE) for job in jobs])

        assert one.of(Trouble)
        assert counts(database) == {"Uploaded": 5}


async def test_a_row_that_a_person_holds_is_waited_for_and_not_given_up(database: Database) -> None:
    """Longer than a statement may take: nothing fails, and it is written as soon as the person is done."""
    insert(database, 3)
    async with open_pool(database, max_size=4, statement_timeout_s=0.2) as pool:
        one = Bench(pool, Work())
        async with one.running(dispatches=False):
            jobs = await one.claim(3)
            person = database.connect()
            with person.transaction():
                person.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [jobs[1].id])
                one.completer.put([Settlement(job=job, kind=Settle.COMPLETE) for job in jobs], lambda: None)
                await until_async(lambda: len(one.of(Trouble)) >= 2, what="two tries")
                assert counts(database) == {"Processing": 3}
            await until_async(lambda: counts(database) == {"Uploaded": 3}, what="the outcomes")
        assert one.of(JobFailed) == []


@pytest.mark.parametrize("kind", Settle)
async def test_the_dispatcher_learns_of_rows_that_are_due_again(database: Database, kind: Settle) -> None:
    """Released ones and edited ones now, delayed ones in time."""
    insert(database, 2, payload="{}")
    async with bench(database, Work()) as one, one.running(dispatches=False):
        for is_edited in (False, True):
            (job,) = await one.claim(1)
            if is_edited:
                database.execute("UPDATE orders_inbox SET payload = '[]' WHERE id = %s", [job.id])
            await one.settle([Settlement(job=job, kind=kind, delay_s=0.0, error="e")])
            rings = is_edited or kind in (Settle.RELEASE, Settle.RETRY, Settle.SNOOZE)
            with anyio.move_on_after(0.05 if not rings else 10) as scope:
                assert await one.wake.wait(lambda: 300.0) == {"reopened"}
            assert scope.cancelled_caught != rings
            database.execute("DELETE FROM orders_inbox WHERE id = %s", [job.id])


async def test_a_delay_sets_the_alarm(database: Database) -> None:
    """Of the shortest; an edited row does not wait for its delay."""
    insert(database, 3, payload="{}")
    async with bench(database, Work()) as one, one.running(dispatches=False):
        jobs = await one.claim(3)
        await one.settle(
            [
                Settlement(job=jobs[0], kind=Settle.RETRY, delay_s=250.0, error="e"),
                Settlement(job=jobs[1], kind=Settle.SNOOZE, delay_s=0.05),
            ]
        )
        assert await one.wake.wait(lambda: 300.0) == {"due"}
        database.execute("UPDATE orders_inbox SET payload = '[]' WHERE id = %s", [jobs[2].id])
        await one.settle([Settlement(job=jobs[2], kind=Settle.RETRY, delay_s=250.0, error="e")])
        with anyio.fail_after(10):
            assert await one.wake.wait(lambda: 300.0) == {"reopened"}


async def test_what_became_of_each_row_is_told_once(database: Database) -> None:
    """Counted by kind, the lost ones apart; failures one by one, for a person to find."""
    insert(database, 5)
    async with bench(database, Work()) as one, one.running(dispatches=False):
        jobs = await one.claim(5)
        database.execute("UPDATE orders_inbox SET claim_id = 0 WHERE id = %s", [jobs[4].id])
        kinds = [Settle.COMPLETE, Settle.FAIL, Settle.RETRY, Settle.RELEASE, Settle.FAIL]
        await one.settle([Settlement(job=job, kind=kind, error="why") for job, kind in zip(jobs, kinds, strict=True)])

        (settled,) = one.of(Settled)
        assert settled.outcomes == {"complete": 1, "fail": 1, "retry": 1, "release": 1}
        assert settled.lost == 1
        assert [(event.id, event.outcome, event.error) for event in one.of(JobFailed)] == [
            (str(jobs[1].id), "fail", "why"),
            (str(jobs[2].id), "retry", "why"),
        ]
