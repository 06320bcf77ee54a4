"""The quick claim takes what the claim would take, and nothing else; what it does not see, the claim does."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Database
from psycopg.rows import dict_row
from queues import SESSION, claim, due, engine_connection, insert, open_pool, read_all, statement

from listener.db.queue import QueueTable
from listener.workflows.queues import UPLOAD

SWITCHES = (
    "enable_nestloop",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_seqscan",
    "enable_indexscan",
    "enable_tidscan",
    "enable_sort",
)


@pytest.fixture
def conn(database: Database) -> psycopg.Connection[dict[str, Any]]:
    return engine_connection(database)


def quick(conn: psycopg.Connection[Any], limit: int, *, session_key: int = SESSION) -> list[int]:
    rows = conn.execute(statement("claim_quick"), {"limit": limit, "session_key": session_key}, prepare=True).fetchall()
    return sorted(row["job_key"] for row in rows)


@pytest.mark.parametrize("plan_mode", ["force_custom_plan", "force_generic_plan"])
def test_never_more_than_the_limit_and_the_first_ones_under_every_plan(database: Database, plan_mode: str) -> None:
    """Whatever joins and scans the planner may use."""
    for priority in (3, 1, 2):
        insert(database, 60, due="now() - random() * interval '1 hour'", priority=priority)
        insert(database, 20, due="now() + interval '1 hour'", priority=priority)
    insert(database, 100, status="Uploaded")
    wanted = due(database)
    conn = database.connect(row_factory=dict_row)
    for values in itertools.product(("on", "off"), repeat=len(SWITCHES)):
        with conn.transaction(force_rollback=True):
            for name, value in zip((*SWITCHES, "plan_cache_mode"), (*values, plan_mode), strict=True):
                conn.execute("SELECT set_config(%s, %s, true)", [name, value])
            assert quick(conn, 10) == sorted(wanted[:10]), values
            (taken,) = conn.execute("SELECT count(*) FROM orders_inbox WHERE status = 'Processing'").fetchall()
            assert taken["count"] == 10, values


def test_it_marks_the_row_as_the_claim_does(database: Database, conn: psycopg.Connection[Any]) -> None:
    ids = insert(database, 2, attempts=4, due="'2020-01-01'")
    assert quick(conn, 1) == ids[:1]
    claim(conn, 1)
    one, two = read_all(database, ids)
    same = ("status", "attempts", "claimed_by", "priority", "scheduled_at", "revision")
    assert [one[name] for name in same] == [two[name] for name in same]
    assert (one["claim_id"] + 1, one["claimed_at"] < two["claimed_at"]) == (two["claim_id"], True)


def test_rows_that_are_no_work_are_never_touched(database: Database, conn: psycopg.Connection[Any]) -> None:
    for status in ("Uploaded", "Failed", "Processing", "Draft"):
        insert(database, status=status)
    insert(database, due="now() + interval '1 minute'")
    insert(database, due="'infinity'")
    assert quick(conn, 100) == []


@pytest.mark.anyio
async def test_the_job_carries_the_row_in_order_and_the_time_of_the_search(database: Database) -> None:
    late, soon = (
        insert(database, priority=200),
        insert(database, 2, due="now() - interval '1 minute'", payload='{"a": 1}'),
    )

    async with open_pool(database) as pool:
        table = QueueTable(pool, UPLOAD)
        found = await table.claim_quick(limit=9, session_key=SESSION)
        nothing = await table.claim_quick(limit=9, session_key=SESSION)
    assert [job.id for job in found.jobs] == [*soon, *late]
    assert (found.jobs[0].row["payload"], found.jobs[0].attempt) == ({"a": 1}, 1)
    assert [(place.priority, place.key) for place in found.last] == [(100, soon[-1]), (200, late[0])]
    assert found.search_s is not None
    assert found.search_s > 0
    assert (nothing.jobs, nothing.search_s, nothing.last) == ([], None, ())


def test_it_is_not_flushed(database: Database, conn: psycopg.Connection[Any]) -> None:
    insert(database)
    with conn.transaction():
        quick(conn, 1)
        assert conn.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "off"}
    assert conn.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "on"}


def test_each_row_goes_to_exactly_one_of_both_kinds_of_claimers(database: Database) -> None:
    """Six at once, three of each kind, while somebody touches the rows, until nothing is left."""
    ids = insert(database, 1_500)
    stop = threading.Event()

    def take(number: int) -> list[int]:
        taken: list[int] = []
        with engine_connection(database) as conn:
            while True:
                if number % 2:
                    rows = [row["job_key"] for row in claim(conn, 7, session_key=number)]
                    if not rows:
                        return taken
                else:
                    rows = quick(conn, 7, session_key=number)
                    if not rows and not claim_is_left(conn):
                        return taken
                taken += rows

    def touch() -> None:
        with database.connect() as conn:
            while not stop.is_set():
                conn.execute(
                    "UPDATE orders_inbox SET tracking_number = 'x' WHERE id = (SELECT id FROM orders_inbox"
                    " WHERE status = 'Pending' ORDER BY random() LIMIT 1)"
                )

    toucher = threading.Thread(target=touch)
    toucher.start()
    try:
        with ThreadPoolExecutor(6) as threads:
            taken = [key for keys in threads.map(take, range(6)) for key in keys]
    finally:
        stop.set()
        toucher.join()
    assert sorted(taken) == ids


def claim_is_left(conn: psycopg.Connection[Any]) -> bool:
    (left,) = conn.execute("SELECT EXISTS (SELECT FROM orders_inbox WHERE status = 'Pending') AS some").fetchall()
    return bool(left["some"])


def test_a_row_that_somebody_holds_is_passed_over(database: Database, conn: psycopg.Connection[Any]) -> None:
    held, free = insert(database, 2)
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM orders_inbox WHERE id = %s FOR UPDATE", [held])
        assert quick(conn, 5) == [free]
    assert quick(conn, 5) == [held]


BELOW = {
    "partitions": ("PARTITION BY LIST (source)", "PARTITION OF orders_inbox FOR VALUES IN ({source})"),
    "heirs": ("", "() INHERITS (orders_inbox)"),
}


@pytest.mark.parametrize("kind", BELOW)
def test_rows_of_tables_below_are_left_to_the_claim(database: Database, kind: str) -> None:
    """A ctid means nothing there: by ctid alone, finished rows of one would be claimed for those of another."""
    whole, part = BELOW[kind]
    database.execute("ALTER TABLE orders_inbox RENAME TO former")
    database.execute(f"CREATE TABLE orders_inbox (LIKE former INCLUDING DEFAULTS) {whole}")
    for number, source in enumerate("ab"):
        database.execute(f"CREATE TABLE part_{source} {part}".format(source=f"'{source}'"))
        database.execute(
            f"INSERT INTO part_{source} (id, order_number, source, status) SELECT n + {10 * number}, n, '{source}',"
            f" CASE WHEN n % 2 = {number} THEN 'Pending' ELSE 'Uploaded' END FROM generate_series(1, 10) AS n"
        )
    conn = database.connect(row_factory=dict_row)
    assert quick(conn, 100) == []
    assert sorted(row["job_key"] for row in claim(conn, 100)) == [2, 4, 6, 8, 10, 11, 13, 15, 17, 19]
