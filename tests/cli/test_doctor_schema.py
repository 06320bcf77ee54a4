"""The doctor on the schema: each thing broken once, and mended by the very statement that it advises."""

from collections.abc import Iterator

import psycopg
import pytest
from conftest import Database, Server, fresh_database
from db.test_adoption import OLD_TABLES
from psycopg import sql

from cli.ward import SCHEMA, Ward
from listener.db.migrate import migrate

with_its_own_role = pytest.mark.own_role("the doctor comes as a role that the test has made, with other rights")


def test_never_migrated(patient: Ward, server: Server) -> None:
    with fresh_database(server) as empty:
        found = patient.trouble(DATABASE_URL=patient.login.url(empty.url))
    (finding,) = found["migrations"]
    assert "was never migrated" in finding.seen
    assert finding.advice == "run `listener migrate`"
    assert found["work"][0].verdict == "unknown"
    assert found["work"][0].seen == "not made: the schema is not this release's; see migrations"


def test_a_function_of_another_release(patient: Ward) -> None:
    name = "functions/listener_ring.sql"
    (checksum,) = patient.database.execute("SELECT checksum FROM listener_migrations WHERE name = %s", [name])[0]
    patient.database.execute("UPDATE listener_migrations SET checksum = 'other' WHERE name = %s", [name])
    (finding,) = patient.trouble()["migrations"]
    patient.database.execute("UPDATE listener_migrations SET checksum = %s WHERE name = %s", [checksum, name])
    assert "another version of functions/listener_ring.sql" in finding.seen
    assert finding.advice == "run `listener migrate`"


@pytest.fixture(scope="module")
def stranger(patient: Ward) -> Iterator[Database]:
    """The same database as a role that has everything the service needs, and nothing more."""
    name = f"stranger_of_{patient.database.name}"
    execute = patient.database.execute
    execute(f'CREATE ROLE {name} LOGIN; GRANT pg_monitor TO {name}; GRANT USAGE ON SCHEMA "{SCHEMA}" TO {name}')
    try:
        for kind, relation, privilege in execute(
            "SELECT kind, relation::text, privilege FROM listener_privileges() WHERE role = 'runtime'"
        ):
            execute(f"GRANT {privilege} ON {kind} {relation} TO {name}")
        conn = psycopg.conninfo.conninfo_to_dict(patient.database.url)
        same = Database(patient.database.server, patient.database.name)
        same.url = f"postgresql://{name}@{conn['host']}:{conn['port']}/{conn['dbname']}"
        yield same
    finally:
        execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@with_its_own_role
def test_a_role_with_exactly_the_privileges_is_enough(patient: Ward, stranger: Database) -> None:
    assert patient.trouble(DATABASE_URL=stranger.url) == {}


@with_its_own_role
def test_privileges_are_missing(patient: Ward, stranger: Database) -> None:
    (role,) = stranger.execute("SELECT current_user")[0]
    stranger.close()
    patient.database.execute(f"REVOKE UPDATE ON orders_inbox FROM {role}; REVOKE ALL ON listener_claim_id FROM {role}")
    found = patient.only("grants", DATABASE_URL=stranger.url)

    assert found.verdict == "fail"
    assert found.seen == f"{role} lacks USAGE on listener_claim_id, UPDATE on orders_inbox"
    advice = found.advice.removeprefix("as the owner: ").removesuffix(
        "; or run deploy/roles.sql, which grants all of it"
    )
    patient.cured_by(advice)
    assert patient.trouble(DATABASE_URL=stranger.url) == {}


@with_its_own_role
def test_the_schema_and_temporary_tables_are_closed(patient: Ward, stranger: Database) -> None:
    (role,) = stranger.execute("SELECT current_user")[0]
    stranger.close()
    name = patient.database.name
    patient.database.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
    found = patient.only("grants", DATABASE_URL=stranger.url)
    assert "may make no temporary table" in found.seen
    assert found.advice == f"as the owner: GRANT TEMPORARY ON DATABASE {name} TO {role}"
    patient.paste(found.advice.removeprefix("as the owner: "))

    patient.database.execute(f'REVOKE USAGE ON SCHEMA "{SCHEMA}" FROM {role}')
    closed = patient.trouble(DATABASE_URL=stranger.url)
    behind = patient.trouble(DATABASE_URL=stranger.url, LISTENER_DIRECT_URL=patient.database.url)
    for (finding,) in (closed["migrations"], behind["grants"]):
        assert (finding.verdict, finding.seen) == ("fail", f"{role} may not use schema {SCHEMA}")
    assert closed["grants"][0].seen == "not made: the schema may not be entered; see migrations"
    patient.cured_by(behind["grants"][0].advice.removeprefix("as the owner: "))
    assert patient.trouble(DATABASE_URL=stranger.url) == {}


@with_its_own_role
def test_row_security_hides_rows(patient: Ward, stranger: Database) -> None:
    patient.database.execute("ALTER TABLE orders_inbox ENABLE ROW LEVEL SECURITY")
    found = patient.trouble(DATABASE_URL=stranger.url)
    (finding,) = found["grants"]
    patient.database.execute("ALTER TABLE orders_inbox DISABLE ROW LEVEL SECURITY")
    assert "row security hides rows of orders_inbox" in finding.seen
    assert finding.advice.startswith('CREATE POLICY listener ON "Shop_1".orders_inbox TO stranger_of_')


@with_its_own_role
def test_a_question_that_may_not_be_asked_is_not_passed_over(patient: Ward, stranger: Database) -> None:
    (role,) = stranger.execute("SELECT current_user")[0]
    stranger.close()
    patient.database.execute(f"REVOKE SELECT ON configuration_params FROM {role}")
    found = patient.trouble(DATABASE_URL=stranger.url)
    (finding,) = found["configuration"]
    assert finding.verdict == "unknown"
    assert "permission denied for table configuration_params" in finding.seen
    assert "grant the right" in finding.advice
    assert found["grants"][0].seen == f"{role} lacks SELECT on configuration_params"
    patient.cured_by(found["grants"][0].advice.removeprefix("as the owner: ").partition("; or")[0])


@with_its_own_role
def test_other_roles_sessions_cannot_be_seen(patient: Ward, stranger: Database) -> None:
    (role,) = stranger.execute("SELECT current_user")[0]
    stranger.close()
    patient.database.execute(f"REVOKE pg_monitor FROM {role}")
    with psycopg.connect(patient.database.url, application_name="somebody else"):
        found = patient.only("transactions", DATABASE_URL=stranger.url)
    assert "of other roles cannot be looked into" in found.seen
    assert found.advice.startswith(f"as an administrator: GRANT pg_monitor TO {role}; ")
    patient.cured_by(found.advice.removeprefix("as an administrator: ").partition("; ")[0])


def test_everybody_may_create(patient: Ward) -> None:
    patient.database.execute(f'GRANT CREATE ON SCHEMA "{SCHEMA}" TO PUBLIC')
    found = patient.only("grants")
    assert found.verdict == "warn"
    patient.cured_by(found.advice)


@pytest.mark.parametrize(
    ("how", "said"), [("DISABLE TRIGGER", "is off"), ("ENABLE REPLICA TRIGGER", "fires on replicas only")]
)
def test_a_trigger_is_switched_off(patient: Ward, how: str, said: str) -> None:
    patient.database.execute(f"ALTER TABLE orders_inbox {how} orders_inbox_inserted")
    found = patient.only("triggers")
    assert found.verdict == "fail"
    assert f"trigger orders_inbox_inserted on orders_inbox {said}" in found.seen
    patient.cured_by(found.advice)


def test_a_trigger_is_missing(patient: Ward) -> None:
    patient.database.execute("DROP TRIGGER sync_runs_retry ON sync_runs")
    found = patient.only("triggers")
    assert "trigger sync_runs_retry on sync_runs is missing" in found.seen
    statement, _, rest = found.advice.partition("; ")
    assert rest == "then run `listener migrate`"
    patient.paste(statement)
    assert patient.migrate() == ("triggers/sync_runs_retry.sql",)
    assert patient.trouble() == {}


def test_a_table_rings_nothing(patient: Ward) -> None:
    """Rebuilt with the triggers of the table that it replaces, or put under one that is no queue."""
    as_owner = patient.database.execute_as_owner
    as_owner("CREATE TABLE parcels (id bigint PRIMARY KEY); CREATE TABLE former ()")
    as_owner("SELECT attach_queue('parcels'::regclass)")
    patient.login.grant(patient.database.url, SCHEMA)
    assert patient.trouble() == {}
    as_owner(
        "CREATE OR REPLACE TRIGGER listener_inserted AFTER INSERT ON parcels REFERENCING NEW TABLE AS inserted"
        " FOR EACH STATEMENT WHEN ('former'::regclass::oid > 0) EXECUTE FUNCTION listener_ring_inserted()"
    )
    found = patient.only("triggers")
    assert found.verdict == "warn"
    assert "table parcels rings nothing" in found.seen
    assert found.advice == "run `listener attach parcels` again"
    as_owner("SELECT attach_queue('parcels'::regclass)")
    assert patient.trouble() == {}
    as_owner("CREATE TABLE whole (LIKE parcels INCLUDING DEFAULTS) PARTITION BY LIST (id)")
    as_owner("ALTER TABLE whole ATTACH PARTITION parcels DEFAULT")
    assert "table parcels rings nothing" in patient.only("triggers").seen
    as_owner("ALTER TABLE whole DETACH PARTITION parcels; SELECT detach_queue('parcels'::regclass)")
    as_owner("DROP TABLE whole, parcels, former")


def test_a_partition_rings_nothing(patient: Ward) -> None:
    execute = patient.database.execute
    as_owner = patient.database.execute_as_owner
    as_owner("CREATE TABLE parcels (id bigint PRIMARY KEY) PARTITION BY RANGE (id)")
    as_owner("CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (100)")
    as_owner("SELECT attach_queue('parcels'::regclass)")
    patient.login.grant(patient.database.url, SCHEMA)
    assert patient.trouble() == {}
    as_owner("CREATE TABLE parcels_2 PARTITION OF parcels FOR VALUES FROM (100) TO (200)")
    found = patient.only("triggers")
    assert found.verdict == "warn"
    assert "partition parcels_2 rings nothing" in found.seen
    assert found.advice == "run `listener attach parcels` again"
    as_owner("SELECT attach_queue('parcels'::regclass)")
    execute("ALTER TABLE parcels_1 DISABLE TRIGGER listener_inserted")
    found = patient.only("triggers")
    assert "trigger listener_inserted on parcels_1 is off" in found.seen
    patient.cured_by(found.advice)
    execute("SELECT detach_queue('parcels'::regclass, false)")
    execute("DROP TABLE parcels")


@pytest.mark.parametrize(
    ("scope", "who", "value"),
    [("ROLE {role}", "role {role}", "replica"), ("DATABASE {name}", "database {name}", "'Replica'"),
     ("ROLE {role} IN DATABASE {name}", "role {role} in database {name}", "replica")],
)  # fmt: skip
def test_somebody_writes_past_the_triggers(patient: Ward, scope: str, who: str, value: str) -> None:
    name, role = patient.database.name, f"loader_of_{patient.database.name}"
    patient.database.execute(f"CREATE ROLE {role}")
    patient.database.execute(f"ALTER {scope.format(role=role, name=name)} SET session_replication_role = {value}")
    found = patient.only("bypasses")
    assert f"session_replication_role is replica for {who.format(role=role, name=name)}" in found.seen
    patient.cured_by(found.advice.removesuffix("; then connect anew"))
    patient.database.execute(f"DROP ROLE {role}")


def test_an_index_is_half_built(patient: Ward) -> None:
    execute = patient.database.execute
    execute("INSERT INTO import_files (status, name) VALUES ('Skipped', 'a'), ('Skipped', 'a')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute("CREATE UNIQUE INDEX CONCURRENTLY one_name ON import_files (name)")
    found = patient.only("indexes")
    assert "index one_name on import_files is invalid" in found.seen
    assert found.advice == 'REINDEX INDEX CONCURRENTLY "Shop_1".one_name'
    execute("DELETE FROM import_files")
    patient.cured_by(found.advice)
    execute("DROP INDEX one_name")


@pytest.mark.parametrize(
    ("index", "whom"), [("idx_orders_inbox_status_pending", "claims"), ("orders_inbox_processing", "rescues")]
)
def test_an_index_of_the_engine_is_missing(patient: Ward, index: str, whom: str) -> None:
    (definition,) = patient.database.execute("SELECT pg_get_indexdef(%s::regclass)", [index])[0]
    patient.database.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
    found = patient.only("indexes")
    assert f"orders_inbox has no valid index for {whom}" in found.seen
    patient.cured_by(found.advice)
    patient.database.execute(definition)


@pytest.mark.own_role("an administrator adopts tables of another owner")
def test_indexes_of_an_older_table_are_known(patient: Ward, server: Server) -> None:
    """Its status is varchar, of which the server writes an index's condition in another way."""
    with fresh_database(server) as database:
        database.execute(OLD_TABLES)
        migrate(database.url, "public")
        database.execute("CREATE TABLE parcels (id uuid PRIMARY KEY, status varchar(30) NOT NULL)")
        database.execute("SELECT attach_queue('parcels'::regclass, ready => $$status = 'it''s (New)'$$)")
        found = patient.trouble(DATABASE_URL=database.url, LISTENER_SCHEMA="public")
        database.execute("DROP INDEX parcels_listener_due")
        narrow = "(status, priority, scheduled_at, id) WHERE status = 'it''s (New)' AND priority > 5"
        database.execute(f"CREATE INDEX ON parcels {narrow}")
        broken = patient.trouble(DATABASE_URL=database.url, LISTENER_SCHEMA="public")["indexes"]
    assert "indexes" not in found, found
    assert [each.seen for each in broken] == ["parcels has no valid index for claims: each reads the whole table"]


@pytest.mark.parametrize(
    ("broken", "verdict", "said"),
    [
        ("ALTER TABLE orders_inbox SET (autovacuum_enabled = off)", "fail", "autovacuum is off for orders_inbox"),
        ("ALTER TABLE orders_inbox SET (fillfactor = 100)", "warn", "fillfactor of orders_inbox is 100"),
        ("ALTER TABLE api_budgets RESET (fillfactor)", "warn", "fillfactor of api_budgets is 100"),
        (
            "ALTER TABLE orders_inbox SET (autovacuum_vacuum_scale_factor = 0.9)",
            "warn",
            "autovacuum_vacuum_scale_factor of orders_inbox is 0.9: dead row versions stay longer",
        ),
    ],
)
def test_a_table_is_kept_badly(patient: Ward, broken: str, verdict: str, said: str) -> None:
    patient.database.execute(broken)
    found = patient.only("storage")
    assert found.verdict == verdict
    assert said in found.seen
    patient.cured_by(found.advice)


def test_every_option_that_a_migration_sets_is_looked_at(patient: Ward) -> None:
    execute = patient.database.execute
    options = execute(
        "SELECT relname, split_part(o, '=', 1), split_part(o, '=', 2)::numeric FROM pg_class, unnest(reloptions) AS o"
        " WHERE relkind = 'r' AND relnamespace = '\"Shop_1\"'::regnamespace"
    )
    for table, option, value in options:
        execute(f"ALTER TABLE {table} SET ({option} = {value + 1})")
    found = patient.trouble()["storage"]
    for each in found:
        patient.paste(each.advice)
    assert len(options) > 5
    assert {each.seen.partition(" is ")[0] for each in found} == {
        f"{option} of {table}" for table, option, _ in options
    }
    assert patient.trouble() == {}


def test_a_partition_is_kept_badly(patient: Ward) -> None:
    """It is there that the rows are."""
    execute, as_owner = patient.database.execute, patient.database.execute_as_owner
    as_owner("CREATE TABLE parcels (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id)")
    as_owner("CREATE TABLE parcels_1 PARTITION OF parcels FOR VALUES FROM (1) TO (100)")
    as_owner("SELECT attach_queue('parcels'::regclass)")
    patient.login.grant(patient.database.url, SCHEMA)
    execute("ALTER TABLE parcels_1 SET (autovacuum_enabled = off)")
    found = patient.only("storage")
    assert found.seen == "autovacuum is off for parcels_1"
    patient.cured_by(found.advice)
    execute("INSERT INTO parcels (id, note, status) VALUES (1, 'a', 'Skipped'), (2, 'a', 'Skipped')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        execute("CREATE UNIQUE INDEX CONCURRENTLY one_note ON parcels_1 (note)")
    found = patient.only("indexes")
    assert "index one_note on parcels_1 is invalid" in found.seen
    execute("DELETE FROM parcels")
    patient.cured_by(found.advice)
    as_owner("SELECT detach_queue('parcels'::regclass, false)")
    execute("DROP TABLE parcels")


def test_dead_rows_are_not_removed(patient: Ward) -> None:
    execute = patient.database.execute
    execute("ALTER TABLE polling_metrics SET (autovacuum_vacuum_threshold = 1000000)")
    execute("INSERT INTO polling_metrics (workflow_name) SELECT 'x' FROM generate_series(1, 60000)")
    execute("DELETE FROM polling_metrics")
    execute("SELECT pg_stat_force_next_flush()")
    found = patient.only("storage")
    assert "polling_metrics has 60000 dead row versions beside 0 rows" in found.seen
    patient.cured_by(found.advice.rpartition("then ")[2])
    execute("ALTER TABLE polling_metrics RESET (autovacuum_vacuum_threshold)")
