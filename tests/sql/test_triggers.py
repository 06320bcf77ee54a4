"""Which statements ring, which make a row work again, and that neither ever harms the writer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conftest import Database
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.rows import dict_row
from queues import SESSION, Bell, claim, engine_connection, insert, read, rescue, statement

from listener.core.job import Settle
from listener.db.session import lock_class
from listener.workflows.upload.plan import order_key

ADD = (
    "INSERT INTO orders_inbox (order_number, status, scheduled_at)"
    " SELECT g, {status}, {due} FROM generate_series(1, {n}) g"
)


@pytest.fixture
def bell(database: Database) -> Bell:
    """A bell that is on."""
    bell = Bell(database.connect(as_service=True))
    assert bell.turn_on() == "held"
    return bell


def add(n: int = 1, *, status: str = "'Pending'", due: str = "now()") -> str:
    return ADD.format(status=status, due=due, n=n)


RINGS_ONCE = {
    "one row": add(),
    "a thousand rows": add(1_000),
    "one due row among others": add(99, status="'Draft'") + " UNION ALL SELECT 100, 'Pending', now()",
    "due in a minute": add(due="now() + interval '60 seconds'"),
    "due before the slowest poll": add(due="now() + interval '3590 seconds'"),
    "due within the slowest poll": add(due="now() + interval '299 seconds'"),
    "without a conflict": add() + " ON CONFLICT DO NOTHING",
    "several statements in one transaction": f"BEGIN; {add()}; INSERT INTO orders_inbox DEFAULT VALUES; COMMIT",
    "MERGE": "MERGE INTO orders_inbox o USING (VALUES ('m')) v (n) ON o.order_number = v.n"
    " WHEN NOT MATCHED THEN INSERT (order_number) VALUES (v.n)",
}
RINGS_NOT = {
    "another status": add(status="'Draft'"),
    "done already": add(1_000, status="'Uploaded'"),
    "due tomorrow": add(due="now() + interval '1 day'"),
    "due after the slowest poll": add(due="now() + interval '3601 seconds'"),
    "never due": add(due="'infinity'"),
    "no row": add(0),
    "rolled back": f"BEGIN; {add()}; ROLLBACK",
    "delete": "DELETE FROM orders_inbox",
    "truncate": "TRUNCATE orders_inbox",
}


@pytest.mark.parametrize("what", RINGS_ONCE)
def test_insert_of_work_rings_once(database: Database, bell: Bell, what: str) -> None:
    """One message, however many rows: Postgres collapses them because the payload is the table's name."""
    database.execute(RINGS_ONCE[what])
    assert bell.rings() == ["orders_inbox"]


@pytest.mark.parametrize("what", RINGS_NOT)
def test_what_is_no_work_rings_nothing(database: Database, bell: Bell, what: str) -> None:
    database.execute(RINGS_NOT[what])
    assert bell.rings() == []


@pytest.mark.parametrize(("status", "rings"), [("Pending", ["orders_inbox"]), ("Draft", [])])
def test_copy_rings_like_insert(database: Database, bell: Bell, status: str, rings: list[str]) -> None:
    with (
        database.connect().cursor() as cursor,
        cursor.copy("COPY orders_inbox (order_number, status) FROM STDIN") as copy,
    ):
        for number in range(100):
            copy.write_row([f"C-{number}", status])
    assert bell.rings() == rings


UPSERT = "INSERT INTO orders_inbox (order_number, payload) VALUES ('1', {}) ON CONFLICT (source, order_number) DO "


@pytest.mark.parametrize(
    ("status", "upsert", "rings", "ends_as"),
    [
        ("Uploaded", UPSERT.format("'{}'") + "NOTHING", [], "Uploaded"),
        ("Uploaded", UPSERT.format('\'{"b": 2, "a": 1}\'') + "UPDATE SET payload = EXCLUDED.payload", [], "Uploaded"),
        ("Uploaded", UPSERT.format("'{}'") + "UPDATE SET payload = EXCLUDED.payload", ["orders_inbox"], "Pending"),
        ("Failed", UPSERT.format("'{}'") + "UPDATE SET payload = EXCLUDED.payload", ["orders_inbox"], "Pending"),
        ("Processing", UPSERT.format("'{}'") + "UPDATE SET payload = EXCLUDED.payload", [], "Processing"),
        ("Draft", UPSERT.format("'{}'") + "UPDATE SET payload = EXCLUDED.payload", [], "Draft"),
    ],
)
def test_upsert_rings_only_when_it_made_work(
    database: Database, bell: Bell, status: str, upsert: str, rings: list[str], ends_as: str
) -> None:
    """The same content again, in whatever order its fields are written, is no change."""
    (key,) = insert(database, payload='{"a": 1, "b": 2}')
    database.execute("UPDATE orders_inbox SET order_number = '1', status = %s", [status])
    bell.rings()

    database.execute(upsert)

    assert bell.rings() == rings
    assert read(database, key)["status"] == ends_as


def stand(database: Database, status: str, **columns: Any) -> int:
    """Insert a row as a settle, a claim or a person would have left it."""
    (key,) = insert(database, payload='{"a": 1}', attempts=3, due="now() - interval '1 hour'", **columns)
    is_held = status == "Processing"
    database.execute(
        "UPDATE orders_inbox SET status = %s, claim_id = %s, claimed_by = %s, claimed_at = %s",
        [status, *([1, SESSION, "now"] if is_held else [None] * 3)],
    )
    return key


def test_a_person_retries_with_one_update(database: Database, bell: Bell) -> None:
    """Attempts count from 0 again, it is due now, and it rings."""
    key = stand(database, "Failed", finished_at="2026-01-01")
    database.execute("UPDATE orders_inbox SET scheduled_at = now() + interval '1 day'")
    bell.rings()

    database.execute("UPDATE orders_inbox SET status = 'Pending'")

    row = read(database, key)
    assert (row["status"], row["attempts"], row["finished_at"]) == ("Pending", 0, None)
    assert row["scheduled_at"] == row["updated_at"]
    assert bell.rings() == ["orders_inbox"]


def test_a_person_may_choose_time_and_attempts_of_the_retry(database: Database, bell: Bell) -> None:
    key = stand(database, "Failed")
    bell.rings()
    database.execute("UPDATE orders_inbox SET status = 'Pending', attempts = 9, scheduled_at = '2040-01-01'")

    row = read(database, key)
    assert (row["attempts"], row["scheduled_at"].year) == (9, 2040)
    assert bell.rings() == []


def test_a_retry_of_a_row_in_work_leaves_it_to_its_handler(database: Database, bell: Bell) -> None:
    """The settle sees another revision and puts it back."""
    key = stand(database, "Processing")
    bell.rings()

    database.execute("UPDATE orders_inbox SET status = 'Pending'")

    row = read(database, key)
    assert (row["status"], row["revision"], row["claim_id"], row["attempts"]) == ("Processing", 1, 1, 3)
    assert bell.rings() == []


@pytest.mark.parametrize("left_as", ["Uploaded", "Failed", "On hold"])
def test_a_person_retries_a_row_that_was_taken_from_a_worker(database: Database, bell: Bell, left_as: str) -> None:
    """A status set by hand while the row was in work leaves its claim behind; retry and edit work all the same."""
    key = stand(database, "Processing")
    database.execute("UPDATE orders_inbox SET status = %s", [left_as])
    bell.rings()

    database.execute("UPDATE orders_inbox SET status = 'Pending'")

    assert bell.rings() == ["orders_inbox"]
    assert read(database, key)["attempts"] == 0
    database.execute("UPDATE orders_inbox SET status = 'Uploaded'")
    database.execute("UPDATE orders_inbox SET payload = '[]'")
    assert read(database, key)["status"] == "Pending"
    assert bell.rings() == ["orders_inbox"]


EDITS = {
    "payload": "UPDATE orders_inbox SET payload = '{\"a\": 2}'",
    "order number": "UPDATE orders_inbox SET order_number = 'other'",
    "source": "UPDATE orders_inbox SET source = 'other'",
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    ("status", "ends_as", "attempts", "rings"),
    [
        ("Uploaded", "Pending", 0, ["orders_inbox"]),
        ("Failed", "Pending", 0, ["orders_inbox"]),
        ("Pending", "Pending", 0, []),
        ("Processing", "Processing", 3, []),
        ("Draft", "Draft", 3, []),
    ],
)
def test_an_edit_is_work(
    database: Database, bell: Bell, edit: str, status: str, ends_as: str, attempts: int, rings: list[str]
) -> None:
    """Of done and failed rows; a row in work keeps its claim, and the settle sees the revision."""
    key = stand(database, status)
    bell.rings()

    database.execute(EDITS[edit])

    row = read(database, key)
    assert (row["status"], row["attempts"], row["revision"]) == (ends_as, attempts, 1)
    assert bell.rings() == rings
    if status not in ("Uploaded", "Failed"):  # a row that waits already keeps its place in the queue
        assert row["scheduled_at"] < row["updated_at"]


def test_an_edit_of_a_row_that_waits_for_its_retry_rings(database: Database, bell: Bell) -> None:
    """With its new content it is tried at once."""
    key = stand(database, "Pending")
    database.execute("UPDATE orders_inbox SET scheduled_at = now() + interval '4 minutes'")
    bell.rings()

    database.execute(EDITS["payload"])

    row = read(database, key)
    assert (row["attempts"], row["scheduled_at"]) == (0, row["updated_at"])
    assert bell.rings() == ["orders_inbox"]


def test_an_edit_that_names_its_time_is_due_then(database: Database, bell: Bell) -> None:
    key = stand(database, "Uploaded")
    bell.rings()
    database.execute("UPDATE orders_inbox SET payload = '[]', scheduled_at = '2040-01-01'")

    row = read(database, key)
    assert (row["status"], row["scheduled_at"].year) == ("Pending", 2040)
    assert bell.rings() == []


@pytest.mark.parametrize(
    ("before", "after", "rings"),
    [
        ("now() + interval '1 hour'", "now()", ["orders_inbox"]),
        ("now() + interval '1 hour'", "now() + interval '2 minutes'", ["orders_inbox"]),
        ("now() + interval '200 seconds'", "now() + interval '100 seconds'", ["orders_inbox"]),
        ("now() + interval '2 days'", "now() + interval '1 day'", []),
        ("now() + interval '1 minute'", "now() + interval '1 hour'", []),
        ("now() + interval '1 day'", "now() + interval '3590 seconds'", ["orders_inbox"]),
        ("now()", "scheduled_at", []),
    ],
)
def test_moving_the_time_rings_when_it_comes_earlier_and_soon(
    database: Database, bell: Bell, before: str, after: str, rings: list[str]
) -> None:
    insert(database, due=before)
    bell.rings()
    database.execute(f"UPDATE orders_inbox SET scheduled_at = {after}")
    assert bell.rings() == rings


NO_CONTENT = {
    "nothing": "status = status, payload = payload, source = source, order_number = order_number",
    "the same payload in another order": "payload = '{\"a\":    1}'",
    "what sync brings back": "fulfillment_status = 'shipped', tracking_number = '1Z', carrier_code = 'ups',"
    " shipped_at = now()",
    "what the upload brings back": "shipstation_order_id = '5', uploaded_at = now(), order_key = 'k'",
    "notes of ours": "last_error = 'x', updated_at = now(), created_at = now()",
    "priority": "priority = 5",
}


@pytest.mark.parametrize("status", ["Uploaded", "Failed", "Pending", "Processing"])
@pytest.mark.parametrize("change", NO_CONTENT)
def test_what_is_no_content_is_no_work(database: Database, bell: Bell, status: str, change: str) -> None:
    key = stand(database, status)
    before = read(database, key)
    bell.rings()

    database.execute(f"UPDATE orders_inbox SET {NO_CONTENT[change]}")

    row = read(database, key)
    assert [row[name] for name in ("status", "attempts", "revision", "scheduled_at", "claim_id")] == [
        before[name] for name in ("status", "attempts", "revision", "scheduled_at", "claim_id")
    ]
    assert bell.rings() == []


def settle(conn: psycopg.Connection[Any], rows: list[dict[str, Any]], kind: Settle) -> None:
    count = len(rows)
    params = {
        "keys": [row["job_key"] for row in rows],
        "claims": [row["claim_id"] for row in rows],
        "kinds": [str(kind)] * count,
        "revisions": [row["revision"] for row in rows],
        "delays": [0.0] * count,
        "errors": ["e"] * count,
        "values": ['{"uploaded_at": "now"}'] * count,
    }
    assert len(conn.execute(statement("settle"), params).fetchall()) == count


@pytest.fixture
def counted(database: Database) -> psycopg.Connection[dict[str, Any]]:
    """A connection with the engine's settings whose calls of functions are counted."""
    database.execute(f"ALTER DATABASE {database.name} SET track_functions = 'all'")
    return engine_connection(database)


def calls(database: Database, conn: psycopg.Connection[Any]) -> dict[str, int]:
    """Our functions that the connection entered, and how often."""
    conn.execute("SELECT pg_stat_force_next_flush()")
    conn.execute("SELECT 1")
    return dict(database.execute("SELECT funcname, calls FROM pg_stat_user_functions WHERE funcname ~ '^listener_'"))


def test_our_own_statements_ring_nothing_and_enter_no_function(
    database: Database, bell: Bell, counted: psycopg.Connection[Any]
) -> None:
    """Claim, every settle, also of edited rows, and the release of strays. The last line proves that calls are seen."""
    ids = insert(database, 5, payload="{}")
    bell.rings()
    for kind in (Settle.RETRY, Settle.SNOOZE, Settle.RELEASE):
        settle(counted, claim(counted, 5), kind)
    claim(counted, 5)
    counted.execute(statement("release_strays"), {"session_key": SESSION, "held": []})
    rows = claim(counted, 5)
    database.execute("UPDATE orders_inbox SET payload = '[]' WHERE id = %s", ids[:1])
    settle(counted, rows, Settle.COMPLETE)
    settle(counted, claim(counted, 5), Settle.FAIL)

    assert bell.rings() == []
    assert calls(database, counted) == {}
    counted.execute("UPDATE orders_inbox SET status = 'Pending'")
    assert calls(database, counted) == {"listener_retry_by_hand": 5, "listener_ring": 5}
    assert bell.rings() == ["orders_inbox"]


def test_a_writer_enters_no_function_while_nobody_sleeps(
    database: Database, bell: Bell, counted: psycopg.Connection[Any]
) -> None:
    """The trigger's condition takes the lock."""
    database.execute("CREATE TABLE parcels (id integer PRIMARY KEY); SELECT attach_queue('parcels')")
    bell.turn_off()
    counted.execute("INSERT INTO orders_inbox DEFAULT VALUES; INSERT INTO parcels VALUES (1)")
    assert calls(database, counted) == {}
    bell.turn_on()
    counted.execute("INSERT INTO orders_inbox DEFAULT VALUES; INSERT INTO parcels VALUES (2)")
    assert calls(database, counted) == {"listener_ring_inserted": 1}


def test_rescue_rings_once_for_all_and_not_for_none(
    database: Database, bell: Bell, counted: psycopg.Connection[Any]
) -> None:
    """By its own statement, not through the triggers."""
    insert(database, 5)
    claim(counted, 5)
    bell.rings()

    assert (rescue(counted), bell.rings()) == (5, ["orders_inbox\tlistener"])
    assert (rescue(counted), bell.rings()) == (0, [])
    assert calls(database, counted) == {}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_writers_of_every_isolation_level_ring(database: Database, bell: Bell, isolation: str) -> None:
    """Also while another transaction of the same level has written other rows."""
    key = stand(database, "Failed")
    bell.rings()
    option = "-c default_transaction_isolation=" + isolation.replace(" ", "\\ ")
    one, two = database.connect(options=option), database.connect(options=option)
    with one.transaction():
        one.execute("SELECT count(*) FROM orders_inbox WHERE id = 0")
        with two.transaction():
            two.execute("INSERT INTO orders_inbox (order_number) VALUES ('two')")
        assert bell.rings() == ["orders_inbox"]
        one.execute("INSERT INTO orders_inbox (order_number) VALUES ('one')")
        one.execute("UPDATE orders_inbox SET status = 'Pending' WHERE id = %s", [key])
        assert bell.rings() == []
    assert bell.rings() == ["orders_inbox"]


def hostile(database: Database) -> None:
    """A schema that redefines what our functions use."""
    database.execute(
        """CREATE SCHEMA hostile;
           CREATE FUNCTION hostile.fail() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
           CREATE FUNCTION hostile.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT hostile.fail()';
           CREATE FUNCTION hostile.pg_notify(text, text) RETURNS timestamptz LANGUAGE sql AS 'SELECT hostile.fail()';
           CREATE FUNCTION hostile.md5(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
           CREATE FUNCTION hostile.left(text, int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
           CREATE FUNCTION hostile.length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'hostile'; END $$;
           CREATE TABLE hostile.inserted (); CREATE TABLE hostile.orders_inbox ();
           GRANT USAGE ON SCHEMA hostile TO PUBLIC"""
    )


@pytest.mark.parametrize("path", ["''", "pg_catalog", "hostile, pg_catalog", "hostile, public", "nowhere"])
def test_a_writer_with_only_the_insert_privilege_and_any_search_path(database: Database, bell: Bell, path: str) -> None:
    """The triggers need nothing of the writer: no other right, no schema in its path."""
    hostile(database)
    role = sql.Identifier(f"{database.name}_inserter")
    database.server.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        database.execute(sql.SQL("GRANT INSERT ON public.orders_inbox TO {}").format(role))
        with database.connect() as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            conn.execute(f"SET search_path = {path}")
            conn.execute(
                "INSERT INTO public.orders_inbox (source, order_number) VALUES ('s', pg_catalog.repeat('n', 60))"
            )
        assert bell.rings() == ["orders_inbox"]
        database.execute(sql.SQL("GRANT UPDATE, SELECT ON public.orders_inbox TO {}").format(role))
        with database.connect() as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            conn.execute(f"SET search_path = {path}")
            for change in ("status = 'Failed'", "status = 'Pending'", "status = 'Failed'", "payload = '{}'"):
                conn.execute(f"UPDATE public.orders_inbox SET {change}")
        assert bell.rings() == ["orders_inbox", "orders_inbox"]
    finally:
        database.execute(sql.SQL("DROP OWNED BY {}").format(role))
        database.server.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("action", ["NOTHING", "UPDATE SET payload = EXCLUDED.payload"])
def test_concurrent_upserts_of_one_order_harm_no_writer(database: Database, action: str) -> None:
    """A shop that delivers an order twice at once: both are told that it is there."""
    rounds = threading.Barrier(6)

    def deliver() -> list[psycopg.Error]:
        faults: list[psycopg.Error] = []
        with database.connect() as conn:
            for number in range(150):
                rounds.wait(60)
                try:
                    conn.execute(
                        "INSERT INTO orders_inbox (source, order_number, payload) VALUES ('shop', %s, '{}')"
                        f" ON CONFLICT (source, order_number) DO {action}",
                        [str(number)],
                    )
                except psycopg.Error as error:
                    faults.append(error)
        return faults

    with ThreadPoolExecutor(6) as threads:
        faults = [delivery.result() for delivery in [threads.submit(deliver) for _ in range(6)]]

    assert faults == [[]] * 6
    assert database.execute("SELECT count(*) FROM orders_inbox") == [(150,)]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=st.none() | TEXT, number=TEXT)
@example(source="s", number="n" * 48)  # 50 characters
@example(source="s", number="n" * 49)  # 51
@example(source="ä", number="€" * 48)
def test_order_key_is_that_of_the_upload(database: Database, source: str | None, number: str) -> None:
    """SQL and Python say the same, in at most 50 characters."""
    with database.connect() as conn, conn.transaction(force_rollback=True):
        row = conn.execute(
            "INSERT INTO orders_inbox (source, order_number) VALUES (%s, %s) RETURNING order_key", [source, number]
        ).fetchone()
    assert row == (order_key(source, number),)
    assert len(row[0]) <= 50


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=TEXT.filter(lambda text: "-" not in text),
    other=TEXT.filter(lambda text: "-" not in text),
    number=TEXT,
    another=TEXT,
)
def test_order_keys_of_different_orders_differ(source: str, number: str, other: str, another: str) -> None:
    """Sources without a hyphen: the key splits again where it was joined."""
    is_same = (source, number) == (other, another)
    assert (order_key(source, number) == order_key(other, another)) == is_same


def test_order_key_is_made_once_and_an_own_one_is_kept(database: Database) -> None:
    """ShipStation knows the order by it: a renumbered order keeps its key."""
    (given_key,) = insert(database, order_key="mine")
    (made,) = insert(database, source="shop")
    before = read(database, made)["order_key"]
    database.execute("UPDATE orders_inbox SET order_number = 'renumbered' WHERE id = %s", [made])

    assert read(database, given_key)["order_key"] == "mine"
    assert read(database, made)["order_key"] == before


def test_waiting_orders_have_exactly_the_word_pending(database: Database) -> None:
    """R006: the older scripts' count, and the default."""
    database.execute("INSERT INTO orders_inbox (order_number, payload) VALUES ('a', '{}'), ('b', '{}')")
    insert(database, status="Uploaded")
    assert database.execute("SELECT COUNT(*) FROM orders_inbox WHERE status='Pending'") == [(2,)]


def test_the_older_scripts_count_uses_the_index_of_that_name(database: Database) -> None:
    """R007: 100,000 rows, few of them pending, default settings."""
    database.execute("INSERT INTO orders_inbox (status) SELECT 'Uploaded' FROM generate_series(1, 100000)")
    insert(database, 20)
    conn = database.connect(row_factory=dict_row)
    count = "SELECT COUNT(*) FROM orders_inbox WHERE status='Pending'"
    for _ in range(2):
        plan = str(conn.execute(f"EXPLAIN (FORMAT JSON) {count}").fetchall())
        assert "idx_orders_inbox_status_pending" in plan
        assert "Seq Scan" not in plan
        conn.execute("ANALYZE orders_inbox")
    (definition,) = database.execute("SELECT pg_get_indexdef('idx_orders_inbox_status_pending'::regclass)")[0]
    assert "(status" in definition
    assert "WHERE (status = 'Pending'::text)" in definition


def test_who_finds_the_bell_off_rings_nobody(database: Database, bell: Bell) -> None:
    """Nobody sleeps, nobody needs to be woken. A transaction that rang once holds nothing up afterwards."""
    bell.turn_off()
    for change in (add(), "UPDATE orders_inbox SET status = 'Failed'", "UPDATE orders_inbox SET payload = '{}'"):
        database.execute(change)
    assert bell.rings() == []
    assert bell.turn_on() == "held"


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_the_bell_is_on_only_when_no_writer_is_in_flight_that_saw_it_off(
    database: Database, bell: Bell, isolation: str
) -> None:
    """Also one with an old snapshot: locks do not know snapshots."""
    bell.turn_off()
    writer = database.connect()
    writer.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM orders_inbox")
    assert bell.turn_on() == "held", "a transaction that has only read is none of ours"
    bell.turn_off()
    writer.execute(add())
    assert bell.turn_on() == "busy"
    writer.execute("COMMIT")
    assert bell.turn_on() == "held"
    assert bell.rings() == []


def test_a_prepared_writer_is_in_flight_until_it_is_resolved(database: Database, bell: Bell) -> None:
    if database.execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("this server keeps no prepared transactions")
    bell.turn_off()
    database.execute(f"BEGIN; {add()}; PREPARE TRANSACTION 'order'")
    assert bell.turn_on() == "busy"
    database.execute("COMMIT PREPARED 'order'")
    assert bell.turn_on() == "held"


def test_the_bell_that_another_listener_has_on_is_on(database: Database, bell: Bell) -> None:
    other = Bell(database.connect(as_service=True))
    assert other.turn_on() == "busy", "nobody would tell of the end of a session without a lease"
    bell._conn.execute("SELECT pg_advisory_lock(%s, 7)", [lock_class("public")])
    assert other.turn_on() == "elsewhere"
    bell.turn_off()
    assert other.turn_on() == "held"
