"""The doctor on what somebody changed behind the books of the migrations: found, and mended by the advice."""

import re
from pathlib import Path

import anyio
import pytest
from conftest import Database, Server, fresh_database
from db.test_adoption import BARE_TABLES, NULLABLE_TABLE, OLD_TABLES
from docs.catalogue import FILE, definitions, text

from cli.ward import SCHEMA, Ward
from listener.cli.doctor.definitions import differences
from listener.db.doctor import catalogue
from listener.db.migrate import migrate


def test_the_catalogue_is_what_the_files_make(database: Database) -> None:
    """On every server that the tests run on."""
    made = text(anyio.run(definitions, database.service_url, "public"))
    assert made == FILE.read_text(), "cd tests && python -m docs.catalogue"


def test_another_schema_makes_no_difference(server: Server) -> None:
    with fresh_database(server) as database:
        database.install("Shop 1")
        found = anyio.run(definitions, database.service_url, "Shop 1")
    assert list(differences(catalogue(), found)) == []


@pytest.mark.parametrize("tables", [OLD_TABLES, BARE_TABLES, NULLABLE_TABLE], ids=["old", "bare", "nullable"])
def test_tables_of_the_older_scripts_are_no_fault(server: Server, tables: str) -> None:
    with fresh_database(server) as database:
        database.execute(tables)
        migrate(database.url, "public")  # as who owns the older tables; deploy/roles.sql hands them over
        database.grant()
        found = anyio.run(definitions, database.service_url, "public")
    assert list(differences(catalogue(), found)) == []


#: What is broken, and what is seen. The advice mends it.
BREAKS = {
    "a trigger's function does nothing": (
        "CREATE OR REPLACE FUNCTION listener_ring_inserted() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
        "function listener_ring_inserted is not this release's: somebody has replaced it",
    ),
    "a function runs as its caller": (
        "ALTER FUNCTION listener_configuration_changed() SECURITY INVOKER",
        "function listener_configuration_changed is not this release's: somebody has replaced it",
    ),
    "a function looks for names elsewhere": (
        "ALTER FUNCTION listener_privileges() SET search_path = pg_catalog, public",
        "function listener_privileges is not this release's: somebody has replaced it",
    ),
    "a function is gone": ("DROP FUNCTION config_restore(timestamptz)", "function config_restore is missing"),
    "a trigger fires for other rows": (
        "CREATE OR REPLACE TRIGGER orders_inbox_content BEFORE UPDATE OF payload ON orders_inbox FOR EACH ROW"
        " EXECUTE FUNCTION listener_content_changed('Uploaded')",
        "trigger orders_inbox.orders_inbox_content is now: CREATE TRIGGER orders_inbox_content BEFORE UPDATE OF",
    ),
    "a primary key is gone": (
        "ALTER TABLE orders_inbox DROP CONSTRAINT orders_inbox_pkey",
        "nothing makes rows unique by: orders_inbox btree (id)",
    ),
    "a unique index is gone": (
        "DROP INDEX orders_inbox_source_number_key",
        "nothing makes rows unique by: orders_inbox btree (source, order_number)",
    ),
    "a unique constraint is gone": (
        "ALTER TABLE webhook_events DROP CONSTRAINT webhook_events_connector_account_dedupe_key_key",
        "nothing makes rows unique by: webhook_events btree (connector, account, dedupe_key)",
    ),
    "a default is gone": (
        "ALTER TABLE orders_inbox ALTER scheduled_at DROP DEFAULT",
        "column orders_inbox.scheduled_at is now: timestamp with time zone NOT NULL; it should be: timestamp",
    ),
    "another default is gone": (
        "ALTER TABLE orders_inbox ALTER status DROP DEFAULT",
        "column orders_inbox.status is now: text NOT NULL; it should be: text NOT NULL DEFAULT",
    ),
    "a column is no longer numbered": (
        "ALTER TABLE orders_inbox ALTER id DROP IDENTITY",
        "column orders_inbox.id is numbered by nobody",
    ),
    "a column has another type": (
        "ALTER TABLE webhook_events ALTER dedupe_key TYPE varchar(20)",
        "column webhook_events.dedupe_key is now: character varying(20) NOT NULL; it should be: text NOT NULL",
    ),
    "a check is gone": (
        "ALTER TABLE sync_runs DROP CONSTRAINT sync_runs_reason_check",
        "no constraint: sync_runs CHECK (reason = ANY",
    ),
    "an index for reading is gone": (
        "DROP INDEX configuration_history_key_time",
        "no index: configuration_history btree (param_key, changed_at DESC)",
    ),
    "a sequence ends early": (
        "ALTER SEQUENCE listener_session_key NO CYCLE MAXVALUE 1000000",
        "sequence listener_session_key is now: by 1 from 1 to 1000000; it should be: by ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS)
def test_a_change_behind_the_books_is_found_and_mended(patient: Ward, broken: str) -> None:
    breaks, seen = BREAKS[broken]
    patient.database.execute(breaks)
    (finding,) = patient.trouble()["definitions"]
    mend(patient, finding.advice)
    assert finding.seen.startswith(seen), finding
    assert finding.verdict == (
        "fail" if re.search("function|trigger|unique by|default|numbered", broken + seen) else "warn"
    )
    assert patient.trouble() == {}


def test_the_type_of_an_older_column_stays(patient: Ward) -> None:
    """Its default is wanted, because people insert; the scripts beside us go on with the type that they know."""
    patient.database.execute("ALTER TABLE orders_inbox ALTER created_at DROP DEFAULT, ALTER created_at TYPE timestamp")
    (finding,) = patient.trouble()["definitions"]
    mend(patient, finding.advice)
    assert "created_at is now: timestamp without time zone; it should be: " in finding.seen
    assert "TYPE" not in finding.advice
    assert patient.trouble() == {}
    patient.database.execute("ALTER TABLE orders_inbox ALTER created_at TYPE timestamptz")


def test_a_column_is_renamed(patient: Ward) -> None:
    patient.database.execute("ALTER TABLE sync_runs RENAME COLUMN started_at TO began_at")
    (finding,) = patient.trouble()["definitions"]
    patient.database.execute("ALTER TABLE sync_runs RENAME COLUMN began_at TO started_at")
    assert finding.verdict == "fail"
    assert finding.seen == "column sync_runs.started_at is missing"
    assert finding.advice == (
        'ALTER TABLE "Shop_1".sync_runs ADD COLUMN started_at timestamp with time zone;'
        " or, if it was renamed, give it its name back"
    )


def test_a_table_is_gone(patient: Ward) -> None:
    """One line, not one for each of its columns."""
    patient.database.execute("DROP TABLE sync_quarantine")
    (finding,) = patient.trouble()["definitions"]
    assert finding.seen == "table sync_quarantine is missing"
    mend(patient, finding.advice.partition("empty: ")[2])
    assert patient.trouble() == {}


def mend(patient: Ward, advice: str) -> None:
    for step in advice.split("; "):
        if re.fullmatch(r"then run `listener migrate`", step):
            patient.migrate()
        else:
            patient.paste(step)
    patient.login.grant(patient.database.url, SCHEMA)  # a sequence that was made anew is granted to nobody


def test_the_catalogue_is_shipped() -> None:
    assert Path(FILE).parent.name == "sql"
    assert {each["kind"] for each in catalogue()} == {
        "column", "constraint", "function", "index", "sequence", "table", "trigger", "unique"
    }  # fmt: skip
