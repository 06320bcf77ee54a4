"""Migrations: applied once, in order, by one process at a time, into the schema that was asked for."""

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from conftest import Database, fresh_database
from psycopg import sql
from waiting import until

from listener.core.errors import ConfigError, DatabaseError, Unmigrated
from listener.db.files import SqlFile, schema_files
from listener.db.migrate import dry_run, migrate, plan, status, verify, verify_async
from listener.db.pool import KEEPALIVES

ODD_NAMES = ["Shop", "my-shop", 'we"ird', "o'clock", "with space", "ünïcode", "select", "100%s", "a" * 63]

TABLE = SqlFile("migrations/0001_notes.sql", "migration", "CREATE TABLE IF NOT EXISTS notes (id int, body text);\n")
COLUMN = SqlFile("migrations/0002_done.sql", "migration", "ALTER TABLE notes ADD COLUMN IF NOT EXISTS done boolean;\n")
FUNCTION = SqlFile(
    "functions/answer.sql",
    "function",
    "CREATE OR REPLACE FUNCTION answer() RETURNS int LANGUAGE sql AS 'SELECT 41';\n",
)
SMALL = (TABLE, COLUMN, FUNCTION)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture
def login(empty_database: Database) -> Iterator[str]:
    """The address of a user who may do nothing in the empty database."""
    name, server = f"{empty_database.name}_guest", empty_database.server
    server.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'seCret'").format(sql.Identifier(name)))
    empty_database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    yield psycopg.conninfo.make_conninfo(empty_database.url, user=name, password="seCret")
    empty_database.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
    server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def dump(psql: Path, url: str) -> str:
    """All definitions of a database, without the token that pg_dump makes up each time."""
    done = subprocess.run([psql.with_name("pg_dump"), "--schema-only", url], capture_output=True, text=True, check=True)
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def waiting_count(database: Database) -> int:
    return database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'listener migrate' AND wait_event_type = 'Lock'"
    )[0][0]


def test_fresh_database_gets_every_file(empty_database: Database) -> None:
    """The report, the books, the status and the check agree."""
    names = tuple(f.name for f in schema_files())

    report = migrate(empty_database.url, "public")

    assert report.applied == names
    assert (report.created_schema, report.unchanged_count) == (False, 0)
    assert {row[0] for row in empty_database.execute("SELECT name FROM listener_migrations")} == set(names)
    assert [(s.name, s.state) for s in status(empty_database.url, "public")] == [(name, "applied") for name in names]
    with empty_database.connect() as conn:
        verify(conn, "public")


def test_second_run_changes_nothing(database: Database, psql: Path) -> None:
    """Not one definition, not one time in the books."""
    before = dump(psql, database.url), database.execute("TABLE listener_migrations")

    report = migrate(database.url, "public")

    assert (report.applied, report.unchanged_count) == ((), len(schema_files()))
    assert (dump(psql, database.url), database.execute("TABLE listener_migrations")) == before


def test_books_hold_kind_and_checksum(empty_database: Database) -> None:
    """The checksum is that of the text with plain line ends."""
    migrate(empty_database.url, "public", files=SMALL)

    rows = empty_database.execute("SELECT name, kind, checksum FROM listener_migrations ORDER BY name")

    assert rows == sorted((f.name, f.kind, f.checksum) for f in SMALL)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("CREATE TABLE listener_migrations (version text)",
         "listener_migrations that is not ours (has no column name, kind, checksum, applied_at)"),
        ("CREATE TABLE sync_runs (id bigint, status text)",
         "sync_runs that is not ours (has no column claim_id, connector, account, reason)"),
        ("CREATE TABLE polling_metrics (workflow_name text)", "polling_metrics that is not ours (has no column check_"),
        ("CREATE VIEW orders_inbox AS SELECT 1 AS id", "orders_inbox that is not ours (is no table)"),
    ],
)  # fmt: skip
def test_tables_of_our_names_that_are_not_ours(empty_database: Database, made: str, told: str) -> None:
    """Refused before anything is made; a schema of its own is the way out."""
    empty_database.execute(made)
    before = empty_database.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    for command in (migrate, status, dry_run):
        with pytest.raises(DatabaseError) as refused:
            command(empty_database.url, "public")  # type: ignore[operator]
        assert f" has a {told}" in str(refused.value)
        assert str(refused.value).endswith("give order-listener a schema of its own, such as LISTENER_SCHEMA=listener")
    after = empty_database.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    assert after == before
    assert migrate(empty_database.url, "listener").created_schema


def test_a_table_of_ours_that_somebody_changed_is_still_ours(database: Database) -> None:
    """It is told by `listener doctor`; an upgrade goes on."""
    database.execute("ALTER TABLE sync_runs RENAME COLUMN reason TO why")
    assert migrate(database.url, "public").applied == ()


def test_two_runs_at_once_follow_each_other(empty_database: Database, pool: ThreadPoolExecutor) -> None:
    """The second waits for the first, finds everything done, and both succeed."""
    gate = SqlFile("migrations/0003_gate.sql", "migration", "SELECT pg_advisory_xact_lock(42);")
    with empty_database.connect() as conn:
        conn.execute("SELECT pg_advisory_lock(42)")
        runs = [pool.submit(migrate, empty_database.url, "public", files=(*SMALL, gate)) for _ in range(2)]
        until(lambda: waiting_count(empty_database) == 2, what="one run at the gate and one behind it")

    reports = sorted((run.result(30) for run in runs), key=lambda report: report.unchanged_count)

    assert [len(report.applied) for report in reports] == [4, 0]


def test_concurrent_index_does_not_deadlock_with_a_waiting_run(
    empty_database: Database, pool: ThreadPoolExecutor
) -> None:
    """The build waits for all older statements, also for that of the run that waits for the build."""
    text = "-- listener: no transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS notes_id ON notes (id);\nSELECT 1;"
    files = (*SMALL, SqlFile("migrations/0003_index.sql", "migration", text))
    migrate(empty_database.url, "public", files=SMALL)
    with empty_database.connect(autocommit=False) as conn:
        conn.execute("LOCK TABLE notes IN ROW EXCLUSIVE MODE")  # a writer that is not ready
        first = pool.submit(migrate, empty_database.url, "public", files=files)
        until(lambda: waiting_count(empty_database) == 1, what="the index build to wait for the writer")
        second = pool.submit(migrate, empty_database.url, "public", files=files)
        until(lambda: waiting_count(empty_database) == 2, what="the second run to wait")

    assert first.result(30).applied == ("migrations/0003_index.sql",)
    assert second.result(30).applied == ()


def test_run_that_waits_too_long_says_so(empty_database: Database, pool: ThreadPoolExecutor) -> None:
    """It names the cause instead of hanging."""
    gate = SqlFile("migrations/0003_gate.sql", "migration", "SELECT pg_advisory_xact_lock(42);")
    with empty_database.connect() as conn:
        conn.execute("SELECT pg_advisory_lock(42)")
        first = pool.submit(migrate, empty_database.url, "public", files=(*SMALL, gate))
        until(lambda: waiting_count(empty_database) == 1, what="the first run at the gate")

        with pytest.raises(DatabaseError, match=r"another `listener migrate` of schema public .* is running"):
            migrate(empty_database.url, "public", files=SMALL, wait_s=0.05)

    first.result(30)


def test_locked_table_is_named_after_the_wait(empty_database: Database) -> None:
    """What was applied before stays applied, and the next run goes on from there."""
    migrate(empty_database.url, "public", files=(TABLE,))
    with empty_database.connect(autocommit=False) as conn:
        conn.execute("LOCK TABLE notes")

        with pytest.raises(DatabaseError, match=re.escape(COLUMN.name) + ": another session holds a lock"):
            migrate(empty_database.url, "public", files=SMALL, wait_s=0.1)

    assert migrate(empty_database.url, "public", files=SMALL).applied == (COLUMN.name, FUNCTION.name)


@pytest.mark.parametrize("call", [migrate, dry_run])
def test_changed_migration_is_refused_by_name(empty_database: Database, call: object) -> None:
    """A change to an applied file would reach new databases only; nothing at all is applied then."""
    migrate(empty_database.url, "public", files=(TABLE,))
    changed = replace(TABLE, text=TABLE.text.replace("body", "content"))

    with pytest.raises(Unmigrated, match=r"^migrations/0001_notes.sql was changed after it was applied .*restore"):
        call(empty_database.url, "public", files=(changed, COLUMN))

    assert empty_database.execute("SELECT name FROM listener_migrations") == [(TABLE.name,)]
    states = [s.state for s in status(empty_database.url, "public", files=(changed, COLUMN))]
    assert states == ["changed", "pending"]


def test_line_ends_are_no_change(empty_database: Database, tmp_path: Path) -> None:
    """The same file from a checkout on Windows is the same file."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "0001_notes.sql").write_bytes(TABLE.text.replace("\n", "\r\n").encode())
    migrate(empty_database.url, "public", files=(TABLE,))

    assert migrate(empty_database.url, "public", files=schema_files(tmp_path)).applied == ()


def test_changed_function_is_applied_again(empty_database: Database) -> None:
    """Functions and triggers follow their files."""
    migrate(empty_database.url, "public", files=SMALL)
    changed = replace(FUNCTION, text=FUNCTION.text.replace("41", "42"))

    with empty_database.connect() as conn, pytest.raises(Unmigrated, match=r"another version of functions/answer.sql"):
        verify(conn, "public", (TABLE, COLUMN, changed))
    report = migrate(empty_database.url, "public", files=(TABLE, COLUMN, changed))

    assert report.applied == (FUNCTION.name,)
    assert empty_database.execute("SELECT answer()") == [(42,)]
    assert migrate(empty_database.url, "public", files=(TABLE, COLUMN, changed)).applied == ()


def test_dropped_function_leaves_the_books_with_its_migration(empty_database: Database) -> None:
    """The migration that drops it tells a dropped function from one of a newer release."""
    migrate(empty_database.url, "public", files=SMALL)
    drop = SqlFile("migrations/0003_drop.sql", "migration", "DROP FUNCTION IF EXISTS answer();")

    migrate(empty_database.url, "public", files=(TABLE, COLUMN, drop))

    with empty_database.connect() as conn:
        verify(conn, "public", (TABLE, COLUMN, drop))
    with empty_database.connect() as conn, pytest.raises(Unmigrated, match="newer than this code"):
        verify(conn, "public", SMALL)


def test_dry_run_is_what_migrate_does(empty_database: Database, psql: Path) -> None:
    """It changes nothing, and its script makes the same schema and the same books."""
    before = dump(psql, empty_database.url)

    script = dry_run(empty_database.url, "public")

    assert dump(psql, empty_database.url) == before
    command = [psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", empty_database.url]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with fresh_database(empty_database.server) as migrated:
        migrate(migrated.url, "public")
        assert dump(psql, empty_database.url) == dump(psql, migrated.url)
    assert migrate(empty_database.url, "public").applied == ()
    assert "is up to date" in dry_run(empty_database.url, "public")


@pytest.mark.parametrize("schema", ODD_NAMES)
def test_schema_may_have_any_legal_name(empty_database: Database, psql: Path, schema: str) -> None:
    """It is made when missing, everything lands in it, and nothing anywhere else."""
    script = dry_run(empty_database.url, schema)

    report = migrate(empty_database.url, schema)

    assert report.created_schema
    assert not migrate(empty_database.url, schema).applied
    assert {s.state for s in status(empty_database.url, schema)} == {"applied"}
    homes = empty_database.execute(
        "SELECT DISTINCT n.nspname FROM pg_namespace n JOIN (SELECT relnamespace FROM pg_class UNION ALL"
        " SELECT pronamespace FROM pg_proc) AS o (home) ON home = n.oid"
        " WHERE n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')"
    )
    assert homes == [(schema,)]
    before = dump(psql, empty_database.url)
    empty_database.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
    subprocess.run(
        [psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--quiet", empty_database.url],
        input=script.encode(),
        check=True,
    )
    assert dump(psql, empty_database.url) == before


@pytest.mark.parametrize("schema", ["", "a" * 64, "pg_mine", "nul\0"])
def test_impossible_schema_name_is_refused(empty_database: Database, schema: str) -> None:
    """The server would cut a long name silently."""
    with pytest.raises(ConfigError, match="LISTENER_SCHEMA="):
        migrate(empty_database.url, schema)


def test_two_installations_in_one_database_do_not_meet(empty_database: Database, pool: ThreadPoolExecutor) -> None:
    """One migrates while the other is busy, and each sees its own rows only."""
    gate = SqlFile("migrations/0003_gate.sql", "migration", "SELECT pg_advisory_xact_lock(42);")
    with empty_database.connect() as conn:
        conn.execute("SELECT pg_advisory_lock(42)")
        busy = pool.submit(migrate, empty_database.url, "east", files=(gate,))
        until(lambda: waiting_count(empty_database) == 1, what="the run in the other schema")
        migrate(empty_database.url, "west", wait_s=5)
    busy.result(30)
    migrate(empty_database.url, "South", files=SMALL)

    empty_database.execute("SET search_path = west")
    empty_database.execute("UPDATE configuration_params SET param_value = '99' WHERE param_key = 'sync_interval'")

    assert [s.state for s in status(empty_database.url, "east", files=(gate,))] == ["applied"]
    with empty_database.connect() as conn:
        verify(conn, "west")
        verify(conn, "South", SMALL)
        with pytest.raises(Unmigrated, match=r"schema south of .* was never migrated"):
            verify(conn, "south", SMALL)


@pytest.mark.parametrize(
    ("applied", "known", "sentence"),
    [
        ((), SMALL, "schema public of .* was never migrated: run `listener migrate`"),
        ((TABLE,), (TABLE, COLUMN), "is older than this code: migrations/0002_done.sql not applied: run `lis"),
        ((TABLE,), SMALL, "is older than this code: migrations/0002_done.sql and 1 more not applied: run"),
        (SMALL, (TABLE,), "is newer than this code, which does not know functions/answer.sql and 1 more: install"),
        (SMALL, (TABLE, COLUMN), "is newer than this code, which does not know functions/answer.sql: install"),
    ],
)
@pytest.mark.anyio
async def test_check_at_start_says_what_does_not_fit(
    empty_database: Database, applied: tuple[SqlFile, ...], known: tuple[SqlFile, ...], sentence: str
) -> None:
    """One line, the same for the sync and the async caller."""
    migrate(empty_database.url, "public", files=applied)

    with empty_database.connect() as conn, pytest.raises(Unmigrated, match=sentence) as sync_error:
        verify(conn, "public", known)
    async with await psycopg.AsyncConnection.connect(empty_database.url, row_factory=psycopg.rows.dict_row) as conn:
        with pytest.raises(Unmigrated) as async_error:
            await verify_async(conn, "public", known)

    assert str(async_error.value) == str(sync_error.value)
    assert "\n" not in str(sync_error.value)


def test_newer_database_is_left_alone(empty_database: Database) -> None:
    """An older release must not put its older functions back."""
    migrate(empty_database.url, "public", files=SMALL)
    older = (TABLE, replace(FUNCTION, text=FUNCTION.text.replace("41", "40")))

    with pytest.raises(Unmigrated, match=r"newer than this code, which does not know migrations/0002_done.sql"):
        migrate(empty_database.url, "public", files=older)

    assert empty_database.execute("SELECT answer()") == [(41,)]
    states = {s.name: s.state for s in status(empty_database.url, "public", files=older)}
    assert states == {TABLE.name: "applied", FUNCTION.name: "changed", COLUMN.name: "unknown"}


@pytest.mark.parametrize("schema", ["public", "shop"])
def test_missing_right_is_named_in_one_line(login: str, schema: str) -> None:
    """With the place, without the password."""
    with pytest.raises(DatabaseError, match=r"^not permitted in .*permission denied for .*: grant") as error:
        migrate(login, schema)

    assert "\n" not in str(error.value)
    assert "seCret" not in str(error.value)


def test_user_without_create_right_on_the_database_uses_a_schema_that_is_there(
    empty_database: Database, login: str
) -> None:
    """Creating the schema needs a right that using it does not."""
    name = psycopg.conninfo.conninfo_to_dict(login)["user"]
    empty_database.execute(sql.SQL("CREATE SCHEMA shop AUTHORIZATION {}").format(sql.Identifier(name)))

    report = migrate(login, "shop")

    assert (report.created_schema, len(report.applied)) == (False, len(schema_files()))


def test_failed_file_leaves_no_trace_and_is_named(empty_database: Database) -> None:
    """Each migration is a transaction of its own: those before it stay."""
    broken = SqlFile("migrations/0003_broken.sql", "migration", "CREATE TABLE half (); SELECT 1/0;")

    with pytest.raises(DatabaseError, match=r"^migrations/0003_broken.sql: .*division by zero"):
        migrate(empty_database.url, "public", files=(TABLE, COLUMN, broken, FUNCTION))

    rows = empty_database.execute("SELECT to_regclass('half'), array_agg(name ORDER BY name) FROM listener_migrations")
    assert rows == [(None, [TABLE.name, COLUMN.name])]


def test_functions_and_triggers_change_together(empty_database: Database) -> None:
    """No writer meets the new function with the old trigger."""
    broken = SqlFile("triggers/broken.sql", "trigger", "CREATE TRIGGER nonsense;")

    with pytest.raises(DatabaseError, match=r"^triggers/broken.sql: .*syntax error"):
        migrate(empty_database.url, "public", files=(*SMALL, broken))

    assert empty_database.execute("SELECT to_regproc('answer')") == [(None,)]


def test_invalid_index_of_a_failed_build_is_built_again(empty_database: Database) -> None:
    """IF NOT EXISTS would take it for a good one."""
    text = "-- listener: no transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS notes_id ON notes (id);\n"
    files = (TABLE, SqlFile("migrations/0002_index.sql", "migration", text))
    migrate(empty_database.url, "public", files=(TABLE,))
    empty_database.execute("INSERT INTO notes (id) VALUES (1), (1)")
    with pytest.raises(
        DatabaseError, match=r"^migrations/0002_index.sql: .*could not create unique index .*Key \(id\)=\(1\)"
    ):
        migrate(empty_database.url, "public", files=files)

    empty_database.execute("DELETE FROM notes")
    migrate(empty_database.url, "public", files=files)

    query = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'notes_id'::regclass"
    assert empty_database.execute(query) == [(True,)]


def test_plan_reads_only(empty_database: Database) -> None:
    """A read-only session can ask for it."""
    with empty_database.connect(options="-c default_transaction_read_only=on") as conn:
        planned = plan(conn, "nowhere", SMALL)

    assert (planned.creates_schema, planned.files, planned.stale) == (True, SMALL, ())


def test_a_server_that_accepts_and_stays_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after the time that every connection gets, 10 s, here 2: the least that libpq takes."""
    monkeypatch.setitem(KEEPALIVES, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # Where nothing bounds the wait, this ends it, with another sentence.
        end = threading.Timer(8.0, silent.shutdown, (socket.SHUT_RDWR,))
        end.start()
        try:
            with pytest.raises(
                DatabaseError, match=rf"^no answer from the database at 127\.0\.0\.1:{port}/shop: check "
            ):
                status(f"postgresql://me@127.0.0.1:{port}/shop", "public")
        finally:
            end.cancel()
