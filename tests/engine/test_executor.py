"""The executor turns whatever a handler does into one outcome per job, and always gives its slot back."""

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest
from conftest import Database
from queues import insert, read_all
from waiting import until_async
from workbench import Bench, Work, bench, quiet

from listener.core.errors import Unavailable, Unreachable
from listener.core.events import OperationEnded, OperationStarted
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Release, Retry, Snooze
from listener.core.queue import Limits
from listener.engine.crew import Crew

pytestmark = pytest.mark.anyio

BATCH = 7


async def run(one: Bench, count: int, limits: Limits | None = None) -> list[Job]:
    """Execute one batch to its end."""
    jobs = await one.claim(count)
    with anyio.fail_after(30):
        async with Crew.gathered() as crew:
            gone = one.start(crew, jobs, limits)
        await one.completer.flush()
    assert gone == jobs
    assert one.slots.active == 0
    assert len(one.of(OperationStarted)) == len(one.of(OperationEnded))
    return jobs


def answer(work: Callable[[Sequence[Job]], Any]) -> Any:
    async def handler(jobs: Sequence[Job]) -> Any:
        return work(jobs)

    return handler


async def test_each_job_gets_its_own_outcome(database: Database) -> None:
    ids = insert(database, 5)
    outcomes: list[Outcome] = [
        Done({"shipstation_order_id": "5"}),
        Retry("again"),
        Snooze(5.0, "later"),
        Fail("never"),
        Release("not now"),
    ]
    async with bench(database, answer(lambda _jobs: outcomes)) as one, one.running(dispatches=False):
        await run(one, 5)
        (ended,) = one.of(OperationEnded)
    assert (ended.result, ended.error) == ("completed", None)
    rows = read_all(database, ids)
    assert [row["status"] for row in rows] == ["Uploaded", "Pending", "Pending", "Failed", "Pending"]
    assert [row["attempts"] for row in rows] == [1, 1, 0, 1, 0]
    assert [row["last_error"] for row in rows] == [None, "again", "later", "never", None]


@pytest.mark.parametrize("position", range(BATCH))
async def test_a_poison_job_stands_alone_wherever_it_is(database: Database, position: int) -> None:
    """It alone is charged; the others are done, and nobody is handled twice after it was done."""
    ids = insert(database, BATCH)
    done: list[int] = []

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        if any(job.id == ids[position] for job in jobs):
            raise ValueError("poison")
        done.extend(job.id for job in jobs)
        return [Done() for _ in jobs]

    async with bench(database, handler) as one, one.running(dispatches=False):
        await run(one, BATCH)
    rows = read_all(database, ids)
    assert [row["status"] for row in rows] == ["Pending" if n == position else "Uploaded" for n in range(BATCH)]
    assert (rows[position]["attempts"], rows[position]["last_error"]) == (1, "ValueError: poison")
    assert sorted(done) == [key for key in ids if key != ids[position]]


async def test_many_poison_jobs_are_each_charged_with_their_own_error(database: Database) -> None:
    ids = insert(database, 9)
    poison = {ids[0]: "first", ids[4]: "middle", ids[8]: "last"}

    def work(jobs: Sequence[Job]) -> Sequence[Outcome]:
        for job in jobs:
            if job.id in poison:
                raise RuntimeError(poison[job.id])
        return [Done() for _ in jobs]

    async with bench(database, answer(work)) as one, one.running(dispatches=False):
        await run(one, 9)
        (ended,) = one.of(OperationEnded)
    errors = {row["id"]: row["last_error"] for row in read_all(database, ids) if row["status"] != "Uploaded"}
    assert errors == {key: f"RuntimeError: {text}" for key, text in poison.items()}
    assert ended.result == "failed"


WRONG: dict[str, Any] = {
    "too few": lambda jobs: [Done() for _ in jobs[1:]],
    "too many": lambda jobs: [Done() for _ in [*jobs, None]],
    "nothing": lambda _jobs: None,
    "another type": lambda jobs: ["done" for _ in jobs],
    "one of another type": lambda jobs: [*(Done() for _ in jobs[1:]), None],
    "a class": lambda jobs: [Done for _ in jobs],
    "not a list": lambda _jobs: 5,
}


@pytest.mark.parametrize("what", WRONG)
async def test_an_answer_of_the_wrong_shape_is_the_rows_error(database: Database, what: str) -> None:
    """The service lives on, and the row says what the handler should have returned."""
    insert(database, 3)
    async with bench(database, answer(WRONG[what])) as one, one.running(dispatches=False):
        await run(one, 3)
        assert one.of(OperationEnded)[0].result == "failed"
    rows = read_all(database)
    assert {row["status"] for row in rows} == {"Pending"}
    assert {row["attempts"] for row in rows} == {1}
    assert all(row["last_error"].startswith("TypeError: ") for row in rows)


async def test_the_last_attempt_fails_for_good(database: Database) -> None:
    (key,) = insert(database, attempts=2)
    async with bench(database, answer(lambda _jobs: [Retry("down")])) as one, one.running(dispatches=False):
        await run(one, 1, Limits(max_attempts=3))
    (row,) = read_all(database, [key])
    assert (row["status"], row["attempts"], row["last_error"]) == ("Failed", 3, "down (gave up after 3 attempts)")


async def test_a_handler_can_read_how_long_it_has(database: Database) -> None:
    """A sync that has more pages than time ends in order, and a client waits for no longer than it may."""
    left_s: list[float] = []

    def note(jobs: Sequence[Job]) -> Sequence[Outcome]:
        left_s.append(anyio.current_effective_deadline() - anyio.current_time())
        return [Done() for _ in jobs]

    insert(database, 1)
    async with bench(database, answer(note)) as one, one.running(dispatches=False):
        await run(one, 1, Limits(timeout_s=70))
    assert 0 < left_s[0] <= 70


@pytest.mark.parametrize("splits", [False, True])
async def test_one_deadline_for_the_whole_operation(database: Database, splits: bool) -> None:
    """Its splits included: what was answered in time stays answered, the rest is tried again."""
    ids = insert(database, 4)

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        if splits and len(jobs) > 2:
            raise ValueError("split me")
        if not splits or jobs[0].id == ids[2]:
            await anyio.Event().wait()
        return [Done() for _ in jobs]

    async with bench(database, handler) as one, one.running(dispatches=False):
        await run(one, 4, Limits(timeout_s=0.1))
        (ended,) = one.of(OperationEnded)
    rows = read_all(database, ids)
    late = {"Pending": 2, "Uploaded": 2} if splits else {"Pending": 4}
    assert {status: [row["status"] for row in rows].count(status) for status in late} == late
    assert all(
        row["attempts"] == 1 and "operation_timeout" in row["last_error"] for row in rows if row["status"] == "Pending"
    )
    assert ended.result == "timeout"


async def test_a_new_operation_timeout_counts_for_calls_under_way(database: Database) -> None:
    """Lowered, a call ends by the new one: the rescue goes by it too. Raised, the old one ends nobody."""
    ids = insert(database, 2)
    work = Work()
    async with bench(database, work) as one, one.running(dispatches=False) as crew:
        jobs = await one.claim(2)
        for job in jobs:
            one.start(crew, [job], Limits(timeout_s=60))
        one.executor.prolong(3600 - 60)  # it counts before the call has begun, too
        await quiet(work, 2)
        one.executor.prolong(1 - 3600)
        one.executor.prolong(-1)
        await until_async(lambda: len(one.of(OperationEnded)) == 2, what="both calls to end")
        one.executor.prolong(1)  # nobody is under way any more
    assert [event.result for event in one.of(OperationEnded)] == ["timeout", "timeout"]
    errors = {row["last_error"] for row in read_all(database, ids)}
    assert errors == {"The handler did not end within 0 s (operation_timeout)."}


@pytest.mark.parametrize(
    ("error", "is_gated", "waits_s"),
    [
        (Unavailable("API down", reason="outage"), True, 0),
        (Unavailable("API down", reason="outage"), False, 5),
        (Unavailable("API down", reason="throttled", wait_s=60.0), False, 60),
        (Unreachable("database down"), True, 5),
    ],
)
async def test_an_outage_is_not_the_orders_fault(
    database: Database, error: Exception, is_gated: bool, waits_s: float
) -> None:
    """No attempt is counted; behind a gate the row is due at once, because the gate holds it back."""
    insert(database, 3, attempts=9)

    def work(_jobs: Sequence[Job]) -> Sequence[Outcome]:
        raise error

    async with bench(database, answer(work), gate=Open() if is_gated else None) as one, one.running(dispatches=False):
        await run(one, 3, Limits(max_attempts=10))
    for row in read_all(database):
        assert (row["status"], row["attempts"]) == ("Pending", 9)
        wait_s = (row["scheduled_at"] - row["updated_at"]).total_seconds()
        assert waits_s - 1 < wait_s <= waits_s


class Open:
    async def admit(self) -> None:
        return None

    async def withdraw(self) -> None:
        return None


@pytest.mark.parametrize("is_releasing", [True, False])
async def test_a_cancelled_batch_is_released_at_shutdown_and_left_when_the_session_is_lost(
    database: Database, is_releasing: bool
) -> None:
    """Released rows cost no attempt; rows of a lost session are being rescued by somebody."""
    insert(database, 3)
    work = Work()
    async with bench(database, work) as one, anyio.create_task_group() as group:
        group.start_soon(one.completer.run)
        jobs = await one.claim(3)
        one.is_releasing = is_releasing
        async with Crew.gathered() as crew:
            one.start(crew, jobs)
            await until_async(lambda: work.active == 1, what="the handler")
            crew.cancel()
        await one.completer.flush()
        rows = read_all(database)
        group.cancel_scope.cancel("the test is over")
    assert one.slots.active == 0
    assert [event.result for event in one.of(OperationEnded)] == ["cancelled"]
    assert {(row["status"], row["attempts"]) for row in rows} == {("Pending", 0) if is_releasing else ("Processing", 1)}


async def test_outcomes_that_were_known_before_the_cancel_are_written(database: Database) -> None:
    """Half a batch was done when the shutdown came: it is not uploaded again."""
    ids = insert(database, 4)

    async def handler(jobs: Sequence[Job]) -> Sequence[Outcome]:
        if len(jobs) > 2:
            raise ValueError("split me")
        if jobs[0].id == ids[2]:
            await anyio.Event().wait()
        return [Done() for _ in jobs]

    async with bench(database, handler) as one, one.running(dispatches=False) as crew:
        jobs = await one.claim(4)
        one.is_releasing = True
        one.start(crew, jobs)
        await anyio.wait_all_tasks_blocked()
        crew.cancel()
    assert [row["status"] for row in read_all(database, ids)] == ["Uploaded", "Uploaded", "Pending", "Pending"]


async def test_a_result_for_a_row_that_was_taken_away_is_dropped(database: Database) -> None:
    insert(database)
    work = Work()
    async with bench(database, work) as one, one.running(dispatches=False) as crew:
        jobs = await one.claim(1)
        one.start(crew, jobs)
        await until_async(lambda: work.active == 1, what="the handler")
        database.execute("UPDATE orders_inbox SET status = 'Pending', claim_id = NULL")
        work.open.set()
        await until_async(lambda: one.slots.active == 0, what="its end")
    assert [(row["status"], row["attempts"]) for row in read_all(database)] == [("Pending", 1)]
