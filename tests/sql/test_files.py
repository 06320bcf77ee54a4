"""Every file of the schema is plain SQL that psql can run, as often as one likes."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import Database
from psycopg import sql

from listener.db.files import SqlFile, schema_files, sql_dir
from listener.db.migrate import migrate

FILES = schema_files()
ODD_SCHEMA = "My-shop's"


def run_psql(psql: Path, database: Database, name: str, schema: str = "public") -> None:
    """Run one file as the README says, and fail with what psql said."""
    quoted = f'"{schema}"'.replace("\\", "\\\\").replace(" ", "\\ ")
    done = subprocess.run(
        [psql, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-q", "-f", sql_dir() / name, database.url],
        env={**os.environ, "PGOPTIONS": f"-c search_path={quoted} -c client_min_messages=warning"},
        capture_output=True,
        text=True,
    )
    assert (name, done.returncode, done.stderr) == (name, 0, "")


def objects(database: Database) -> list[tuple[str, ...]]:
    """What there is, where, and how functions and triggers are defined."""
    return database.execute(
        """SELECT n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
           WHERE nspname !~ '^(pg_|information_schema)' AND relname !~ '^listener_migrations'
           UNION ALL
           SELECT n.nspname, p.proname, pg_get_functiondef(p.oid)
           FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
           WHERE nspname !~ '^(pg_|information_schema)'
           UNION ALL
           SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
           ORDER BY 1, 2, 3"""
    )


@pytest.mark.parametrize("schema", ["public", ODD_SCHEMA])
def test_each_file_runs_twice_under_psql(empty_database: Database, database: Database, psql: Path, schema: str) -> None:
    """R023: in order, with ON_ERROR_STOP, and the result is that of `listener migrate`."""
    empty_database.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')

    for _ in range(2):
        for file in FILES:
            run_psql(psql, empty_database, file.name, schema)
            run_psql(psql, empty_database, file.name, schema)

    if schema == "public":
        assert objects(empty_database) == objects(database)
    else:
        assert {row[0] for row in objects(empty_database) if row[2] in "riSvt"} == {schema}


def test_psql_first_and_migrate_afterwards(empty_database: Database, psql: Path) -> None:
    """A database that was set up by hand goes on with `listener migrate`."""
    for file in FILES:
        run_psql(psql, empty_database, file.name)
    before = objects(empty_database)

    assert len(migrate(empty_database.url, "public").applied) == len(FILES)
    assert objects(empty_database) == before


def test_writers_need_neither_our_search_path_nor_our_rights(empty_database: Database) -> None:
    """The triggers work for anybody who may write the table, from any session."""
    role = f"{empty_database.name}_writer"
    migrate(empty_database.url, ODD_SCHEMA)
    schema = sql.Identifier(ODD_SCHEMA)
    statements = [
        "INSERT INTO {}.orders_inbox (order_number, payload) VALUES ('W-1', '{{}}')",
        "UPDATE {}.orders_inbox SET payload = '{{\"a\": 1}}'",
        "UPDATE {}.orders_inbox SET status = 'Failed'",
        "UPDATE {}.orders_inbox SET status = 'Pending'",
        "UPDATE {}.configuration_params SET param_value = '30' WHERE param_key = 'FAST_POLLING_INTERVAL'",
    ]
    empty_database.server.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    try:
        for grant in ("USAGE ON SCHEMA {}", "SELECT, INSERT, UPDATE ON {}.orders_inbox, {}.configuration_params"):
            names = [schema] * grant.count("{}")
            empty_database.execute(sql.SQL(f"GRANT {grant} TO").format(*names) + sql.Identifier(role))
        with empty_database.connect(options="-c search_path=pg_catalog") as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
            for statement in statements:
                assert conn.execute(sql.SQL(statement).format(schema)).rowcount == 1, statement
    finally:
        empty_database.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        empty_database.server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_migrations_are_numbered_without_gaps() -> None:
    """The order of application is the order of the names; what must come before an applied one shares a number."""
    between = {"migrations/0001_unmarked_orders.sql"}
    numbers = [int(Path(f.name).name[:4]) for f in FILES if f.kind == "migration" and f.name not in between]

    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_can_run_in_any_schema(file: SqlFile) -> None:
    """No file names a schema of ours, opens a transaction, or needs psql."""
    code = "\n".join(line.partition("--")[0] for line in file.text.splitlines())

    assert "public." not in code
    assert not [line for line in code.splitlines() if line.startswith("\\")]
    assert not {"BEGIN;", "COMMIT;", "ROLLBACK;", "SET search_path"} & {line.strip() for line in code.splitlines()}
    if file.kind == "function":
        assert file.text.startswith("--"), "a function says first what it is for, and who calls it"


@pytest.mark.parametrize("file", [f for f in FILES if f.kind != "migration"], ids=lambda file: file.name)
def test_function_and_trigger_files_hold_what_their_name_says(file: SqlFile) -> None:
    """One object per file, replaced where it stands."""
    name = Path(file.name).stem

    assert f"CREATE OR REPLACE {file.kind.upper()} {name}" in file.text
    assert file.text.count("CREATE OR REPLACE") == 1


def test_statements_are_split_where_they_end() -> None:
    """Semicolons in strings, names, comments and dollar quotes end nothing."""
    text = r"""-- listener: no transaction
SELECT ';', E'\';', 'it''s;' AS "a;b"; -- one;
/* two; */ DO $body$ BEGIN PERFORM 1; PERFORM $$;$$; END $body$;
SELECT $1;;
SELECT a$b$ FROM c;  -- no dollar quote
-- nothing;
SELECT 4"""

    file = SqlFile("migrations/0001_x.sql", "migration", text)

    assert not file.needs_transaction
    assert [s.rpartition("\n")[2] for s in file.statements] == [
        r"""SELECT ';', E'\';', 'it''s;' AS "a;b";""",
        "/* two; */ DO $body$ BEGIN PERFORM 1; PERFORM $$;$$; END $body$;",
        "SELECT $1;",
        "SELECT a$b$ FROM c;",
        "SELECT 4",
    ]
