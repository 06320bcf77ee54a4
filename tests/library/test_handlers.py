"""A program's functions are called with what they ask for, and what they return is what becomes of the row."""

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import anyio
import pytest
from conftest import Database
from library.invoices import Invoices, listener_on
from pydantic import BaseModel, Field
from waiting import until_async

from listener import Done, Fail, Job, Retry, Snooze
from listener.library.threads import NoThread, Threads

pytestmark = pytest.mark.anyio


class Customer(BaseModel):
    name: str


class Invoice(BaseModel):
    number: int = Field(alias="id")
    amount: float = Field(gt=0)
    customer: Customer


@dataclass
class Plain:
    id: int
    amount: float

    def __post_init__(self) -> None:
        if self.amount == 13:
            raise RuntimeError("not thirteen")


@pytest.fixture
def invoices(database: Database) -> Invoices:
    return Invoices(database)


async def test_a_function_gets_one_job_with_all_columns_of_the_row(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    seen: list[Job] = []

    @app.queue("invoices")
    async def send(job: Job) -> None:
        seen.append(job)

    [key] = invoices.insert(5)
    async with app:
        await invoices.until("Done")
    assert (seen[0].queue, seen[0].id, seen[0].attempt) == ("invoices", key, 1)
    assert set(seen[0].row) == {"id", "amount", "customer", "sent_at", "tags", "created_at"}


async def test_a_row_inserted_later_is_announced(database: Database, invoices: Invoices) -> None:
    """The safety poll is 15 s away."""
    app = listener_on(database)

    @app.queue("invoices")
    async def send(job: Job) -> None:
        pass

    invoices.insert(1)
    async with app:
        await invoices.until("Done")
        invoices.insert(2)
        await invoices.until("Done", "Done")


async def test_a_batch_gets_a_list_and_answers_for_each(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    sizes: list[int] = []

    @app.queue("invoices", batch_size=3, concurrency=1)
    async def send(jobs: list[Job]) -> list[Done | Retry | Fail]:
        sizes.append(len(jobs))
        return [Fail("zero") if job.row["amount"] == 0 else Done() for job in jobs]

    invoices.insert(1, 0, 2, 3)
    async with app:
        await invoices.until("Done", "Failed", "Done", "Done")
    assert sizes == [3, 1]
    assert invoices.errors() == [None, "zero", None, None]


async def test_a_batch_that_returns_nothing_is_done(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)

    @app.queue("invoices", batch_size=5)
    async def send(jobs: list[Job]) -> None:
        pass

    invoices.insert(1, 2)
    async with app:
        await invoices.until("Done", "Done")


async def test_a_batch_is_committed_by_itself(database: Database, invoices: Invoices) -> None:
    """250 rows are three calls and three commits; what the second call meets takes nothing back from the first."""
    app = listener_on(database, http=None)
    calls: list[int] = []

    @app.queue("invoices", batch_size=100, concurrency=1, max_attempts=1)
    async def send(jobs: list[Job]) -> list[Done | Fail]:
        calls.append(len(jobs))
        return [Fail("no good") if job.row["amount"] == 150 else Done() for job in jobs]

    invoices.insert(*range(1, 251))
    async with app:
        await invoices.until(*["Done"] * 149, "Failed", *["Done"] * 100)
    assert calls == [100, 100, 50]


async def test_a_plain_function_runs_in_a_thread(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    threads: list[int] = []
    together = threading.Barrier(2, timeout=20)

    @app.queue("invoices", concurrency=2)
    def send(job: Job) -> None:
        together.wait()  # both at once, and the event loop goes on
        threads.append(threading.get_ident())

    invoices.insert(1, 2)
    async with app:
        await invoices.until("Done", "Done")
    assert threading.get_ident() not in threads


async def test_a_plain_function_may_return_an_awaitable(database: Database, invoices: Invoices) -> None:
    """A decorator that is no coroutine function hides one."""
    app = listener_on(database)

    async def later(job: Job) -> Fail:
        return Fail("said later")

    app.queue("invoices")(lambda job: later(job))  # noqa: PLW0108
    invoices.insert(1)
    async with app:
        await invoices.until("Failed")
    assert invoices.errors() == ["said later"]


async def test_outcomes(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    answers = {1: Done(), 2: Retry("later", delay_s=60), 3: Snooze(60, "not yet"), 4: Fail("never"), 5: None}

    @app.queue("invoices")
    async def send(job: Job) -> Any:
        return answers[int(job.row["amount"])]

    invoices.insert(1, 2, 3, 4, 5)
    async with app:
        await invoices.until("Done", "Pending", "Pending", "Failed", "Done")
    assert [attempts for _, attempts in invoices.statuses()] == [1, 1, 0, 1, 1]
    assert invoices.errors() == [None, "later", "not yet", "never", None]


async def test_done_writes_the_declared_columns(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)

    @app.queue("invoices", results=("sent_at", "customer"))
    async def send(job: Job) -> Done:
        return Done({"sent_at": "2026-11-22T10:00Z", "customer": {"name": "B"}})

    invoices.insert(1)
    async with app:
        await invoices.until("Done")
    assert database.execute("SELECT sent_at = '2026-11-22T10:00Z', customer FROM invoices") == [(True, {"name": "B"})]


#: JSON within JSON that Python gives up writing.
DEEP: list[Any] = functools.reduce(lambda inner, _: [inner], range(100_000), [])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (7, "the handler returned 7; return None, Done, Retry, Snooze or Fail"),
        (Done({"amount": 1}), "the handler's Done names amount, which is not declared; declared: results=(sent_at)"),
        (Done("sent_at"), "the handler returned Done(values='sent_at'); Done takes column → value"),
        (Done({"sent_at": object}), "The result could not be written: queue invoices: an outcome cannot be written"),
        (Done({"sent_at": DEEP}), "The result could not be written: queue invoices: an outcome cannot be written"),
        (Done({"sent_at": "soon"}), "The result could not be written: "),
        (Snooze(Decimal(5)), "the handler returned Snooze(delay_s=Decimal('5'), reason=''); delay_s takes seconds"),
        (Snooze(float("nan")), "the handler returned Snooze(delay_s=nan, reason=''); delay_s takes seconds"),
        (Snooze(None), "the handler returned Snooze(delay_s=None, reason=''); delay_s takes seconds"),
        (Snooze(1e10), "the handler returned Snooze(delay_s=10000000000.0, reason=''); delay_s takes seconds"),
        (Fail(None), "the handler returned Fail(error=None); its error takes the text that a person reads"),
        (Retry(7), "the handler returned Retry(error=7, delay_s=None); its error takes the text that a person reads"),
        (Retry("x", "5"), "the handler returned Retry(error='x', delay_s='5'); delay_s takes seconds"),
    ],
)
async def test_a_wrong_answer_fails_its_row(database: Database, invoices: Invoices, answer: Any, text: str) -> None:
    """A second call would answer the same."""
    app = listener_on(database)

    @app.queue("invoices", results=["sent_at"])
    async def send(job: Job) -> Any:
        return answer if job.row["amount"] == 1 else None

    invoices.insert(1, 2)
    async with app:
        await invoices.until("Failed", "Done")
    assert str(invoices.errors()[0]).startswith(text)
    assert invoices.statuses()[0] == ("Failed", 1)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ([Done()], "the handler returned 1 outcomes for 2 jobs; return one for each, in order"),
        (Done(), "the handler returned Done(values={}) for a batch; return None or a list of outcomes"),
    ],
)
async def test_a_batch_that_answers_wrongly_is_not_called_again(
    database: Database, invoices: Invoices, answer: Any, text: str
) -> None:
    app = listener_on(database)
    calls: list[int] = []

    @app.queue("invoices", batch_size=2)
    async def send(jobs: list[Job]) -> Any:
        calls.append(len(jobs))
        return answer

    invoices.insert(1, 2)
    async with app:
        await invoices.until("Failed", "Failed")
    assert (calls, invoices.errors()) == ([2], [text, text])


async def test_what_it_raises_is_the_rows_error_and_is_logged_with_its_traceback(
    database: Database, invoices: Invoices, caplog: pytest.LogCaptureFixture
) -> None:
    app = listener_on(database)

    @app.queue("invoices", max_attempts=1)
    async def send(job: Job) -> None:
        raise RuntimeError("no printer")

    invoices.insert(1)
    async with app:
        await invoices.until("Failed")
    assert invoices.errors() == ["RuntimeError: no printer (gave up after 1 attempts)"]
    [record] = [record for record in caplog.records if record.message.startswith("Handler raised")]
    assert record.name == "listener"
    assert record.exc_info is not None
    assert "ids=[1] attempts=[1]" in record.message


class Panic(BaseException):
    """As extensions in other languages raise, which no `except Exception` is to catch."""


class Mute(Exception):  # noqa: N818
    """Has no text to show."""

    def __str__(self) -> str:
        raise Panic("no text")


async def _awaits_what_was_cancelled() -> None:
    task = asyncio.create_task(asyncio.Event().wait())  # noqa: TID251 - as somebody else's program does
    task.cancel()
    await task


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def _ends_the_program() -> None:
    sys.exit(3)


async def _shows_nothing() -> None:
    raise Mute


async def _panics() -> None:
    raise Panic("core")


async def _panics_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_panics())


@pytest.mark.parametrize("is_batch", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize(
    ("surprise", "text"),
    [
        (_awaits_what_was_cancelled, "CancelledError: "),
        (_cancels_itself, "CancelledError: "),
        (_ends_the_program, "SystemExit: 3"),
        (_panics, "Panic: core"),
        (_panics_in_a_group, "BaseExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"),
        (_shows_nothing, "Mute, whose text cannot be had: Panic"),
    ],
)
async def test_what_would_end_the_program_is_the_rows_error_too(
    database: Database, invoices: Invoices, surprise: Callable[[], Awaitable[None]], text: str, is_batch: bool
) -> None:
    app = listener_on(database)

    async def one(job: Job) -> None:
        if job.row["amount"] == 1:
            await surprise()

    async def many(jobs: list[Job]) -> None:
        for job in jobs:
            await one(job)

    if is_batch:
        app.queue("invoices", max_attempts=1, batch_size=9)(many)
    else:
        app.queue("invoices", max_attempts=1)(one)
    invoices.insert(0, 1, 2)
    async with app:
        await invoices.until("Done", "Failed", "Done")
        invoices.insert(3)
        await invoices.until("Done", "Failed", "Done", "Done")
    assert str(invoices.errors()[1]).startswith(text)


async def test_a_thread_cannot_end_the_program(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)

    @app.queue("invoices", max_attempts=1)
    def send(job: Job) -> None:
        sys.exit("no printer")

    invoices.insert(1)
    async with app:
        await invoices.until("Failed")
    assert invoices.errors() == ["SystemExit: no printer (gave up after 1 attempts)"]


async def test_a_call_that_takes_too_long_is_cancelled_by_the_queues_own_timeout(
    database: Database, invoices: Invoices
) -> None:
    app = listener_on(database)

    @app.queue("invoices", timeout=0.05, max_attempts=1)
    async def send(job: Job) -> None:
        await anyio.sleep_forever()

    invoices.insert(1)
    async with app:
        await invoices.until("Failed")
    assert " s (timeout of @queue('invoices'))." in str(invoices.errors()[0])


async def test_a_thread_that_was_given_up_keeps_its_place(database: Database, invoices: Invoices) -> None:
    """The row is free to be tried again, but not beside the call that still runs; that counts no attempt."""
    app = listener_on(database)
    release = threading.Event()
    calls: list[int] = []

    @app.queue("invoices", timeout=0.05, concurrency=1)
    def send(job: Job) -> None:
        calls.append(job.id)
        release.wait(20)

    try:
        first, _ = invoices.insert(1, 2)
        async with app:
            await until_async(
                lambda: any("given up" in str(text) for text in invoices.errors()),
                what=f"no thread {invoices.errors()}",
            )
            # between two tries; one that finds no thread free counts no attempt
            await invoices.until_counted(("Pending", 1), ("Pending", 0))
            assert calls == [first]
    finally:
        release.set()


async def test_a_typed_row_has_only_the_models_columns(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    seen: list[Invoice] = []

    @app.queue("invoices")
    async def send(job: Job[Invoice]) -> None:
        seen.append(job.row)

    [key] = invoices.insert(5, customer='{"name": "A"}')
    async with app:
        await invoices.until("Done")
    assert seen == [Invoice(id=key, amount=5.0, customer=Customer(name="A"))]


async def test_a_row_that_is_none_fails_at_once_with_all_faults_and_the_rest_of_its_batch_runs(
    database: Database, invoices: Invoices
) -> None:
    app = listener_on(database)
    seen: list[list[int]] = []

    @app.queue("invoices", batch_size=10)
    async def send(jobs: list[Job[Invoice]]) -> None:
        seen.append([job.row.number for job in jobs])

    database.execute('INSERT INTO invoices (amount, customer) VALUES (-1, \'{"name": 3}\'), (1, \'{"name": "A"}\')')
    async with app:
        await invoices.until("Failed", "Done")
    assert seen == [[2]]
    assert invoices.errors()[0] == (
        "The row is no Invoice:\n"
        "amount: Decimal('-1'): Input should be greater than 0\n"
        "customer.name: 3: Input should be a valid string"
    )


async def test_a_dataclass_is_a_model_too_and_its_own_surprise_is_a_fault(
    database: Database, invoices: Invoices
) -> None:
    app = listener_on(database)
    seen: list[Plain] = []

    @app.queue("invoices")
    async def send(job: Job[Plain]) -> None:
        seen.append(job.row)

    invoices.insert(5, 13)
    async with app:
        await invoices.until("Done", "Failed")
    assert seen == [Plain(id=1, amount=5.0)]
    assert invoices.errors()[1] == "The row is no Plain:\nRuntimeError: not thirteen"


async def test_several_queues_share_a_process_and_none_is_cut_by_the_services_limit(database: Database) -> None:
    """20 and 5 calls at once, although max_concurrent_operations stands at 15."""
    app = listener_on(database)
    invoices, emails = Invoices(database), Invoices(database, "emails")
    active = {"invoices": 0, "emails": 0}
    full = anyio.Event()

    async def wait(job: Job) -> None:
        active[job.queue] += 1
        if active == {"invoices": 20, "emails": 5}:
            full.set()
        await full.wait()

    app.queue("invoices", concurrency=20)(wait)
    app.queue("emails", concurrency=5)(wait)
    invoices.insert(*range(20))
    emails.insert(*range(5))
    async with app:
        with anyio.fail_after(20):
            await full.wait()
        await invoices.until(*["Done"] * 20)


async def test_a_limit_that_somebody_set_counts(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    most = active = 0

    @app.queue("invoices", concurrency=20)
    async def send(job: Job) -> None:
        nonlocal most, active
        active += 1
        most = max(most, active)
        await anyio.wait_all_tasks_blocked()
        active -= 1

    database.execute("UPDATE configuration_params SET param_value = '2' WHERE param_key = 'max_concurrent_operations'")
    invoices.insert(*range(10))
    async with app:
        await invoices.until(*["Done"] * 10)
    assert most == 2


async def test_a_thread_that_never_began_gives_its_place_back() -> None:
    threads = Threads(1)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await threads.run(print, "never")
    assert await threads.run(str, 1) == "1"


async def test_no_place_is_said_and_not_waited_for() -> None:
    threads = Threads(1)
    release = threading.Event()
    call: Callable[[float], bool] = release.wait
    async with anyio.create_task_group() as group:
        group.start_soon(threads.run, call, 20)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(NoThread, match="all 1 threads of the queue run calls"):
            await threads.run(str, 1)
        release.set()
    assert await threads.run(str, 1) == "1"
