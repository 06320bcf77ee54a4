"""A settle writes what the design says, only while the very claim still holds, and never touches the payload."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import anyio
import pytest
from conftest import Database
from queues import SESSION, counts, engine_connection, insert, open_pool, read, read_all, statement
from waiting import until_async

from listener.core.errors import DatabaseError
from listener.core.events import Event, JobFailed, Settled, Trouble
from listener.core.job import Job, Settle, Settlement
from listener.db.queue import QueueTable
from listener.engine.completer import Completer
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio


@pytest.fixture
async def table(database: Database) -> AsyncIterator[QueueTable]:
    async with open_pool(database) as pool:
        yield QueueTable(pool, UPLOAD)


async def claimed(table: QueueTable, count: int = 1) -> list[Job]:
    jobs = (await table.claim(limit=count, session_key=SESSION)).jobs
    assert len(jobs) == count
    return jobs


def every_kind(job: Job) -> list[Settlement]:
    return [
        Settlement(job=job, kind=kind, delay_s=30.0, error="no", values={"shipstation_order_id": "9"})
        for kind in Settle
    ]


LOST: dict[str, str] = {
    "claimed again": "UPDATE orders_inbox SET claim_id = nextval('listener_claim_id')",
    "rescued": "UPDATE orders_inbox SET status = 'Pending', claim_id = NULL, claimed_by = NULL, claimed_at = NULL",
    "marked done by a person": "UPDATE orders_inbox SET status = 'Uploaded'",
    "set aside by a person": "UPDATE orders_inbox SET status = 'On hold'",
    "deleted": "DELETE FROM orders_inbox",
}


@pytest.mark.parametrize("how", LOST)
async def test_a_lost_claim_writes_nothing(database: Database, table: QueueTable, how: str) -> None:
    """Each kind of settle; the loser is told."""
    insert(database)
    (job,) = await claimed(table)
    database.execute(LOST[how])
    before = read_all(database)

    for settlement in every_kind(job):
        settled = await table.settle([settlement])
        assert (settled.lost, settled.reopened) == ([job], [])

    assert read_all(database) == before


async def test_an_older_claim_of_the_row_writes_nothing_beside_the_newer(database: Database, table: QueueTable) -> None:
    """Both in one statement: the newer one is written, the older one is told that it lost."""
    insert(database)
    (old,) = await claimed(table)
    assert await table.release_strays(session_key=SESSION, held=[]) == 1
    (new,) = await claimed(table)

    settled = await table.settle(
        [Settlement(job=old, kind=Settle.FAIL, error="late"), Settlement(job=new, kind=Settle.COMPLETE)]
    )

    assert settled.lost == [old]
    assert counts(database) == {"Uploaded": 1}


WRITTEN: dict[Settle, dict[str, Any]] = {
    Settle.COMPLETE: {"status": "Uploaded", "attempts": 3, "last_error": None, "shipstation_order_id": "9"},
    Settle.FAIL: {"status": "Failed", "attempts": 3, "last_error": "new", "shipstation_order_id": "1"},
    Settle.RETRY: {"status": "Pending", "attempts": 3, "last_error": "new", "shipstation_order_id": "1"},
    Settle.SNOOZE: {"status": "Pending", "attempts": 2, "last_error": "new", "shipstation_order_id": "1"},
    Settle.RELEASE: {"status": "Pending", "attempts": 2, "last_error": "old", "shipstation_order_id": "1"},
}


@pytest.mark.parametrize("kind", Settle)
async def test_each_kind_writes_its_columns(database: Database, table: QueueTable, kind: Settle) -> None:
    """Retry and snooze wait, release is due as it was; only what is over has a finish; nobody holds the row."""
    (key,) = insert(database, attempts=2, last_error="old", shipstation_order_id="1", due="now() - interval '1 hour'")
    (job,) = await claimed(table)
    before = read(database, key)

    settled = await table.settle(
        [Settlement(job=job, kind=kind, delay_s=60.0, error="new", values={"shipstation_order_id": "9"})]
    )

    row = read(database, key)
    assert {name: row[name] for name in WRITTEN[kind]} == WRITTEN[kind]
    assert (row["claim_id"], row["claimed_by"], row["claimed_at"]) == (None, None, None)
    assert (row["finished_at"] is not None) == (kind in (Settle.COMPLETE, Settle.FAIL))
    wait_s = (row["scheduled_at"] - row["updated_at"]).total_seconds()
    if kind in (Settle.RETRY, Settle.SNOOZE):
        assert 59 < wait_s <= 60
    else:
        assert row["scheduled_at"] == before["scheduled_at"]
    assert row["updated_at"] > before["updated_at"]
    assert row["revision"] == before["revision"]
    assert (settled.lost, settled.reopened) == ([], [job] if kind is Settle.RELEASE else [])


async def test_attempts_never_become_negative(database: Database, table: QueueTable) -> None:
    """A person may have set them to 0 meanwhile."""
    (key,) = insert(database)
    (job,) = await claimed(table)
    database.execute("UPDATE orders_inbox SET attempts = 0")
    await table.settle([Settlement(job=job, kind=Settle.SNOOZE)])

    assert read(database, key)["attempts"] == 0


async def test_a_snooze_without_a_reason_keeps_the_last_error(database: Database, table: QueueTable) -> None:
    (key,) = insert(database, last_error="what went wrong before")
    (job,) = await claimed(table)
    await table.settle([Settlement(job=job, kind=Settle.SNOOZE, delay_s=5)])

    assert read(database, key)["last_error"] == "what went wrong before"


@pytest.mark.parametrize("kind", Settle)
async def test_an_edit_in_flight_is_work_again(database: Database, table: QueueTable, kind: Settle) -> None:
    """Whatever came out of the old content: due at once, attempts 0, and the engine is told."""
    (key,) = insert(database, attempts=5, payload="{}", due="now() - interval '1 hour'")
    (job,) = await claimed(table)
    database.execute("UPDATE orders_inbox SET payload = '{\"new\": true}'")

    settled = await table.settle(
        [Settlement(job=job, kind=kind, delay_s=300.0, error="old news", values={"shipstation_order_id": "9"})]
    )

    row = read(database, key)
    assert (row["status"], row["attempts"], row["revision"]) == ("Pending", 0, 1)
    assert (row["claim_id"], row["finished_at"]) == (None, None)
    assert settled.reopened == [job]
    # what a completed call brought back is true all the same: the next upload updates that order
    assert row["shipstation_order_id"] == ("9" if kind is Settle.COMPLETE else None)
    (again,) = await claimed(table)
    assert (again.attempt, again.revision, again.row["payload"]) == (1, 1, {"new": True})


async def test_a_row_that_a_person_retries_in_flight_runs_once_more_after_it(
    database: Database, table: QueueTable
) -> None:
    """It is not taken from its handler: two of them at once could send the older content last."""
    (key,) = insert(database, attempts=5)
    (job,) = await claimed(table)
    database.execute("UPDATE orders_inbox SET status = 'Pending'")

    assert (await table.claim(limit=1, session_key=SESSION)).jobs == []
    settled = await table.settle([Settlement(job=job, kind=Settle.COMPLETE)])

    assert settled.reopened == [job]
    assert (read(database, key)["status"], read(database, key)["attempts"]) == ("Pending", 0)


async def test_an_edit_that_also_reschedules_is_not_run_before_its_time(database: Database, table: QueueTable) -> None:
    """scheduled_at means: not before."""
    insert(database, payload="{}")
    (job,) = await claimed(table)
    database.execute("UPDATE orders_inbox SET payload = '[]', scheduled_at = now() + interval '1 hour'")

    settled = await table.settle([Settlement(job=job, kind=Settle.COMPLETE)])

    assert settled.reopened == []
    claim = await table.claim(limit=1, session_key=SESSION)
    assert claim.jobs == []
    assert claim.next_due_s is not None
    assert claim.next_due_s > 3_500


BAD: dict[str, Callable[[Job], Settlement]] = {
    "a time that is none": lambda job: Settlement(
        job=job, kind=Settle.COMPLETE, values={"uploaded_at": "yesterdayish"}
    ),
    "NUL in a value": lambda job: Settlement(job=job, kind=Settle.COMPLETE, values={"shipstation_order_id": "a\0b"}),
    "half a surrogate pair": lambda job: Settlement(
        job=job, kind=Settle.COMPLETE, values={"shipstation_order_id": "\udc80"}
    ),
    "no JSON": lambda job: Settlement(job=job, kind=Settle.COMPLETE, values={"shipstation_order_id": object()}),
    "not a number": lambda job: Settlement(
        job=job, kind=Settle.COMPLETE, values={"shipstation_order_id": float("nan")}
    ),
    "an endless delay": lambda job: Settlement(job=job, kind=Settle.RETRY, delay_s=float("inf")),
    "a delay that is no number": lambda job: Settlement(job=job, kind=Settle.RETRY, delay_s="soon"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", BAD)
async def test_one_bad_value_refuses_the_whole_statement(database: Database, table: QueueTable, what: str) -> None:
    """All or nothing, and always the same error: the completer then looks for the culprit."""
    insert(database, 3)
    jobs = await claimed(table, 3)
    before = read_all(database)

    with pytest.raises(DatabaseError):
        await table.settle([*(Settlement(job=job, kind=Settle.COMPLETE) for job in jobs[:2]), BAD[what](jobs[2])])

    assert read_all(database) == before


@pytest.mark.parametrize("position", [0, 1, 4, 6])
@pytest.mark.parametrize("what", BAD)
async def test_a_refused_value_costs_only_its_own_job(
    database: Database, table: QueueTable, what: str, position: int
) -> None:
    """It fails with the database's words; everybody else is done."""
    ids = insert(database, 7)
    jobs = await claimed(table, 7)
    settlements = [Settlement(job=job, kind=Settle.COMPLETE) for job in jobs]
    settlements[position] = BAD[what](jobs[position])
    events: list[Event] = []

    await complete(table, settlements, events)

    rows = read_all(database, ids)
    assert [row["status"] for row in rows] == ["Failed" if n == position else "Uploaded" for n in range(7)]
    assert rows[position]["last_error"].startswith("The result could not be written: ")
    assert sum(sum(event.outcomes.values()) for event in events if isinstance(event, Settled)) == 7
    assert [event.id for event in events if isinstance(event, JobFailed)] == [str(ids[position])]
    assert len([event for event in events if isinstance(event, Trouble)]) == 1


async def complete(table: QueueTable, settlements: list[Settlement], events: list[Event]) -> None:
    completer = Completer(
        table, events.append, on_reopened=lambda: None, on_delayed=lambda _delay_s: None, on_room=lambda: None
    )
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(completer.run)
            completer.put(settlements, lambda: None)
            await completer.flush()
            group.cancel_scope.cancel("written")


async def test_values_of_python_types_are_written_as_the_columns_type(database: Database, table: QueueTable) -> None:
    """A handler need not know how JSON says a time or a price; delays may be whole numbers."""
    (first, second) = insert(database, 2)
    jobs = await claimed(table, 2)
    moment = dt.datetime(2026, 11, 21, 10, 0, 0, 123456, dt.UTC)

    await table.settle(
        [
            Settlement(
                job=jobs[0],
                kind=Settle.COMPLETE,
                values={"uploaded_at": moment, "shipstation_order_id": Decimal("1.50")},
            ),
            Settlement(job=jobs[1], kind=Settle.RETRY, delay_s=30, values={"shipstation_order_id": None}),
        ]
    )

    assert read(database, first)["uploaded_at"] == moment
    assert read(database, first)["shipstation_order_id"] == "1.50"
    assert read(database, second)["status"] == "Pending"


async def test_a_value_of_null_is_written_and_one_that_is_not_declared_is_not(
    database: Database, table: QueueTable
) -> None:
    (key,) = insert(database, shipstation_order_id="1", order_key="mine")
    (job,) = await claimed(table)
    await table.settle(
        [Settlement(job=job, kind=Settle.COMPLETE, values={"shipstation_order_id": None, "priority": 1, "id": 5})]
    )

    row = read(database, key)
    assert (row["shipstation_order_id"], row["order_key"], row["priority"]) == (None, "mine", 100)


async def test_errors_are_stored_whatever_they_quote(database: Database, table: QueueTable) -> None:
    """An API may send anything, and an exception may be anything."""
    texts = ["NUL \0 and half \udc80 a pair", "quotes ' \" { } % \\ \n", "", "x" * 100_000]
    ids = insert(database, 5)
    jobs = await claimed(table, 5)

    await table.settle(
        [
            *(Settlement(job=job, kind=Settle.FAIL, error=text) for job, text in zip(jobs, texts, strict=False)),
            Settlement(job=jobs[4], kind=Settle.FAIL, error=ValueError("not a text")),  # type: ignore[arg-type]
        ]
    )

    written = [row["last_error"] for row in read_all(database, ids)]
    assert written == ["NUL \N{SYMBOL FOR NULL} and half \\udc80 a pair", *texts[1:], "not a text"]


async def test_a_thousand_mixed_outcomes_in_one_statement(database: Database, table: QueueTable) -> None:
    """Each job gets its own, lost ones and edited ones among them."""
    insert(database, 1_000, payload="{}")
    jobs = await claimed(table, 1_000)
    kinds = list(Settle)
    lost = {job.id for job in jobs[::10]}
    edited = {job.id for job in jobs[5::10]}
    database.execute("UPDATE orders_inbox SET claim_id = -1 WHERE id = ANY (%s)", [list(lost)])
    database.execute("UPDATE orders_inbox SET payload = '[]' WHERE id = ANY (%s)", [list(edited)])

    settled = await table.settle(
        [
            Settlement(
                job=job,
                kind=kinds[n % 5],
                delay_s=float(n + 1) if kinds[n % 5] in (Settle.RETRY, Settle.SNOOZE) else 0.0,
                error=f"error of {job.id}" if n % 3 else None,
                values={"shipstation_order_id": f"order of {job.id}"},
            )
            for n, job in enumerate(jobs)
        ]
    )

    words = {Settle.COMPLETE: "Uploaded", Settle.FAIL: "Failed"}
    rows = {row["id"]: row for row in read_all(database)}
    for n, job in enumerate(jobs):
        kind, row = kinds[n % 5], rows[job.id]
        if job.id in lost:
            assert row["status"] == "Processing"
            continue
        assert row["status"] == ("Pending" if job.id in edited else words.get(kind, "Pending"))
        if kind is Settle.COMPLETE:
            assert row["shipstation_order_id"] == f"order of {job.id}"
        elif n % 3 and kind is not Settle.RELEASE:
            assert row["last_error"] == f"error of {job.id}"
    assert {job.id for job in settled.lost} == lost
    assert {job.id for job in settled.reopened} == edited | {
        job.id for n, job in enumerate(jobs) if kinds[n % 5] is Settle.RELEASE and job.id not in lost
    }


async def test_claim_and_settle_never_rewrite_the_payload(database: Database, table: QueueTable) -> None:
    """Above 2 kB it lies in TOAST, and stays there: no new chunk, and the chunks are not even read by the settle."""
    insert(database, 20)
    database.execute(
        "UPDATE orders_inbox SET payload = jsonb_build_object('x', (SELECT string_agg(md5(n::text || id), '')"
        " FROM generate_series(1, 200) n))"
    )
    (toast,) = database.execute(
        "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'orders_inbox'::regclass"
    )[0]

    def chunks() -> Any:
        return database.execute(f"SELECT chunk_id, chunk_seq, xmin::text FROM {toast} ORDER BY 1, 2")

    before = chunks()
    for kind in (Settle.RETRY, Settle.SNOOZE, Settle.RELEASE, Settle.COMPLETE):
        jobs = await claimed(table, 20)
        await table.settle([Settlement(job=job, kind=kind, error="no") for job in jobs])

    assert len(before) >= 20
    assert chunks() == before


async def test_a_settle_waits_for_a_row_that_somebody_reads_for_update(database: Database, table: QueueTable) -> None:
    """It is not mistaken for a lost claim."""
    insert(database)
    (job,) = await claimed(table)
    other = database.connect()
    async with anyio.create_task_group() as group:
        with other.transaction():
            other.execute("SELECT FROM orders_inbox FOR UPDATE")
            group.start_soon(table.settle, [Settlement(job=job, kind=Settle.COMPLETE)])
            await until_async(
                lambda: database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"),
                what="the settle to wait",
            )
    assert counts(database) == {"Uploaded": 1}


async def test_settling_nothing_is_nothing(database: Database, table: QueueTable) -> None:
    settled = await table.settle([])
    assert (settled.lost, settled.reopened) == ([], [])


async def test_rows_of_one_claim_are_settled_each_by_itself(database: Database, table: QueueTable) -> None:
    """They share the claim_id; the row counts as well."""
    first, second = insert(database, 2)
    one, two = await claimed(table, 2)
    assert one.claim_id == two.claim_id

    await table.settle([Settlement(job=one, kind=Settle.COMPLETE)])

    assert [row["status"] for row in read_all(database, [first, second])] == ["Uploaded", "Processing"]


@pytest.fixture
def adopted(database: Database) -> int:
    """A row of an older table: no number of attempts, no revision."""
    database.execute("ALTER TABLE orders_inbox ALTER attempts DROP NOT NULL, ALTER revision DROP NOT NULL")
    (key,) = insert(database, attempts=None, revision=None)
    return key


async def test_a_row_without_a_revision_is_completed(database: Database, table: QueueTable, adopted: int) -> None:
    (job,) = await claimed(table)
    assert (job.attempt, job.revision) == (1, 0)
    await table.settle([Settlement(job=job, kind=Settle.COMPLETE)])
    row = read(database, adopted)
    assert (row["status"], row["attempts"], row["finished_at"] is None) == ("Uploaded", 1, False)


async def test_a_row_without_a_revision_waits_for_its_retry(
    database: Database, table: QueueTable, adopted: int
) -> None:
    (job,) = await claimed(table)
    await table.settle([Settlement(job=job, kind=Settle.RETRY, delay_s=300.0, error="no")])
    assert (await table.claim(limit=1, session_key=SESSION)).jobs == []
    assert read(database, adopted)["status"] == "Pending"


@pytest.mark.parametrize("change", ["payload = '[]'", "status = 'Pending'"], ids=["edited", "retried by hand"])
async def test_a_row_without_a_revision_that_changes_in_flight_is_work_again(
    database: Database, table: QueueTable, adopted: int, change: str
) -> None:
    (job,) = await claimed(table)
    database.execute(f"UPDATE orders_inbox SET {change}")
    await table.settle([Settlement(job=job, kind=Settle.COMPLETE)])
    row = read(database, adopted)
    assert (row["status"], row["attempts"], row["revision"]) == ("Pending", 0, 1)


async def test_what_is_usual_is_not_sent_and_means_the_same(database: Database, table: QueueTable) -> None:
    """No delay, no error, no values: a retry without any is due now, not never."""
    insert(database, 4)
    jobs = await claimed(table, 4)
    settled = await table.settle([Settlement(job=job, kind=Settle.RETRY) for job in jobs[:2]])
    assert settled.reopened == jobs[:2]
    await table.settle([Settlement(job=jobs[2], kind=Settle.COMPLETE), Settlement(job=jobs[3], kind=Settle.RELEASE)])
    rows = read_all(database)
    assert [row["status"] for row in rows] == ["Pending", "Pending", "Uploaded", "Pending"]
    assert [row["attempts"] for row in rows] == [1, 1, 1, 0]
    assert database.execute("SELECT bool_and(scheduled_at <= now()) FROM orders_inbox") == [(True,)]


def test_no_plan_walks_all_processing_rows(database: Database) -> None:
    """Statistics of a table without any make their index look like the shortest way to each row."""
    insert(database, 3_000)
    database.execute("VACUUM ANALYZE orders_inbox")
    conn = engine_connection(database)
    text = statement("settle").as_string(None)
    names = ("keys", "claims", "kinds", "revisions", "delays", "errors", "values")
    for number, name in enumerate(names, start=1):
        text = text.replace(f"%({name})s", f"${number}")
    conn.execute(f"PREPARE settle AS {text.replace('%%', '%')}")
    for mode in ("force_generic_plan", "force_custom_plan"):
        conn.execute(f"SET plan_cache_mode = {mode}")
        plan = str(conn.execute("EXPLAIN EXECUTE settle('{1}', '{1}', '{}', '{}', '{}', '{}', '{}')").fetchall())
        assert "orders_inbox_pkey" in plan
        assert "orders_inbox_processing" not in plan
