"""What attach_queue and detach_queue refuse: the text says what is wrong, the hint what to do, nothing is changed."""

import psycopg
import pytest
from conftest import Database
from psycopg import sql
from test_attach import PARTS, catalog, run

WITH_STATUS = "CREATE TABLE t (id int PRIMARY KEY, status {})"
WITH_COLUMN = "CREATE TABLE t (id int PRIMARY KEY, {})"
T = "CREATE TABLE t (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 2) STORED)"
REFUSED = {
    "a view": (
        "CREATE VIEW t AS SELECT 1 AS id",
        "",
        "t is a view, and only a table can be a queue",
        "attach the table that",
    ),
    "a materialized view": (
        "CREATE MATERIALIZED VIEW t AS SELECT 1 AS id",
        "",
        "t is a materialized view, and",
        "attach the",
    ),
    "a sequence": ("CREATE SEQUENCE t", "", "t is a sequence, and only a table can be a queue", "attach"),
    "a foreign table": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE t () SERVER s",
        "",
        "t is a foreign table, and only a table can be a queue",
        "attach the table",
    ),
    "a foreign partition": (
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;"
        "CREATE TABLE t (id int) PARTITION BY LIST (id); CREATE FOREIGN TABLE f PARTITION OF t DEFAULT SERVER s",
        "",
        "t has a partition that is a foreign table, whose rows cannot be claimed",
        "detach that partition",
    ),
    "a temporary table": (
        "CREATE TEMPORARY TABLE t (id int PRIMARY KEY)",
        "",
        "t is a temporary table: no listener can see its rows",
        "attach a",
    ),
    "a partition": (PARTS + "ALTER TABLE parts_b_1 RENAME TO t", "", "t is a partition of parts_b", "attach parts"),
    "an heir": (
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (p)",
        "",
        "t inherits from another table",
        "use partitions",
    ),
    "a testator": (
        T + "; CREATE TABLE c () INHERITS (t)",
        "",
        "t inherits from another table or another one from it",
        "use partitions",
    ),
    "a name of ours": (
        "CREATE TABLE import (id int PRIMARY KEY)",
        "import",
        "import would be a queue of the same name",
        "rename the table",
    ),
    "no key": (
        "CREATE TABLE t (a int)",
        "",
        "t has no primary key of a single column",
        "make one: a NOT NULL column with a unique",
    ),
    "a key of two": (
        "CREATE TABLE t (a int, b int, c int NOT NULL UNIQUE, d text NOT NULL UNIQUE, PRIMARY KEY (a, b))",
        "",
        "t has no primary key of a single column",
        "choose as the key one of: c, d",
    ),
    "an unknown key": (T, "key => 'x'", "t has no column x", "choose as the key one of: id"),
    "a key that may be null": (
        "CREATE TABLE t (a int UNIQUE, id int PRIMARY KEY)",
        "key => 'a'",
        "column a of t cannot be the key: it must be NOT NULL",
        "choose as the key one of: id",
    ),
    "a key of some rows": (
        "CREATE TABLE t (a int NOT NULL); CREATE UNIQUE INDEX ON t (a) WHERE a > 0",
        "key => 'a'",
        "column a of t cannot be the key",
        "make one",
    ),
    "a key of an expression": (
        "CREATE TABLE t (a text NOT NULL); CREATE UNIQUE INDEX ON t (lower(a))",
        "key => 'a'",
        "column a of t cannot be the key",
        "make one",
    ),
    "a key that we write": (
        "CREATE TABLE t (id int PRIMARY KEY, claim_id bigint NOT NULL UNIQUE)",
        "key => 'claim_id'",
        "column claim_id of t cannot be the key",
        "choose as the key one of: id",
    ),
    "a partition key of two": (
        "CREATE TABLE t (a int, b int, PRIMARY KEY (a, b)) PARTITION BY LIST (b)",
        "",
        "t has no primary key of a single column",
        "a partitioned table can only be a queue when it is partitioned by its key",
    ),
    "equal words": (
        T,
        "ready => 'Done'",
        "ready word 'Done' and done word 'Done' must differ from each other",
        "choose other words",
    ),
    "an empty word": (T, "done => ''", "ready word 'Pending' and done word '' must differ", "choose other words"),
    "a word of ours": (
        T,
        "ready => 'Processing'",
        "ready word 'Processing' and done word 'Done' must differ",
        "choose other words",
    ),
    "the word of old rows": (
        T,
        "ready => 'Existing'",
        "ready word 'Existing' and done word 'Done' must differ",
        "choose other words",
    ),
    "an enum": (
        "CREATE TYPE word AS ENUM ('Pending', 'Processing', 'Done', 'Failed');" + WITH_STATUS.format("word"),
        "",
        "column status of t is word, but the queue needs text or character varying",
        "an enumeration does not hold the queue's words; rename the column, or ALTER TABLE t ALTER COLUMN status TYPE",
    ),
    "a number as status": (
        WITH_STATUS.format("int"),
        "",
        "column status of t is integer, but the queue needs text",
        "rename the column",
    ),
    "a short status": (
        WITH_STATUS.format("varchar(9)"),
        "",
        "column status of t is character varying(9), too short for 'Processing'",
        "ALTER TABLE t ALTER COLUMN status TYPE text",
    ),
    "a status too short for a word": (
        WITH_STATUS.format("varchar(10)"),
        "done => 'Sent to them'",
        "column status of t is character varying(10), too short for 'Sent to them'",
        "ALTER",
    ),
    "a status that is checked": (
        WITH_STATUS.format("text CHECK (status IN ('Pending', 'Done'))"),
        "",
        "constraint t_status_check of t does not let status be 'Processing'",
        "let it allow Pending, Processing, Done, Failed, or drop it",
    ),
    "a status from a list": (
        "CREATE TABLE words (status text PRIMARY KEY); INSERT INTO words VALUES ('Pending'), ('Processing'), ('Done');"
        "CREATE TABLE t (id int PRIMARY KEY, status text REFERENCES words)",
        "",
        "constraint t_status_fkey of t does not let status be 'Failed'",
        "let it allow Pending, Processing, Done, Failed, or drop it",
    ),
    "a generated column": (
        WITH_COLUMN.format("attempts int GENERATED ALWAYS AS (1) STORED"),
        "",
        "column attempts of t is generated, but the queue must write it",
        "rename the column",
    ),
    "a time without zone": (
        WITH_COLUMN.format("scheduled_at timestamp"),
        "",
        "column scheduled_at of t is timestamp without time zone, but the queue needs timestamp with time zone",
        "rename the column, or ALTER TABLE t ALTER COLUMN scheduled_at TYPE timestamptz",
    ),
    "an error of 50 characters": (
        WITH_COLUMN.format("last_error varchar(50)"),
        "",
        "column last_error of t is character varying(50), but the queue needs text",
        "rename",
    ),
    "a claim as text": (
        WITH_COLUMN.format("claim_id text"),
        "",
        "column claim_id of t is text, but the queue needs bigint",
        "rename",
    ),
    "an end that must be": (
        WITH_COLUMN.format("finished_at timestamptz NOT NULL"),
        "",
        "column finished_at of t is NOT NULL, but the queue must be able to empty it",
        "ALTER TABLE t ALTER COLUMN finished_at DROP NOT NULL",
    ),
    "unknown content": (
        T,
        "content => '{x}'",
        "column x of t cannot be content: there is no such column",
        "choose from: a",
    ),
    "the key as content": (
        T,
        "content => '{a,id}'",
        "column id of t cannot be content: it is the key",
        "choose from: a",
    ),
    "nothing to choose content from": (
        "CREATE TABLE t (id int PRIMARY KEY)",
        "content => '{id}'",
        "column id of t cannot be content: it is the key",
        "choose from: none",
    ),
    "generated content": (
        T,
        "content => '{b}'",
        "column b of t cannot be content: it is generated: name the columns",
        "choose from: a",
    ),
    "our own content": (
        T,
        "content => '{status}'",
        "column status of t cannot be content: there is no such column",
        "choose from: a",
    ),
    "adopted content": (
        WITH_STATUS.format("text, a int"),
        "content => '{status}'",
        "column status of t cannot be content: it is one of the queue's own columns",
        "choose from: a",
    ),
    "a renamed queue": (
        "CREATE TABLE u (id int PRIMARY KEY); SELECT attach_queue('u'); ALTER TABLE u RENAME TO t",
        "",
        "t has the triggers of a queue, but is not on the books",
        "if it was renamed: give it its former name and schema, detach it, and rename it then;"
        " if it was a partition of a queue: DROP TRIGGER listener_inserted ON t",
    ),
    "an index's name that is taken": (
        "CREATE TABLE u (id int); CREATE INDEX t_listener_failed ON u (id); CREATE TABLE t (id int PRIMARY KEY)",
        "",
        "the index t_listener_failed of t cannot be made: its name is taken, by u",
        "rename what has that name",
    ),
    "another done word": (
        T + "; SELECT attach_queue('t')",
        "done => 'Sent'",
        "t is attached with the key id, the ready word 'Pending' and the done word 'Done'",
        "leave these out, or detach the table first",
    ),
    "another ready word": (
        T + "; SELECT attach_queue('t')",
        "ready => 'paid'",
        "t is attached with the key id, the ready word 'Pending'",
        "leave these out",
    ),
    "another key": (
        "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL UNIQUE); SELECT attach_queue('t')",
        "key => 'n'",
        "t is attached with the key id",
        "leave these out",
    ),
    "a catalog": ("SELECT 1", "pg_class", "pg_class belongs to PostgreSQL itself", "attach a table of your own"),
}


def refusal(database: Database, statement: str) -> tuple[str, str]:
    """What it says: the error and the hint."""
    with pytest.raises(psycopg.Error) as caught:
        run(database, statement)
    return caught.value.diag.message_primary or "", caught.value.diag.message_hint or ""


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_a_queue_is_refused_with_the_cure(database: Database, what: str) -> None:
    """And nothing is changed."""
    table, arguments, text, hint = REFUSED[what]
    run(database, table)
    before = catalog(database)
    name = "t" if not arguments or "=>" in arguments else arguments

    said = refusal(database, f"SELECT attach_queue('{name}'{', ' + arguments if '=>' in arguments else ''})")

    assert (said[0].startswith(text), said[1].startswith(hint)) == (True, True), said
    assert catalog(database) == before


def test_no_conversion_is_advised_that_the_server_refuses(database: Database) -> None:
    run(database, WITH_COLUMN.format("priority text"))
    assert refusal(database, "SELECT attach_queue('t')") == (
        "column priority of t is text, but the queue needs smallint or integer or bigint",
        "rename the column",
    )


def test_every_table_of_the_listener_is_refused(database: Database) -> None:
    ours = run(database, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
    assert len(ours) > 7
    for (name,) in ours:
        assert refusal(database, f"SELECT attach_queue('{name}')")[0] == f"{name} is one of the listener's own tables"


def test_only_the_owner_may_attach(database: Database) -> None:
    role = f"{database.name}_other"
    run(database, T)
    database.server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    try:
        with database.connect() as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
                conn.execute("SELECT attach_queue('t')")
        assert caught.value.diag.message_primary == f"only its owner can change table t, which is postgres, not {role}"
    finally:
        database.server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_detach_refuses_what_is_not_attached(database: Database) -> None:
    run(database, T + "; CREATE TABLE u (id int PRIMARY KEY)")
    assert refusal(database, "SELECT detach_queue('t')") == ("table t is not attached", "attached are: none")
    run(database, "SELECT attach_queue('u')")
    assert refusal(database, "SELECT detach_queue('t')")[1] == "attached are: u"


def test_detach_refuses_while_rows_are_worked_on(database: Database) -> None:
    run(database, T + "; SELECT attach_queue('t'); INSERT INTO t (id) SELECT generate_series(1, 3)")
    run(database, "UPDATE t SET status = 'Processing', claim_id = id WHERE id < 3")
    said = refusal(database, "SELECT detach_queue('t')")
    assert said[0] == "2 rows of t are being worked on"
    assert "use force" in said[1]
    run(database, "SELECT detach_queue('t', force => true)")
    assert run(database, "SELECT count(*), count(a) FROM t") == [(3, 0)]


def test_detach_does_not_take_what_others_build_upon(database: Database) -> None:
    run(database, T + "; SELECT attach_queue('t'); CREATE VIEW due AS SELECT id FROM t WHERE status = 'Pending'")
    assert "cannot drop column status of table t" in refusal(database, "SELECT detach_queue('t')")[0]
    assert run(database, "SELECT * FROM attach_queue_plan('t')") == []
