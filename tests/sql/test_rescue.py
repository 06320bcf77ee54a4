"""Rescue frees the rows of the dead and of the stuck, and nobody else's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Database
from psycopg import sql
from queues import SESSION, claim, counts, engine_connection, insert, lease, read, read_all, rescue, statement
from waiting import until

OTHER = 8


@pytest.fixture
def conn(database: Database) -> psycopg.Connection[dict[str, Any]]:
    return engine_connection(database)


def test_rows_of_a_dead_session_are_free_and_those_of_a_live_one_are_not(
    database: Database, conn: psycopg.Connection[Any]
) -> None:
    """A crash costs no attempt. Closing the session is all that a death is."""
    mine, theirs = lease(database, SESSION), lease(database, OTHER)
    insert(database, 6, last_error="before", attempts=4)
    of_mine = [row["job_key"] for row in claim(conn, 3, session_key=SESSION)]
    of_theirs = [row["job_key"] for row in claim(conn, 3, session_key=OTHER)]
    held = read_all(database, of_theirs)
    assert rescue(conn) == 0

    mine.close()
    wait_until_gone(database, SESSION)

    assert rescue(conn) == 3
    for row in read_all(database, of_mine):
        assert (row["status"], row["attempts"], row["last_error"]) == ("Pending", 4, "before")
        assert (row["claim_id"], row["claimed_by"], row["claimed_at"]) == (None, None, None)
    assert read_all(database, of_theirs) == held
    theirs.close()


def wait_until_gone(database: Database, key: int) -> None:
    """The server drops the lock a moment after the client has closed."""
    until(
        lambda: not database.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", [key]),
        what="the end of the session",
    )


def test_a_stuck_claim_of_a_live_session_is_freed_and_counted(
    database: Database, conn: psycopg.Connection[Any]
) -> None:
    """Older than the limit although its session lives: the attempt counts, and the row says why."""
    holder = lease(database)
    insert(database, 4)
    ids = [row["job_key"] for row in claim(conn, 4)]
    database.execute(
        "UPDATE orders_inbox SET claimed_at = now() - interval '301 seconds' WHERE id = ANY (%s)", [ids[:2]]
    )
    database.execute(
        "UPDATE orders_inbox SET claimed_at = now() - interval '290 seconds' WHERE id = ANY (%s)", [ids[2:]]
    )

    assert rescue(conn, stale_s=300.0) == 2

    rows = read_all(database, ids)
    assert [(row["status"], row["attempts"]) for row in rows] == [("Pending", 1)] * 2 + [("Processing", 1)] * 2
    assert "did not end within its timeout" in rows[0]["last_error"]
    holder.close()


def test_an_orphan_is_an_orphan_however_old(database: Database, conn: psycopg.Connection[Any]) -> None:
    """Its attempt is not counted, also past the limit."""
    (key,) = insert(database)
    claim(conn, 1)
    database.execute("UPDATE orders_inbox SET claimed_at = now() - interval '1 day'")

    assert rescue(conn) == 1
    assert (read(database, key)["attempts"], read(database, key)["last_error"]) == (0, None)


def test_a_claim_without_a_session_is_an_orphan(database: Database, conn: psycopg.Connection[Any]) -> None:
    insert(database)
    claim(conn, 1)
    database.execute("UPDATE orders_inbox SET claimed_by = NULL")
    assert rescue(conn) == 1


def test_a_claim_younger_than_the_rescue_is_no_orphan_of_its_list(
    database: Database, conn: psycopg.Connection[Any]
) -> None:
    """Freed by another rescue and claimed anew after this one had listed the living: the newcomer is not listed."""
    insert(database)
    claim(conn, 1)
    database.execute("UPDATE orders_inbox SET claimed_at = clock_timestamp() + interval '1 minute'")
    assert rescue(conn) == 0
    database.execute("UPDATE orders_inbox SET claimed_at = clock_timestamp()")
    assert rescue(conn) == 1


FOREIGN = {
    "the older scripts' Processing": "status = 'Processing'",
    "their own marks": "status = 'Processing', claimed_by = 99, claimed_at = '2020-01-01'",
    "not in work": "status = 'Failed', claim_id = 5, claimed_by = 99, claimed_at = '2020-01-01'",
    "another word": "status = 'processing', claim_id = 5, claimed_by = 99, claimed_at = '2020-01-01'",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_rows_of_other_schemes_are_left_alone(database: Database, conn: psycopg.Connection[Any], what: str) -> None:
    """No claim_id = not ours."""
    insert(database)
    database.execute(f"UPDATE orders_inbox SET {FOREIGN[what]}")
    before = read_all(database)

    assert rescue(conn, stale_s=0.0) == 0
    conn.execute(statement("release_strays"), {"session_key": 99, "held": []})
    assert read_all(database) == before


LOOKALIKES = {
    "shared by another class": "SELECT pg_advisory_lock(1, 7)",
    "one number": "SELECT pg_advisory_lock(7)",
    "its key as the class": "SELECT pg_advisory_lock(7, 1)",
}


@pytest.mark.parametrize("what", LOOKALIKES)
def test_other_advisory_locks_are_no_lease(database: Database, conn: psycopg.Connection[Any], what: str) -> None:
    insert(database)
    claim(conn, 1)
    with database.connect() as other:
        other.execute(LOOKALIKES[what])
        assert rescue(conn) == 1


def test_a_lease_that_is_only_waited_for_is_none(database: Database, conn: psycopg.Connection[Any]) -> None:
    """The watch of a neighbour waits on the lock of the dead: only the holder counts, and he may be somebody else."""
    insert(database)
    claim(conn, 1, session_key=OTHER)
    with database.connect() as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%s, %s)", [1, OTHER])
        assert rescue(conn) == 1


def test_a_lease_in_another_database_is_none(
    database: Database, empty_database: Database, conn: psycopg.Connection[Any]
) -> None:
    """Advisory locks belong to a database; pg_locks shows those of all."""
    insert(database)
    claim(conn, 1)
    with lease(empty_database, SESSION):
        assert rescue(conn) == 1


def test_two_schemas_in_one_database_never_meet(empty_database: Database) -> None:
    """The same session key in both: the one's death frees its rows alone, the other's life keeps only its own."""
    schemas = ["shop one", "shop two"]
    conns = {}
    for schema in schemas:
        empty_database.install(schema)
        conns[schema] = engine_connection(empty_database, schema=schema)
        conns[schema].execute("INSERT INTO orders_inbox (order_number) VALUES ('1'), ('2')")
        assert len(claim(conns[schema], 2)) == 2

    with lease(empty_database, SESSION, schema="shop one"):
        assert rescue(conns["shop one"], schema="shop one") == 0
        assert rescue(conns["shop two"], schema="shop two") == 2

    left = [
        empty_database.execute(sql.SQL("SELECT DISTINCT status FROM {}").format(sql.Identifier(s, "orders_inbox")))
        for s in schemas
    ]
    assert left == [[("Processing",)], [("Pending",)]]


def test_concurrent_rescues_count_each_row_once(database: Database) -> None:
    """Any number of processes may rescue at once; none waits for another."""
    insert(database, 1_000)
    claim(engine_connection(database), 1_000)
    start = threading.Barrier(6)

    def work() -> int:
        conn = engine_connection(database)
        start.wait(10)
        return rescue(conn)

    with ThreadPoolExecutor(6) as threads:
        found = [ended.result() for ended in [threads.submit(work) for _ in range(6)]]
    found.append(rescue(engine_connection(database)))

    assert sum(found) == 1_000
    assert {row["attempts"] for row in read_all(database)} == {0}


def test_a_row_that_is_being_settled_is_passed_over(database: Database, conn: psycopg.Connection[Any]) -> None:
    insert(database, 2)
    (first, _) = [row["job_key"] for row in claim(conn, 2)]
    conn.execute("SET statement_timeout = '5s'")
    with database.connect() as settling, settling.transaction():
        settling.execute("UPDATE orders_inbox SET status = 'Uploaded', claim_id = NULL WHERE id = %s", [first])
        assert rescue(conn) == 1
    assert counts(database) == {"Uploaded": 1, "Pending": 1}


def test_rescues_claims_and_deaths_at_once_lose_and_free_nothing_wrongly(database: Database) -> None:
    """Rows of the living stay theirs, however often the others are freed and claimed again."""
    insert(database, 400)
    holder = lease(database, 1_000_000)
    conn = engine_connection(database)
    kept = {row["job_key"]: row["claim_id"] for row in claim(conn, 100, session_key=1_000_000)}
    stop = threading.Event()
    faults: list[BaseException] = []

    def repeat(step: Any) -> None:
        try:
            own = engine_connection(database)
            while not stop.is_set():
                step(own)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            faults.append(error)

    def live_short(own: psycopg.Connection[Any]) -> None:
        key = own.execute("SELECT nextval('listener_session_key')::int AS key").fetchall()[0]["key"]
        with lease(database, key):
            rows = claim(own, 20, session_key=key)
            ids = [row["job_key"] for row in rows]
            mine = own.execute(
                "SELECT count(*) AS n FROM orders_inbox"
                " WHERE id = ANY (%s) AND claimed_by = %s AND status = 'Processing'",
                [ids, key],
            ).fetchall()[0]["n"]
            assert mine == len(ids), "a row was taken from a living session"

    threads = [
        threading.Thread(target=repeat, args=[step]) for step in (live_short, live_short, live_short, rescue, rescue)
    ]
    for thread in threads:
        thread.start()
    for _ in range(60):
        rescue(conn)
    stop.set()
    for thread in threads:
        thread.join()

    assert faults == []
    rows = read_all(database, list(kept))
    assert {row["id"]: row["claim_id"] for row in rows} == kept
    holder.close()


def test_strays_are_our_rows_that_nobody_here_works_on(database: Database, conn: psycopg.Connection[Any]) -> None:
    """The reply to their claim was lost: they are free again and have cost no attempt. Others' rows stay."""
    insert(database, 9, attempts=3)
    held, stray = claim(conn, 3), claim(conn, 3)
    foreign = claim(conn, 3, session_key=OTHER)
    params = {"session_key": SESSION, "held": [held[0]["claim_id"], 999_999]}

    assert conn.execute(statement("release_strays"), params).fetchall() == [{"rows": 3}]
    assert conn.execute(statement("release_strays"), params).fetchall() == [{"rows": 0}]

    for row in read_all(database, [row["job_key"] for row in stray]):
        assert (row["status"], row["attempts"], row["claim_id"], row["claimed_by"]) == ("Pending", 3, None, None)
    for row in read_all(database, [row["job_key"] for row in [*held, *foreign]]):
        assert (row["status"], row["attempts"]) == ("Processing", 4)
    assert conn.execute(statement("release_strays"), {**params, "held": []}).fetchall() == [{"rows": 3}]
