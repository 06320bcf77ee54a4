"""Attached tables in SQL: which rows are work, what their triggers do, and that detach leaves nothing behind."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Database, Server, fresh_database
from psycopg import sql
from queues import Bell

from listener.core.queue import Queue

INVOICES = """
CREATE TABLE invoices (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer text, amount numeric, note json)
"""
#: Everything that a table may bring along, our columns' names among it.
RICH = """
CREATE TABLE invoices (
    "Number" text COLLATE "C" NOT NULL UNIQUE, status varchar(20) NOT NULL DEFAULT 'new' CHECK (status <> ''),
    priority integer, scheduled_at timestamptz, updated_at timestamp DEFAULT LOCALTIMESTAMP, gone integer,
    amount numeric(10, 2) CHECK (amount > 0), doubled numeric GENERATED ALWAYS AS (amount * 2) STORED
) WITH (fillfactor = 90);
ALTER TABLE invoices DROP COLUMN gone;
CREATE INDEX invoices_status ON invoices (status) WHERE status = 'paid';
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.updated_at := now(); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE UPDATE ON invoices FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE VIEW paid AS SELECT "Number", status FROM invoices WHERE status = 'paid';
COMMENT ON TABLE invoices IS 'what we are owed'; COMMENT ON COLUMN invoices.status IS 'the clerk''s word';
"""
PARTS = """
CREATE TABLE parts (id bigint PRIMARY KEY, amount numeric) PARTITION BY RANGE (id);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
CREATE TABLE parts_b_1 PARTITION OF parts_b FOR VALUES FROM (100) TO (150);
"""
ODD = """
CREATE SCHEMA "My ""Shop";
CREATE TABLE "My ""Shop"."Order's %s" (
    "select" uuid PRIMARY KEY DEFAULT gen_random_uuid(), "from, to" json, "ÄÖ" text[]
);
"""
ODD_NAME = """'"My ""Shop"."Order''s %s"'"""
LONG = "invoice_" * 7 + "ßßß"  # 62 bytes

TABLES = {
    "plain": (INVOICES, "SELECT attach_queue('invoices')", "invoices"),
    "with content": (INVOICES, "SELECT attach_queue('invoices', content => '{amount,note}')", "invoices"),
    "rich": (RICH, """SELECT attach_queue('invoices', key => 'Number', ready => 'paid')""", "invoices"),
    "partitioned": (PARTS, "SELECT attach_queue('parts', content => '{amount}')", "parts"),
    "odd names": (
        ODD,
        f"SELECT attach_queue({ODD_NAME}, ready => 'it''s %', done => '\"', content => '{{\"from, to\",ÄÖ}}')",
        '"My ""Shop"."Order\'s %s"',
    ),
    "long name": (f"CREATE TABLE {LONG} (id integer PRIMARY KEY)", f"SELECT attach_queue('{LONG}')", LONG),
}


def run(database: Database, statement: str) -> list[tuple[Any, ...]]:
    """Run SQL that contains % signs of its own."""
    return database.execute(statement.encode())


def description(database: Database, psql: Path) -> str:
    """The whole schema as pg_dump writes it, without its random marks."""
    dump = [psql.with_name("pg_dump"), "--schema-only", database.url]
    done = subprocess.run(dump, env={**os.environ, "PGCLIENTENCODING": "UTF8"}, capture_output=True, check=True)
    return "\n".join(
        line for line in done.stdout.decode().splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


def catalog(database: Database) -> list[tuple[Any, ...]]:
    """Of every relation what a dump may not show: the file, options, columns, and what hangs on them."""
    return database.execute(
        """SELECT c.oid::regclass::text, c.relkind, c.reloptions::text, c.relreplident, c.relfilenode,
            (SELECT string_agg(concat_ws(
                ' ', attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, attstattarget,
                attoptions, attacl, col_description(c.oid, attnum), pg_get_expr(adbin, adrelid)), ', ' ORDER BY attnum)
             FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
            (SELECT string_agg(pg_get_triggerdef(oid), ', ' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = c.oid),
            (SELECT string_agg(pg_get_constraintdef(oid), ', ' ORDER BY conname)
             FROM pg_constraint WHERE conrelid = c.oid),
            CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END
           FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
           WHERE n.nspname !~ '^(pg_|information_schema)' ORDER BY 1"""
    )


@pytest.mark.parametrize("what", TABLES)
def test_detach_leaves_the_table_as_it_was(database: Database, psql: Path, what: str) -> None:
    """To the byte of a dump and to the file that holds the rows; also after attaching twice."""
    table, attach, name = TABLES[what]
    run(database, table)
    before = description(database, psql), catalog(database)

    for _ in range(2):
        run(database, attach)
    assert description(database, psql) != before[0]
    database.execute(sql.SQL("SELECT detach_queue({})").format(sql.Literal(name)))

    assert (description(database, psql), catalog(database)) == before
    assert database.execute("SELECT * FROM listener_queues") == []


@pytest.mark.parametrize("what", TABLES)
def test_attaching_again_finds_nothing_to_do(database: Database, what: str) -> None:
    table, attach, name = TABLES[what]
    run(database, table)
    run(database, attach)
    before = catalog(database), database.execute("SELECT * FROM listener_queues")

    run(database, attach)
    run(database, f"SELECT attach_queue({sql.Literal(name).as_string()})")

    assert database.execute(sql.SQL("SELECT * FROM attach_queue_plan({})").format(sql.Literal(name))) == []
    assert (catalog(database), database.execute("SELECT * FROM listener_queues")) == before


def test_the_queue_is_named_after_the_table_and_a_foreign_schema(database: Database) -> None:
    run(database, INVOICES + "; CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY)")
    assert run(database, "SELECT attach_queue('invoices'), attach_queue('billing.invoices')") == [
        ("invoices", "billing.invoices")
    ]


def test_a_table_of_the_same_name_is_another_one(database: Database) -> None:
    """The first was dropped, and its entry on the books with it: what the second brought along stays after detach."""
    run(database, INVOICES + "; SELECT attach_queue('invoices', done => 'Sent')")
    run(database, "DROP TABLE invoices; CREATE TABLE invoices (n int PRIMARY KEY, status text, last_error text)")
    run(database, "SELECT attach_queue('invoices')")
    assert run(database, "SELECT key_column, done_word FROM listener_queues") == [("n", "Done")]
    run(database, "SELECT detach_queue('invoices')")
    run(database, "SELECT n, status, last_error FROM invoices")


def test_rows_that_are_there_already_are_no_work(database: Database) -> None:
    """Until a person says so."""
    run(database, INVOICES + "; INSERT INTO invoices (customer) VALUES ('a'), ('b'); SELECT attach_queue('invoices')")
    run(database, "INSERT INTO invoices (customer) VALUES ('c')")
    assert run(database, "SELECT customer, status FROM invoices ORDER BY id") == [
        ("a", "Existing"),
        ("b", "Existing"),
        ("c", "Pending"),
    ]
    run(database, "UPDATE invoices SET status = 'Pending' WHERE customer = 'a'")
    assert run(database, "SELECT customer FROM invoices WHERE status = 'Pending' ORDER BY id") == [("a",), ("c",)]


def test_a_status_of_the_tables_own_is_left_alone(database: Database) -> None:
    """Its values, its default, its length; columns that a new row needs for a claim get a default."""
    run(database, RICH + "INSERT INTO invoices VALUES ('1', 'paid'), ('2', 'open')")
    run(database, "SELECT attach_queue('invoices', key => 'Number', ready => 'paid')")
    run(database, """INSERT INTO invoices ("Number") VALUES ('3')""")
    assert run(database, """SELECT "Number", status, priority, scheduled_at IS NULL FROM invoices ORDER BY 1""") == [
        ("1", "paid", None, True),
        ("2", "open", None, True),
        ("3", "new", 100, False),
    ]


def test_what_a_person_should_know_is_said(database: Database) -> None:
    run(database, "CREATE TABLE t (id int PRIMARY KEY, status text, priority int, scheduled_at timestamptz NOT NULL)")
    said: list[str | None] = []
    with database.connect() as conn:
        conn.add_notice_handler(lambda diag: said.append(diag.message_primary))
        conn.execute("SELECT attach_queue('t', ready => 'it''s')")
    assert said[:2] == [
        "status of t has no default: a new row is work only when it is inserted with status 'it''s'",
        "priority of t may be null: a row without is never claimed",
    ]


@pytest.fixture
def bell(database: Database) -> Bell:
    return Bell(database.connect(as_service=True))


def turn_on(bell: Bell, table: str, schema: str | None = None) -> None:
    assert bell.turn_on(Queue(name=table, table=table, schema=schema)) == "held"


@pytest.mark.parametrize("ready", ["Pending", "paid"])
def test_the_bell_follows_the_ready_word(database: Database, bell: Bell, ready: str) -> None:
    run(database, f"{INVOICES}; SELECT attach_queue('invoices', ready => '{ready}', content => '{{amount}}')")
    turn_on(bell, "invoices")
    other = {"Pending": "paid", "paid": "Pending"}[ready]
    for statement, rings in {
        f"INSERT INTO invoices (status) VALUES ('{other}')": [],
        f"INSERT INTO invoices (status, scheduled_at) VALUES ('{ready}', now() + interval '1 day')": [],
        "INSERT INTO invoices DEFAULT VALUES": ["invoices"],
        "INSERT INTO invoices (status) SELECT 'Done' FROM generate_series(1, 9)": [],
        f"UPDATE invoices SET status = '{other}'": [],
        f"UPDATE invoices SET status = '{ready}' WHERE id = 1": ["invoices"],
        "UPDATE invoices SET customer = 'x'": [],
        "UPDATE invoices SET status = 'Done'": [],
        "UPDATE invoices SET amount = 5": ["invoices"],
    }.items():
        run(database, statement)
        assert bell.rings() == rings, statement


def test_who_writes_no_work_keeps_no_listener_awake(database: Database, bell: Bell) -> None:
    """With a ready word of the table's own most of what is inserted may be none, and somebody is always in flight."""
    run(database, f"{INVOICES}; SELECT attach_queue('invoices', ready => 'paid')")
    writer = database.connect()
    writer.execute("BEGIN; INSERT INTO invoices (status) VALUES ('open')")
    turn_on(bell, "invoices")
    writer.execute("INSERT INTO invoices (status) VALUES ('paid')")
    assert bell.rings() == []
    writer.execute("COMMIT")
    assert bell.rings() == ["invoices"]


@pytest.mark.parametrize(
    ("left_as", "again"), [("Sent", "paid"), ("Failed", "paid"), ("Done", "Done"), ("open", "open")]
)
def test_an_edit_makes_a_finished_row_work_again(database: Database, left_as: str, again: str) -> None:
    """By the queue's own words; json and lists of it, which have no equality, never fail the writer."""
    run(database, "CREATE TABLE t (id int PRIMARY KEY, one json, many json[], free text)")
    run(database, "SELECT attach_queue('t', ready => 'paid', done => 'Sent', content => '{one,many}')")
    run(database, f"INSERT INTO t VALUES (1, '{{}}', '{{1}}', 'a', '{left_as}'); UPDATE t SET attempts = 3")
    run(database, "UPDATE t SET free = 'b', one = one")
    assert run(database, "SELECT status, attempts, revision FROM t") == [(left_as, 3, 0)]
    run(database, "UPDATE t SET many = '{1,2}'")
    assert run(database, "SELECT status, attempts, revision FROM t") == [(again, 0 if again == "paid" else 3, 1)]


def test_without_content_an_edit_is_no_work(database: Database) -> None:
    """A handler that writes its own row would run for ever."""
    run(database, INVOICES + "; SELECT attach_queue('invoices'); INSERT INTO invoices (status) VALUES ('Done')")
    run(database, "UPDATE invoices SET amount = 1, customer = 'x'")
    assert run(database, "SELECT status, revision FROM invoices") == [("Done", 0)]


def test_content_can_be_changed_later(database: Database) -> None:
    run(database, INVOICES + "; SELECT attach_queue('invoices', content => '{amount}')")
    run(database, "INSERT INTO invoices (status) VALUES ('Done')")
    run(database, "SELECT attach_queue('invoices', content => '{customer}')")
    run(database, "UPDATE invoices SET amount = 1")
    assert run(database, "SELECT status FROM invoices") == [("Done",)]
    run(database, "UPDATE invoices SET customer = 'x'")
    assert run(database, "SELECT status FROM invoices") == [("Pending",)]
    run(database, "SELECT attach_queue('invoices', content => '{}')")
    run(database, "UPDATE invoices SET status = 'Done'; UPDATE invoices SET customer = 'y'")
    assert run(database, "SELECT status FROM invoices") == [("Done",)]


def test_a_retry_by_hand_starts_anew(database: Database, bell: Bell) -> None:
    run(database, INVOICES + "; SELECT attach_queue('invoices', ready => 'paid')")
    turn_on(bell, "invoices")
    run(database, "INSERT INTO invoices (status, attempts, finished_at) VALUES ('Failed', 7, now())")
    run(database, "UPDATE invoices SET status = 'paid'")
    assert run(database, "SELECT status, attempts, finished_at FROM invoices") == [("paid", 0, None)]
    assert bell.rings() == ["invoices"]


@pytest.mark.parametrize("path", ["hostile, pg_catalog", "nowhere", "''"])
def test_a_writer_needs_neither_our_rights_nor_our_search_path(database: Database, bell: Bell, path: str) -> None:
    role = sql.Identifier(f"{database.name}_writer")
    run(database, "CREATE SCHEMA shop; CREATE TABLE shop.t (id int PRIMARY KEY, a json); CREATE SCHEMA hostile")
    for function in ("now()", "pg_notify(text, text)", "pg_partition_root(regclass)"):
        body = "LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hostile''; END'"
        run(database, f"CREATE FUNCTION hostile.{function} RETURNS void {body}")
    run(database, "SELECT attach_queue('shop.t', content => '{a}')")
    database.grant()
    turn_on(bell, "t", "shop")
    database.server.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        database.execute(
            sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA shop TO {}").format(role)
        )
        database.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE ON shop.t TO {}").format(role))
        with database.connect() as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            conn.execute(f"SET search_path = {path}")
            for statement in (
                "INSERT INTO shop.t VALUES (1, '{}')",
                "UPDATE shop.t SET status = 'Done'",
                "UPDATE shop.t SET a = '[]'",
                "UPDATE shop.t SET status = 'Failed'",
                "UPDATE shop.t SET status = 'Pending'",
            ):
                conn.execute(statement.encode())
        assert bell.rings() == ["t"] * 3
    finally:
        database.execute(sql.SQL("DROP OWNED BY {}").format(role))
        database.server.execute(sql.SQL("DROP ROLE {}").format(role))


def test_rows_ring_by_the_roots_name_wherever_they_are_put(database: Database, bell: Bell) -> None:
    run(database, PARTS + "SELECT attach_queue('parts', content => '{amount}')")
    turn_on(bell, "parts")
    for statement in (
        "INSERT INTO parts VALUES (1), (101)",
        "INSERT INTO parts_a VALUES (2)",
        "INSERT INTO parts_b VALUES (102)",
        "INSERT INTO parts_b_1 VALUES (103)",
    ):
        run(database, statement)
        heard = bell.rings()
        assert heard == ([] if "parts_b VALUES" in statement else ["parts"]), statement
    run(database, "UPDATE parts SET status = 'Done'")
    run(database, "UPDATE parts_b_1 SET amount = 1 WHERE id = 103; UPDATE parts_a SET status = 'Pending' WHERE id = 2")
    assert bell.rings() == ["parts"]
    assert run(database, "SELECT id FROM parts WHERE status = 'Pending' ORDER BY 1") == [(2,), (103,)]


def test_a_restored_dump_rings_as_before(database: Database, server: Server, psql: Path) -> None:
    """The trigger's condition names the table, not its number, which is another one there."""
    run(database, f"{ODD}; SELECT attach_queue({ODD_NAME})")
    dump = subprocess.run([psql.with_name("pg_dump"), database.url], capture_output=True, check=True)
    with fresh_database(server) as restored:
        subprocess.run(
            [psql, "-q", "-v", "ON_ERROR_STOP=1", restored.url], input=dump.stdout, capture_output=True, check=True
        )
        sleeper = Bell(restored.connect())
        turn_on(sleeper, "Order's %s", 'My "Shop')
        run(restored, """INSERT INTO "My ""Shop"."Order's %s" DEFAULT VALUES""")
        assert sleeper.rings() == ["Order's %s"]


def test_a_newer_partition_is_found_and_mended(database: Database, bell: Bell) -> None:
    """Rows inserted through the root ring all the same; its own trigger comes with the next attach."""
    run(database, PARTS + "SELECT attach_queue('parts')")
    turn_on(bell, "parts")
    assert run(database, "SELECT * FROM listener_silent_partitions()") == []
    run(database, "CREATE TABLE parts_b_2 PARTITION OF parts_b FOR VALUES FROM (150) TO (200)")
    assert run(database, "SELECT queue, partition::text FROM listener_silent_partitions()") == [("parts", "parts_b_2")]
    run(database, "INSERT INTO parts_b_2 VALUES (151)")
    assert bell.rings() == []
    run(database, "INSERT INTO parts VALUES (152)")
    assert bell.rings() == ["parts"]

    run(database, "SELECT attach_queue('parts')")

    assert run(database, "SELECT * FROM listener_silent_partitions()") == []
    run(database, "INSERT INTO parts_b_2 VALUES (153)")
    assert bell.rings() == ["parts"]
    run(database, "SELECT detach_queue('parts')")
    assert run(database, "SELECT count(*) FROM pg_trigger WHERE tgname ~ '^listener'") == [(0,)]


def test_a_trigger_that_rings_otherwise_is_made_anew(database: Database, bell: Bell) -> None:
    """Of an older release, copied from another table, or of a queue that has become a partition."""
    run(database, INVOICES + "; CREATE TABLE other (); SELECT attach_queue('invoices')")
    good = run(database, "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'listener_inserted'")
    for wrong in (
        good[0][0].replace("'invoices'::regclass", "'other'::regclass"),
        re.sub(r"WHEN \(.*\) EXECUTE FUNCTION (.*)\(\)", r"EXECUTE FUNCTION \1('Pending')", good[0][0]),
    ):
        assert wrong != good[0][0]
        run(database, wrong.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER"))
        assert run(database, "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'listener_inserted'") != good
        run(database, "SELECT attach_queue('invoices')")
        assert run(database, "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'listener_inserted'") == good

    run(database, PARTS + "SELECT attach_queue('parts')")
    turn_on(bell, "parts")
    condition = "NOT pg_try_advisory_xact_lock_shared(1869374562, 'parts_a'::regclass::oid::integer)"
    run(
        database,
        "CREATE OR REPLACE TRIGGER listener_inserted AFTER INSERT ON parts_a REFERENCING NEW TABLE AS inserted"
        f" FOR EACH STATEMENT WHEN ({condition}) EXECUTE FUNCTION listener_ring_inserted()",
    )
    run(database, "INSERT INTO parts_a VALUES (1)")
    assert bell.rings() == []
    assert run(database, "SELECT partition::text FROM listener_silent_partitions()") == [("parts_a",)]
    run(database, "SELECT attach_queue('parts')")
    assert run(database, "SELECT partition::text FROM listener_silent_partitions()") == []
    run(database, "INSERT INTO parts_a VALUES (2)")
    assert bell.rings() == ["parts"]


def test_the_triggers_are_those_of_orders_inbox(database: Database) -> None:
    """One set of rules: with the same words the same conditions, word for word."""
    run(database, "CREATE TABLE parcels (id int PRIMARY KEY); SELECT attach_queue('parcels')")

    def triggers(table: str, prefix: str) -> set[str]:
        of_table = f"WHERE tgrelid = '{table}'::regclass AND NOT tgisinternal"
        found = run(database, f"SELECT pg_get_triggerdef(oid) FROM pg_trigger {of_table}")
        return {re.sub(r"\([^(]*\)$", "", row[0]).replace(prefix, "").replace(table, "") for row in found}

    ours = triggers("parcels", "TRIGGER listener_")
    assert len(ours) == 3
    assert ours <= triggers("orders_inbox", "TRIGGER orders_inbox_")


def test_columns_that_become_the_queues_are_told_once(database: Database) -> None:
    """What the table brought along means something else from now on."""
    told: list[str] = []
    with database.connect() as conn:
        conn.add_notice_handler(lambda diag: told.append(diag.message_primary or ""))
        conn.execute(RICH)
        for _ in range(2):
            conn.execute("""SELECT attach_queue('invoices', key => 'Number', ready => 'paid', done => 'Sent')""")
    adopted = dict(text.split(" of invoices becomes the queue's, and handlers do not see it: ") for text in told[1:-1])
    assert told[0].startswith("priority, scheduled_at of invoices may be null")
    assert list(adopted) == ["status", "priority", "scheduled_at", "updated_at"]
    assert adopted["status"].startswith("a row with 'paid' is work, also one that is there already; Processing, Sent")
    assert adopted["priority"] == "a lower one runs sooner"
