"""What the migrations make: the older plans' tables word for word, and older tables taken over as they are."""

import json
import re
import subprocess
from pathlib import Path

import psycopg
import pytest
from conftest import Database
from queues import claim, engine_connection

from listener.db.files import schema_files
from listener.db.migrate import dry_run, migrate
from listener.workflows.queues import UPLOAD

#: Where a claim's row holds the order's number.
NUMBER = f"row_{UPLOAD.columns.index('order_number')}"
#: As the older polling scripts left a database.
OLD_TABLES = """
CREATE TABLE orders_inbox (
    id serial PRIMARY KEY,
    order_number varchar(50),
    status varchar(20),
    created_at timestamp DEFAULT CURRENT_TIMESTAMP
);
INSERT INTO orders_inbox (order_number, status, created_at) VALUES
    ('A-1', 'Pending', '2025-11-01 10:00'), ('A-2', 'uploaded', '2025-11-01 10:01'), ('A-3', 'Shipped', NULL),
    ('A-4', 'awaiting_shipment', '2025-11-02'), ('A-4', 'Processing', '2025-11-02'), (NULL, NULL, '2025-11-03'),
    ('A-5', 'Failed', '2025-11-03'), ('A-6', 'Uploaded', '2025-11-03');

CREATE TABLE configuration_params (
    id serial PRIMARY KEY, param_key varchar(100) UNIQUE NOT NULL, param_value text, description text
);
INSERT INTO configuration_params (param_key, param_value, description) VALUES
    ('UNIFIED_SYNC_INTERVAL', '300', 'set by the night shift'), ('ENABLE_FAST_XML_POLLING', 'false', NULL),
    ('FAST_POLLING_INTERVAL', '45', 'slower'), ('smtp_host', 'mail.example.org', 'not ours');

CREATE TABLE polling_state (id integer PRIMARY KEY, last_orders_count integer DEFAULT 0, last_check_time timestamp);
INSERT INTO polling_state VALUES (1, 17, '2025-11-03 09:59:45');

CREATE TABLE polling_metrics (
    id serial PRIMARY KEY, workflow_name varchar(100) NOT NULL, check_timestamp timestamp DEFAULT CURRENT_TIMESTAMP,
    record_count integer, action_taken varchar(50), duration_ms integer
);
INSERT INTO polling_metrics (workflow_name, check_timestamp, record_count, action_taken, duration_ms) VALUES
    ('upload', '2025-11-03 09:59:45', 0, 'skipped', 3), ('upload', '2025-11-03 10:00:00', 4, 'processed', 812),
    ('xml', '2025-11-03 10:00:01', NULL, 'error', NULL);
"""
OLD_NAMES = ["orders_inbox", "configuration_params", "polling_state", "polling_metrics"]
#: What an even older installation may have: no identity, no default, a row that the scripts never made.
BARE_TABLES = """
CREATE TABLE orders_inbox (order_number text, status text NOT NULL);
CREATE TABLE configuration_params (param_key text UNIQUE, param_value text NOT NULL);
CREATE TABLE polling_state (id integer PRIMARY KEY);
INSERT INTO orders_inbox VALUES ('B-1', 'Pending'), ('B-1', 'Shipped');
"""


def dump_rows(database: Database, columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Every row as text, with only the columns that were there before."""
    rows = {}
    for table, names in columns.items():
        listed = ", ".join(f'"{name}"' for name in names)
        query = f"SELECT ROW({listed})::text FROM {table} ORDER BY 1"
        rows[table] = [row[0] for row in database.execute(query)]
    return rows


def columns_of(database: Database) -> dict[str, list[str]]:
    query = (
        "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns"
        " WHERE table_name = ANY(%s) GROUP BY 1"
    )
    return dict(database.execute(query, [OLD_NAMES]))


def setting(database: Database, key: str) -> str:
    return database.execute("SELECT param_value FROM configuration_params WHERE param_key = %s", [key])[0][0]


def column(database: Database, table: str, name: str) -> tuple[str, str | None]:
    query = (
        "SELECT data_type, column_default FROM information_schema.columns WHERE table_name = %s AND column_name = %s"
    )
    return database.execute(query, [table, name])[0]


def scans(database: Database, query: str) -> set[str]:
    """Names of the indexes that the plan of *query* uses."""
    plan = database.execute("EXPLAIN (FORMAT json) " + query)[0][0]
    return set(re.findall(r'"Index Name": "([^"]+)"', json.dumps(plan)))


@pytest.mark.parametrize("runs", [1, 2])
def test_adoption_keeps_every_old_value(empty_database: Database, runs: int) -> None:
    """Not one value, status or number that was there changes; the operator's settings win over ours."""
    empty_database.execute(OLD_TABLES)
    old_columns = columns_of(empty_database)
    before = dump_rows(empty_database, old_columns)

    for _ in range(runs):
        migrate(empty_database.url, "public")

    after = dump_rows(empty_database, old_columns)
    seeded = {"configuration_params"}  # has new rows, too
    assert {t: r for t, r in after.items() if t not in seeded} == {t: r for t, r in before.items() if t not in seeded}
    assert set(before["configuration_params"]) <= set(after["configuration_params"])
    assert len(before["orders_inbox"]) == 8


def test_adoption_keeps_old_types(empty_database: Database) -> None:
    """The scripts that still run beside us see the columns they know."""
    empty_database.execute(OLD_TABLES)
    query = (
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_name = ANY(%s)"
    )
    before = set(empty_database.execute(query, [OLD_NAMES]))

    migrate(empty_database.url, "public")

    assert before <= set(empty_database.execute(query, [OLD_NAMES]))


def test_operators_upper_case_settings_reach_their_lower_case_twins(empty_database: Database) -> None:
    """The seed of a new name takes the value that its older name has."""
    empty_database.execute(OLD_TABLES)

    migrate(empty_database.url, "public")

    assert setting(empty_database, "sync_interval") == "300"
    assert setting(empty_database, "fast_polling_interval") == "45"
    assert setting(empty_database, "ENABLE_FAST_XML_POLLING") == "false"


@pytest.mark.parametrize("tables", [OLD_TABLES, BARE_TABLES], ids=["old", "bare"])
def test_adopted_tables_take_new_rows(empty_database: Database, tables: str) -> None:
    """The service's own statements work on an adopted database."""
    empty_database.execute(tables)

    migrate(empty_database.url, "public")

    inserted = empty_database.execute(
        """INSERT INTO orders_inbox (order_number, payload) VALUES ('N-1', '{}') RETURNING status, id IS NOT NULL"""
    )
    assert inserted == [("Pending", True)]
    empty_database.execute("INSERT INTO configuration_params (param_key, param_value) VALUES ('mine', 'x')")
    state = empty_database.execute(
        "INSERT INTO polling_state (workflow, account) VALUES ('sync', 'main') RETURNING id IS NOT NULL, id <> 1"
    )
    assert state == [(True, True)]
    empty_database.execute("INSERT INTO polling_metrics (workflow_name, action_taken) VALUES ('upload', 'skipped')")
    assert empty_database.execute("UPDATE polling_state SET last_orders_count = 0 WHERE id = 1 RETURNING id") == [(1,)]


@pytest.mark.parametrize("way", ["migrate", "dry run", "psql"])
def test_rows_of_a_table_without_a_status_are_no_work(empty_database: Database, psql: Path, way: str) -> None:
    """Years of orders that somebody else has shipped are not uploaded; new ones are."""
    empty_database.execute("CREATE TABLE orders_inbox (id serial PRIMARY KEY, order_number text)")
    empty_database.execute("INSERT INTO orders_inbox (order_number) SELECT n FROM generate_series(1, 3) AS n")
    if way == "migrate":
        migrate(empty_database.url, "public")
    else:
        files = "\n".join(file.text for file in schema_files() if file.kind == "migration")
        script = dry_run(empty_database.url, "public") if way == "dry run" else files
        run = [psql, "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", empty_database.url]
        subprocess.run(run, input=script, text=True, check=True, timeout=60, stdout=subprocess.DEVNULL)
    if way == "psql":
        migrate(empty_database.url, "public")  # by then there is a status; without the books nothing could be granted
    empty_database.grant()
    empty_database.execute("INSERT INTO orders_inbox (order_number) VALUES ('new')")
    rows = empty_database.execute("SELECT order_number, status FROM orders_inbox ORDER BY id")
    assert rows == [("1", "Existing"), ("2", "Existing"), ("3", "Existing"), ("new", "Pending")]
    assert [row[NUMBER] for row in claim(engine_connection(empty_database), 10)] == ["new"]


#: Columns of our names that may be null and have no default.
NULLABLE_TABLE = """
CREATE TABLE orders_inbox (
    id serial PRIMARY KEY, order_number text, payload jsonb, status text, priority smallint, scheduled_at timestamptz,
    attempts integer, revision integer
);
INSERT INTO orders_inbox (order_number, status) VALUES ('old', 'Pending'), ('edited', 'Failed'), ('retried', 'Failed');
"""


def test_new_rows_of_an_adopted_table_are_claimed_and_old_ones_stay_as_they_are(empty_database: Database) -> None:
    """Until a person edits or retries them: without a priority or a time they were never due."""
    empty_database.execute(NULLABLE_TABLE)
    migrate(empty_database.url, "public")
    empty_database.grant()
    empty_database.execute("INSERT INTO orders_inbox (order_number) VALUES ('new')")
    conn = engine_connection(empty_database)
    assert [row[NUMBER] for row in claim(conn, 10)] == ["new"]
    query = "SELECT DISTINCT priority, scheduled_at, attempts, revision FROM orders_inbox WHERE order_number <> 'new'"
    assert empty_database.execute(query) == [(None, None, None, None)]

    empty_database.execute("UPDATE orders_inbox SET payload = '{}' WHERE order_number = 'edited'")
    empty_database.execute("UPDATE orders_inbox SET status = 'Pending' WHERE order_number = 'retried'")

    assert {(row[NUMBER], row["attempts"]) for row in claim(conn, 10)} == {("edited", 1), ("retried", 1)}


def test_row_of_a_single_row_polling_state_is_kept(empty_database: Database) -> None:
    """Some older plans allow no other row than 1."""
    empty_database.execute(
        "CREATE TABLE polling_state"
        " (id integer PRIMARY KEY DEFAULT 1 CHECK (id = 1), last_orders_count integer NOT NULL)"
    )
    empty_database.execute("INSERT INTO polling_state VALUES (1, 5)")

    migrate(empty_database.url, "public")

    assert empty_database.execute("SELECT id, last_orders_count FROM polling_state") == [(1, 5)]


def test_key_is_unique_and_value_is_text(database: Database) -> None:
    """R001: a key is there once."""
    database.execute("INSERT INTO configuration_params (param_key, param_value) VALUES ('mine', 7)")

    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("INSERT INTO configuration_params (param_key, param_value) VALUES ('mine', '8')")
    database.execute(
        "INSERT INTO configuration_params (param_key, param_value) VALUES ('mine', '9')"
        " ON CONFLICT (param_key) DO NOTHING"
    )

    assert setting(database, "mine") == "7"


def test_operators_value_survives_another_run(database: Database) -> None:
    """R002, R005: also UNIFIED_SYNC_INTERVAL, which the older migration would have put back."""
    for key in ("fast_polling_interval", "UNIFIED_SYNC_INTERVAL", "ENABLE_FAST_UPLOAD_POLLING"):
        value = "false" if key.startswith("ENABLE") else "77"
        database.execute("UPDATE configuration_params SET param_value = %s WHERE param_key = %s", [value, key])
    database.execute("DELETE FROM listener_migrations")
    before = database.execute("SELECT param_key, param_value FROM configuration_params ORDER BY 1")

    migrate(database.url, "public")

    assert database.execute("SELECT param_key, param_value FROM configuration_params ORDER BY 1") == before


@pytest.mark.parametrize(
    ("key", "value", "description"),
    [
        ("fast_polling_enabled", "true", "Enable 15-second polling checks"),
        ("fast_polling_interval", "15", "Seconds between polling checks"),
        ("sync_interval", "120", "Seconds between ShipStation sync cycles"),
        ("ENABLE_FAST_XML_POLLING", "true", ""),
        ("ENABLE_FAST_UPLOAD_POLLING", "true", ""),
        ("FAST_POLLING_INTERVAL", "15", ""),
        ("UNIFIED_SYNC_INTERVAL", "120", ""),
    ],
)
def test_both_plans_keys_are_seeded(database: Database, key: str, value: str, description: str) -> None:
    """R003, R004: with value and description."""
    query = "SELECT param_value, description FROM configuration_params WHERE param_key = %s"

    [(seeded, text)] = database.execute(query, [key])

    assert seeded == value
    assert text == description or (text and not description)


def test_pending_orders_are_counted_by_the_index(database: Database) -> None:
    """R006, R007: on 100,000 rows with few pending."""
    database.execute(
        "INSERT INTO orders_inbox (order_number, status) SELECT n, CASE WHEN n % 10000 = 0 THEN 'Pending'"
        " ELSE 'Uploaded' END FROM generate_series(1, 100000) AS n"
    )
    database.execute("ANALYZE orders_inbox")
    query = "SELECT COUNT(*) FROM orders_inbox WHERE status='Pending'"

    assert database.execute(query) == [(10,)]
    assert scans(database, query) == {"idx_orders_inbox_status_pending"}
    [(definition,)] = database.execute("SELECT pg_get_indexdef('idx_orders_inbox_status_pending'::regclass)")
    assert "(status" in definition
    assert "WHERE (status = 'Pending'::text)" in definition


@pytest.mark.parametrize(
    ("name", "data_type", "default"),
    [
        ("last_orders_count", "integer", "0"),
        ("last_check_time", "timestamp without time zone", "CURRENT_TIMESTAMP"),
        ("last_file_count", "integer", "0"),
        ("last_upload_check", "timestamp without time zone", "CURRENT_TIMESTAMP"),
    ],
)
def test_polling_state_has_the_columns_of_both_plans(
    database: Database, name: str, data_type: str, default: str
) -> None:
    """R008, R009, R010."""
    assert column(database, "polling_state", name) == (data_type, default)


def test_polling_state_has_row_one(database: Database) -> None:
    """R011: the older scripts only ever update it."""
    query = (
        "UPDATE polling_state SET last_orders_count = 3, last_check_time = CURRENT_TIMESTAMP WHERE id = 1 RETURNING id"
    )

    assert database.execute(query) == [(1,)]


def test_polling_metrics_has_the_older_plans_columns(database: Database) -> None:
    """R012: and refuses a word that no report knows."""
    query = (
        "SELECT column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns"
        " WHERE table_name = 'polling_metrics' ORDER BY ordinal_position LIMIT 6"
    )

    assert database.execute(query) == [
        ("id", "integer", None, "NO"),
        ("workflow_name", "character varying", 100, "NO"),
        ("check_timestamp", "timestamp without time zone", None, "YES"),
        ("record_count", "integer", None, "YES"),
        ("action_taken", "character varying", 50, "YES"),
        ("duration_ms", "integer", None, "YES"),
    ]
    with pytest.raises(psycopg.errors.CheckViolation):
        database.execute("INSERT INTO polling_metrics (workflow_name, action_taken) VALUES ('upload', 'slept')")


def test_report_of_24_hours_uses_the_index(database: Database) -> None:
    """R013: newest first."""
    database.execute(
        "INSERT INTO polling_metrics (workflow_name, check_timestamp, record_count, action_taken)"
        " SELECT 'upload', now() - n * interval '15 seconds', 0, 'skipped' FROM generate_series(1, 100000) AS n"
    )
    database.execute("ANALYZE polling_metrics")

    used = scans(
        database,
        "SELECT workflow_name, action_taken, count(*) FROM polling_metrics"
        " WHERE check_timestamp > NOW() - INTERVAL '24 hours' GROUP BY 1, 2",
    )

    assert used == {"idx_polling_metrics_timestamp"}
    [(definition,)] = database.execute("SELECT pg_get_indexdef('idx_polling_metrics_timestamp'::regclass)")
    assert "(check_timestamp DESC)" in definition
